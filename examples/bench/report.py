"""The benchmark's tables and picture."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from examples.bench.prototype import RELEASED

Row = dict[str, Any]
METHOD_COLOURS = {  # Okabe and Ito's colours, which the colour-blind tell apart
    "deq": "#0072B2",
    "deq, one step": "#56B4E9",
    "torchdeq, joint": "#D55E00",
    "prototype": "#CC79A7",
    "unrolled": "#009E73",
    "bare evaluations": "#000000",
    "concat + linear": "#E69F00",
}


def to_csv(rows: Sequence[Row]) -> str:
    """Returns all rows under the union of their columns."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(rows: Sequence[Row], machine: str) -> str:
    """Returns a section for every part that was measured."""
    sections = [f"Medians of interleaved repeats; times in milliseconds. {machine}"]
    for part, write in SECTIONS.items():
        chosen = [row for row in rows if row["part"] == part]
        if chosen:
            sections.append(write(chosen))
    return "\n\n".join(sections) + "\n"


def _cases(rows: Sequence[Row]) -> str:
    lines = ["## Training step, inference and memory"]
    groups = _grouped(rows, lambda row: (row["threads"], _shape(row)))
    for (threads, shape), group in groups.items():
        deq = group[0]["train_ms"], group[0]["infer_ms"]
        lines += ["", f"(B, N, d) = {shape}, {_threads(threads)}", ""]
        head = ["method", "training step", "to deq", "inference", "to deq", "steps", "backward"]
        table = [[*head, "worst residual", "converged", "peak MiB"]]
        for row in group:
            times = [
                text
                for key, base in zip(("train_ms", "infer_ms"), deq, strict=True)
                for text in (f"{row[key]:.1f}", f"{row[key] / base:.2f}")
            ]
            solved = [
                _text(row.get("steps"), "{:d}"),
                _text(row.get("backward_steps"), "{:d}"),
                _text(row.get("residual"), "{:.1e}"),
                _text(row.get("converged"), "{:.1%}"),
            ]
            table.append([row["method"], *times, *solved, f"{row['peak_mib']:.1f}"])
        lines.append(_table(table))
    return "\n".join([*lines, "", _ratios(groups)])


def _ratios(groups: dict) -> str:
    """Returns the ratios that the project holds itself to."""
    head = ["(B, N, d)", "threads", "torchdeq / deq", "deq / bare", "deq / concat + linear"]
    table = [[*head, "one step / concat + linear", "unrolled / deq", "deq / released module"]]
    for (threads, shape), group in groups.items():
        taken = {row["method"]: row["train_ms"] for row in group}
        deq = taken["deq"]
        alone = threads == 1 and group[0]["device"] == "cpu"  # as the factors were measured
        released = RELEASED.get(shape) if alone else None
        table.append(
            [
                str(shape),
                str(threads),
                f"{taken['torchdeq, joint'] / deq:.2f}",
                f"{deq / taken['bare evaluations']:.2f}",
                f"{deq / taken['concat + linear']:.1f}",
                f"{taken['deq, one step'] / taken['concat + linear']:.1f}",
                f"{taken['unrolled'] / deq:.2f}",
                f"1/{released * taken['prototype'] / deq:.0f}" if released else "",
            ]
        )
    return "Ratios of training steps\n\n" + _table(table)


def _sweeps(rows: Sequence[Row]) -> str:
    lines = ["## How the cost grows (training step, one thread)"]
    for sweep, group in _grouped(rows, lambda row: row["sweep"]).items():
        methods = list(dict.fromkeys(row["method"] for row in group))
        table = [[sweep, *methods, "steps", "backward"]]
        for value, same in _grouped(group, lambda row: row["value"]).items():
            times = [f"{row['train_ms']:.1f}" for row in same]
            steps = [str(same[0]["steps"]), str(same[0]["backward_steps"])]
            table.append([f"{value:g}", *times, *steps])
        lines += ["", _table(table)]
        if sweep != "tol":
            powers = (f"{method} {_power(group, method):.2f}" for method in methods)
            lines += [
                "",
                f"Power of {sweep} over the upper half of the range: " + ", ".join(powers),
            ]
    return "\n".join(lines)


def _power(rows: Sequence[Row], method: str) -> float:
    """Returns the slope of log time over log value, from the middle of the range to its end."""
    points = [(row["value"], row["train_ms"]) for row in rows if row["method"] == method]
    (x0, t0), (x1, t1) = points[len(points) // 2 - 1], points[-1]
    return math.log(t1 / t0) / math.log(x1 / x0)


def _gradients(rows: Sequence[Row]) -> str:
    lines = ["## Gradients: error and cost"]
    for scale, group in _grouped(rows, lambda row: row["start"]).items():
        exact = group[0]["train_ms"]
        lines += ["", f"(B, N, d) = {_shape(group[0])}, start {scale}", ""]
        table = [["gradient", "relative error", "cosine", "training step", "to exact"]]
        for row in group:
            error = [f"{row['error']:.1e}", f"{row['cosine']:.5f}"]
            time = [f"{row['train_ms']:.1f}", f"{row['train_ms'] / exact:.2f}"]
            table.append([row["method"], *error, *time])
        lines.append(_table(table))
    return "\n".join(lines)


def _ideas(rows: Sequence[Row]) -> str:
    lines = ["## What each idea of the fast engine brings (training step without it)"]
    for (on, shape), group in _grouped(rows, lambda row: (row["on"], _shape(row))).items():
        base = group[0]["train_ms"]
        table = [["without", "training step", "to all"]]
        table += [
            [row["method"], f"{row['train_ms']:.1f}", f"{row['train_ms'] / base:.2f}"]
            for row in group
        ]
        lines += ["", f"(B, N, d) = {shape}, {on}", "", _table(table)]
    return "\n".join(lines)


def _memory(rows: Sequence[Row]) -> str:
    m = rows[0]["memory"]
    table = [["block", "step limit", "peak, in states", f"2m + 10, m = {m}"]]
    table += [
        [row["method"], str(row["limit"]), f"{row['states']:.1f}", str(2 * m + 10)] for row in rows
    ]
    title = "## Peak memory of a block's forward and backward solve"
    return f"{title}\n\n{_table(table)}"


SECTIONS: dict[str, Callable[[Sequence[Row]], str]] = {
    "cases": _cases,
    "sweeps": _sweeps,
    "gradients": _gradients,
    "ideas": _ideas,
    "memory": _memory,
}


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draws the cases (one thread) and the sweeps, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    cases, *others = figure.subplot_mosaic(
        [["cases"] * 4, ["modalities", "dim", "batch", "tol"]], height_ratios=[1.3, 1]
    ).items()
    _draw_cases(cases[1], [r for r in rows if r["part"] == "cases" and r["threads"] == 1])
    for sweep, axes in others:
        _draw_sweep(axes, sweep, [r for r in rows if r["part"] == "sweeps" and r["sweep"] == sweep])
    figure.savefig(path, dpi=150)


def _draw_cases(axes: Any, rows: Sequence[Row]) -> None:
    groups = _grouped(rows, _shape)
    width = 0.8 / len(METHOD_COLOURS)
    for j, (method, colour) in enumerate(METHOD_COLOURS.items()):
        heights = [
            next(row["train_ms"] for row in group if row["method"] == method)
            for group in groups.values()
        ]
        places = [i + (j - len(METHOD_COLOURS) / 2 + 0.5) * width for i in range(len(groups))]
        axes.bar(places, heights, width, color=colour, label=method)
    axes.set_yscale("log")
    axes.set_ylabel("training step (ms)")
    axes.set_xticks(range(len(groups)), [str(shape) for shape in groups])
    axes.set_xlabel("(batch, modalities, width); one thread")
    axes.legend(ncols=4, fontsize="small", loc="upper left")
    axes.margins(y=0.25)


def _draw_sweep(axes: Any, sweep: str, rows: Sequence[Row]) -> None:
    for method, group in _grouped(rows, lambda row: row["method"]).items():
        colour = METHOD_COLOURS.get(method, "#CC79A7")
        x, y = zip(*((row["value"], row["train_ms"]) for row in group), strict=True)
        axes.plot(x, y, "o-", color=colour, label=method)
    if sweep in ("dim", "batch"):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    if sweep != "modalities":
        axes.set_xscale("log")
        values = sorted({row["value"] for row in rows})
        axes.set_xticks(values, [f"{value:g}" for value in values], rotation=45)
        axes.set_xticks([], minor=True)
    else:
        axes.set_ylabel("training step (ms)")
        axes.legend(fontsize="small")
    axes.set_xlabel({"modalities": "N", "dim": "d", "batch": "B", "tol": "tolerance"}[sweep])


def _grouped(rows: Sequence[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _shape(row: Row) -> tuple[int, int, int]:
    return row["batch"], row["modalities"], row["dim"]


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _text(value: Any, form: str) -> str:
    return "" if value is None else form.format(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
