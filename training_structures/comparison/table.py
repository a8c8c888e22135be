"""What a comparison's results say: a table with statistics, files of it, and a picture."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from .checkpoint import save_atomically
from .paired import MIN_RUNS, Paired, compare_paired, holm

Result = Mapping[str, Any]
COLUMNS = {  # heading -> (key of the results, format)
    "parameters": ("parameters", "{:,.0f}"),
    "epochs": ("epochs", "{:.0f}"),
    "seconds": ("seconds", "{:.1f}"),
    "solver steps": ("solver_steps", "{:.1f}"),
    "converged": ("solver_converged", "{:.2f} %"),
}


def table(
    results: Sequence[Result], *, baseline: str | None = None, test_share: float | None = None
) -> list[dict[str, Any]]:
    """Returns a row for each method, in order: scores, costs, and the test against `baseline`.

    Scores are (mean, sd over runs); costs are means over runs. `test` is the
    paired comparison of the first score with the baseline's (by default "concat", if there), its
    `p` corrected for the number of methods that are compared (Holm).

    Args:
        results: of `compare`.
        baseline: a method.
        test_share: see `compare_paired`.
    """
    methods: dict[str, list[Result]] = {}
    for result in results:
        methods.setdefault(result["method"], []).append(result)
    scores = list(results[0]["scores"])
    if baseline is None and "concat" in methods:
        baseline = "concat"
    rows = [_row(method, group, scores) for method, group in methods.items()]
    others = [row for row in rows if baseline is not None and row["method"] != baseline]
    for row in others:
        first, second = (
            [run["scores"][scores[0]] for run in methods[name]]
            for name in (row["method"], baseline)
        )
        row["test"] = compare_paired(first, second, test_share=test_share)
    for row, p in zip(others, holm([row["test"].p for row in others]), strict=True):
        row["test"] = Paired(row["test"].difference, row["test"].low, row["test"].high, p)
    return rows


def _row(method: str, group: Sequence[Result], scores: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "runs": len(group), "test": None}
    for score in scores:
        values = [run["scores"][score] for run in group]
        row[score] = fmean(values), stdev(values) if len(values) > 1 else math.nan
    for heading, (key, _) in COLUMNS.items():
        row[heading] = fmean(run[key] for run in group) if key in group[0] else None
    if row["converged"] is not None:  # in percent, and rounded down: 100 means all
        row["converged"] = math.floor(1e4 * row["converged"] + 1e-6) / 100
    return row


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table as Markdown: scores in percent, mean ± sd over the runs."""
    scores = [name for name, value in rows[0].items() if isinstance(value, tuple)]
    tested = any(row["test"] for row in rows)
    baseline = next((row["method"] for row in rows if row["test"] is None), None)
    head = ["method", "runs", *scores]
    head += [*([f"minus {baseline} [95 %]", "p"] if tested else []), *COLUMNS]
    lines = []
    for row in rows:
        cells = [row["method"], str(row["runs"]), *(_score_cell(row[s]) for s in scores)]
        if tested:
            cells += _test_cells(row["test"])
        for heading, (_, form) in COLUMNS.items():
            cells.append("" if row[heading] is None else form.format(row[heading]))
        lines.append(cells)
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in [head, rule, *lines]
    )


def _score_cell(score: tuple[float, float]) -> str:
    mean, sd = _percent(score)
    return f"{mean:.1f}" if math.isnan(sd) else f"{mean:.1f} ± {sd:.1f}"


def _test_cells(test: Paired | None) -> list[str]:
    if test is None:
        return ["", ""]
    difference, low, high = _percent((test.difference, test.low, test.high))
    if test.p is None:
        p = f"(< {MIN_RUNS} runs)"
    else:
        p = "< 0.001" if test.p < 0.001 else f"{test.p:.3f}"
    return [f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]", p]


def _percent(values: Sequence[float]) -> list[float]:
    return [100 * value for value in values]


def as_csv(results: Sequence[Result]) -> str:
    """Returns every run as a line of CSV: method, run, scores, costs."""
    scores = list(results[0]["scores"])
    keys = [k for k in dict.fromkeys(k for r in results for k in r) if _is_number(results, k)]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["method", *keys, *scores])
    for result in results:
        costs = [result.get(key, "") for key in keys]
        writer.writerow([result["method"], *costs, *(result["scores"][s] for s in scores)])
    return stream.getvalue()


def _is_number(results: Sequence[Result], key: str) -> bool:
    return any(isinstance(result.get(key), (int, float)) for result in results)


def draw(rows: Sequence[Mapping[str, Any]], results: Sequence[Result], *, title: str) -> bytes:
    """Returns a PNG: the first score of every run with its mean, and score against seconds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    score = next(name for name, value in rows[0].items() if isinstance(value, tuple))
    figure = Figure(figsize=(10, 0.5 * len(rows) + 2.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for i, row in enumerate(rows):
        runs = [r for r in results if r["method"] == row["method"]]
        values = [100 * r["scores"][score] for r in runs]
        mean, sd = _percent(row[score])
        left.plot(values, [i] * len(values), "o", color=f"C{i}", alpha=0.35, markersize=5)
        sd = None if math.isnan(sd) else sd
        left.errorbar(mean, i, xerr=sd, fmt="D", color=f"C{i}", capsize=4, markersize=7)
        label = row["method"]
        right.errorbar(row["seconds"], mean, sd, fmt="D", color=f"C{i}", capsize=4, label=label)
    left.set_yticks(range(len(rows)), [row["method"] for row in rows])
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.set_xlabel(f"{score} (%): runs, mean and sd")
    right.set_xscale("log")
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    right.set_xlabel("seconds a run")
    right.set_ylabel(f"{score} (%)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def write(
    rows: Sequence[Mapping[str, Any]],
    results: Sequence[Result],
    output: Path,
    *,
    title: str,
    legend: str = "",
) -> str:
    """Writes results.md, results.csv and results.png; returns the table and its legend.

    The picture is left out where matplotlib is not installed.
    """
    text = f"{markdown(rows)}\n\n{legend}".strip()
    files = {
        "results.md": f"# {title}\n\n{text}\n".encode(),
        "results.csv": as_csv(results).encode(),
    }
    try:
        files["results.png"] = draw(rows, results, title=title)
    except ModuleNotFoundError:
        pass
    for name, content in files.items():
        save_atomically(Path(output) / name, lambda file, content=content: file.write(content))
    return text
