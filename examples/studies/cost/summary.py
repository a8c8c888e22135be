"""The benchmark's tables, in Markdown."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from deq_fusion.examples.studies.cost.measure import MEMORY, Group
from deq_fusion.training_structures.comparison.report.table import markdown


def to_markdown(groups: Sequence[Group], machine: str) -> str:
    """Returns a section for every part that was measured."""
    sections = [f"Medians of interleaved repeats; times in milliseconds. {machine}"]
    for part, write in SECTIONS.items():
        chosen = [group for group in groups if group[0]["part"] == part]
        if chosen:
            sections.append(write(chosen))
    return "\n\n".join(sections) + "\n"


def _cases(groups: Sequence[Group]) -> str:
    lines = [
        "## Training step, inference and memory",
        "",
        "Operations dispatched and transfers of a training step, and of inference; arithmetic: the "
        "share of a training step that is matrix products.",
    ]
    head = ["method", "training step", "to deq", "inference", "to deq", "operations", "transfers"]
    head += ["arithmetic", "steps", "backward", "worst residual", "converged", "peak MiB"]
    for group in groups:
        recipe = f": {group[0]['recipe']}" if group[0]["recipe"] else ""
        lines += ["", f"(B, N, d) = {_shape(group[0])}{recipe}", ""]
        lines.append(markdown(head, [_case(row, group[0]) for row in group]))
    return "\n".join([*lines, "", _ratios(groups)])


def _case(row: dict[str, Any], deq: dict[str, Any]) -> list[str]:
    times = [
        text
        for key in ("train_ms", "infer_ms")
        for text in (f"{row[key]:.2f}", f"{row[key] / deq[key]:.2f}")
    ]
    both = zip(row["train_counts"], row["infer_counts"], strict=True)
    counts = [f"{training}, {inference}" for training, inference in both]
    solved = [*_steps(row), _text(row, "residual", "{:.1e}"), _text(row, "converged", "{:.1%}")]
    rest = [f"{row['arithmetic']:.0%}", *solved, f"{row['peak_mib']:.1f}"]
    return [row["method"], *times, *counts, *rest]


def _ratios(groups: Sequence[Group]) -> str:
    """Returns the ratios that the project holds itself to."""
    head = ["(B, N, d)", "deq", "deq / concat + linear", "one step / concat + linear"]
    head += ["torchdeq / deq", "unrolled / deq", "operations", "transfers", "arithmetic"]
    table = []
    for group in groups:
        taken, deq = {row["method"]: row["train_ms"] for row in group}, group[0]
        ours, linear = deq["train_ms"], taken["concat + linear"]
        theirs = taken.get("torchdeq, joint")
        ratios = [f"{ours / linear:.1f}", f"{taken['deq, one step'] / linear:.1f}"]
        ratios += ["" if theirs is None else f"{theirs / ours:.2f}"]
        ratios += [f"{taken['unrolled'] / ours:.2f}"]
        counts = [*map(str, deq["train_counts"]), f"{deq['arithmetic']:.0%}"]
        table.append([_shape(deq), f"{ours:.2f}", *ratios, *counts])
    return "Training steps\n\n" + markdown(head, table)


def _options(groups: Sequence[Group]) -> str:
    lines = ["## Solvers, gradients and penalties (training step)"]
    head = ["option", "training step", "to default", "steps", "backward", "converged"]
    for group in groups:
        lines += ["", f"(B, N, d) = {_shape(group[0])}, {group[0]['problem']}", ""]
        table = []
        for row in group:
            times = [f"{row['train_ms']:.2f}", f"{row['train_ms'] / group[0]['train_ms']:.2f}"]
            found = [_text(row, "converged", "{:.1%}"), _text(row, "error", "{:.1e}")]
            table.append([row["method"], *times, *_steps(row), *found])
        lines.append(markdown([*head, "gradient's error"], table))
    return "\n".join(lines)


def _sweeps(groups: Sequence[Group]) -> str:
    lines = ["## How the cost grows (training step)"]
    for group in groups:
        sweep, methods = group[0]["sweep"], list(group[0]["times"])
        table = []
        for row in group:
            times = [f"{row['times'][method]:.2f}" for method in methods]
            table.append([f"{row['value']:g}", *times, *_steps(row)])
        lines += ["", markdown([sweep, *methods, "steps", "backward"], table)]
        if sweep != "tol":
            powers = ", ".join(f"{method} {_power(group, method):.2f}" for method in methods)
            lines += ["", f"Power of {sweep} over the upper half of the range: {powers}"]
    return "\n".join(lines)


def _power(group: Group, method: str) -> float:
    """Returns the slope of log time over log value, from the middle of the range to its end."""
    points = [(row["value"], row["times"][method]) for row in group]
    (x0, t0), (x1, t1) = points[len(points) // 2 - 1], points[-1]
    return math.log(t1 / t0) / math.log(x1 / x0)


def _memory(groups: Sequence[Group]) -> str:
    aim = 2 * MEMORY + 10
    table = [
        [row["method"], str(row["limit"]), f"{row['states']:.1f}", str(aim)]
        for group in groups
        for row in group
    ]
    head = ["block", "step limit", "peak, in states", f"2m + 10, m = {MEMORY}"]
    return f"## Peak memory of a block's forward and backward solve\n\n{markdown(head, table)}"


SECTIONS: dict[str, Callable[[Sequence[Group]], str]] = {
    "cases": _cases,
    "options": _options,
    "sweeps": _sweeps,
    "memory": _memory,
}


def _shape(row: dict[str, Any]) -> str:
    return f"({row['batch']}, {row['modalities']}, {row['dim']})"


def _steps(row: dict[str, Any]) -> list[str]:
    return [_text(row, "steps", "{:.1f}"), _text(row, "backward_steps", "{:.1f}")]


def _text(row: dict[str, Any], key: str, form: str) -> str:
    return form.format(row[key]) if key in row else ""
