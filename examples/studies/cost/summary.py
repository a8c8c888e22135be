"""The summary of what was measured: a table or more for each part."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from deq_fusion.examples.studies.cost.measure import Group
from deq_fusion.examples.studies.cost.rows import MEMORY
from deq_fusion.examples.studies.output import Summary
from deq_fusion.examples.studies.tables import Column, Table

MEDIANS = "medians of interleaved repeats, in ms"
SOLVED = {"steps": ".1f", "backward steps": ".1f", "worst residual": ".1e", "converged": ".1%"}


def summary(groups: Sequence[Group]) -> Summary:
    """Returns the tables of every part that was measured."""
    tables: list[Table] = []
    for part, make in PARTS.items():
        chosen = [group for group in groups if group[0]["part"] == part]
        tables += make(chosen) if chosen else []
    return Summary(tables)


def _cases(groups: Sequence[Group]) -> list[Table]:
    columns = [Column("(B, N, d)"), Column("method")]
    columns += [Column("training step", ".2f"), Column("to deq", ".2f")]
    columns += [Column("inference", ".2f"), Column("inference to deq", ".2f")]
    for what in ("operations", "transfers"):
        columns += [Column(what, ".0f"), Column(f"{what}, inference", ".0f")]
    columns += [Column("arithmetic", ".0%"), *(Column(*solved) for solved in SOLVED.items())]
    columns += [Column("peak MiB", ".1f"), Column("of the recipe")]
    lines = [_case(row, group[0]) for group in groups for row in group]
    title = (
        f"Training step, inference ({MEDIANS}) and memory; operations dispatched and transfers of "
        "a step; arithmetic: the share of a training step that is matrix products"
    )
    return [Table("cases", columns, lines, 2, title), _ratios(groups)]


def _case(row: dict[str, Any], deq: dict[str, Any]) -> list[Any]:
    times = [value for key in ("train_ms", "infer_ms") for value in (row[key], row[key] / deq[key])]
    both = zip(row["train_counts"], row["infer_counts"], strict=True)
    counts = [count for pair in both for count in pair]
    found = [row.get(key) for key in ("steps", "backward_steps", "residual", "converged")]
    line = [shape_of(row), row["method"], *times, *counts, row["arithmetic"], *found]
    return [*line, row["peak_mib"], row["recipe"] or None]


def _ratios(groups: Sequence[Group]) -> Table:
    """Returns the ratios that the project holds itself to."""
    heads = ["deq / concat + linear", "one step / concat + linear"]
    heads += ["torchdeq / deq", "unrolled / deq"]
    lines = []
    for group in groups:
        taken = {row["method"]: row["train_ms"] for row in group}
        ours, linear = group[0]["train_ms"], taken["concat + linear"]
        theirs = taken.get("torchdeq, joint")
        ratios = [ours / linear, taken["deq, one step"] / linear]
        ratios += [None if theirs is None else theirs / ours, taken["unrolled"] / ours]
        lines.append([shape_of(group[0]), ours, *ratios])
    columns = [Column("(B, N, d)"), Column("deq", ".2f"), *(Column(h, ".2f") for h in heads)]
    return Table("ratios", columns, lines, 1, f"Training steps: {MEDIANS}, and their ratios")


def _options(groups: Sequence[Group]) -> list[Table]:
    columns = [Column("problem"), Column("(B, N, d)"), Column("option")]
    columns += [Column("training step", ".2f"), Column("to default", ".2f"), Column("steps", ".1f")]
    columns += [Column("backward steps", ".1f"), Column("converged", ".1%")]
    columns += [Column("gradient's error", ".1e")]
    lines = [
        [row["problem"], shape_of(row), row["method"], row["train_ms"]]
        + [row["train_ms"] / group[0]["train_ms"]]
        + [row.get(key) for key in ("steps", "backward_steps", "converged", "error")]
        for group in groups
        for row in group
    ]
    title = f"Solvers, gradients and penalties; training step: {MEDIANS}"
    return [Table("options", columns, lines, 3, title)]


def _sweeps(groups: Sequence[Group]) -> list[Table]:
    return [_sweep(group) for group in groups]


def _sweep(group: Group) -> Table:
    sweep, methods = group[0]["sweep"], list(group[0]["times"])
    columns = [Column(sweep), *(Column(method, ".2f") for method in methods)]
    columns += [Column("steps", ".1f"), Column("backward steps", ".1f")]
    lines = [
        [f"{row['value']:g}", *(row["times"][method] for method in methods)]
        + [row.get("steps"), row.get("backward_steps")]
        for row in group
    ]
    title = f"How a training step grows with {sweep}: {MEDIANS}"
    if sweep != "tol":
        powers = ", ".join(f"{method} {_power(group, method):.2f}" for method in methods)
        title += f"; power of {sweep} over the upper half of the range: {powers}"
    return Table(f"sweep_{sweep}", columns, lines, 1, title)


def _power(group: Group, method: str) -> float:
    """Returns the slope of log time over log value, from the middle of the range to its end."""
    points = [(row["value"], row["times"][method]) for row in group]
    (x0, t0), (x1, t1) = points[len(points) // 2 - 1], points[-1]
    return math.log(t1 / t0) / math.log(x1 / x0)


def _memory(groups: Sequence[Group]) -> list[Table]:
    columns = [Column("block"), Column("step limit"), Column("peak, in states", ".1f")]
    lines = [[row["method"], str(row["limit"]), row["states"]] for group in groups for row in group]
    title = (
        "Peak memory of a block's forward and backward solve, which is to be at most 2m + 10 = "
        f"{2 * MEMORY + 10} states, m = {MEMORY}"
    )
    return [Table("memory", columns, lines, 2, title)]


def _sequences(groups: Sequence[Group]) -> list[Table]:
    first = groups[0][0]["method"]
    columns = [Column("(B, T, N, d)"), Column("method")]
    columns += [Column("training step", ".2f"), Column(f"to {first}", ".2f")]
    columns += [Column("inference", ".2f"), Column(f"inference to {first}", ".2f")]
    lines = [
        [f"({row['batch']}, {row['time']}, {row['modalities']}, {row['dim']})", row["method"]]
        + [x for key in ("train_ms", "infer_ms") for x in (row[key], row[key] / group[0][key])]
        for group in groups
        for row in group
    ]
    title = f"Fusions of aligned sequences of T steps: {MEDIANS}"
    return [Table("sequences", columns, lines, 2, title)]


PARTS: dict[str, Callable[[Sequence[Group]], list[Table]]] = {
    "cases": _cases,
    "options": _options,
    "sweeps": _sweeps,
    "memory": _memory,
    "sequences": _sequences,
}


def shape_of(row: dict[str, Any]) -> str:
    """Returns the three sizes of a problem: batch, modalities, width."""
    return f"({row['batch']}, {row['modalities']}, {row['dim']})"
