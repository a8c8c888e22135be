"""The table of a comparison: a row a method, scores with intervals, tests, and costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from ..methods import FUSION, SYSTEM
from ..paired import Estimate, Paired, compare_paired, estimate, holm
from ..recipe import Score
from .text import columns_of, csv_text, in_markdown, printable, shortened

Result = Mapping[str, Any]
LEVEL = 0.05  # below which a p-value tells a difference from chance
NAME, HEADING, GAP = 12, 20, 2  # columns of a terminal: of a name, a heading, between two
COSTS = {  # heading -> (key of the results, format)
    "parameters": ("parameters", "{:,.0f}"),
    "epochs": ("epochs", "{:.0f}"),
    "epochs spent": ("epochs_spent", "{:,.0f}"),  # by all trials of a search
    "seconds": ("seconds", "{:.1f}"),
    "solver steps": ("solver_steps", "{:.1f}"),
    "converged": ("solver_converged", "{:.2f} %"),
}


@dataclass(frozen=True)
class Row:
    """A method's results over its runs.

    Attributes:
        method: its name.
        kind: what it is, one of `methods.KINDS`.
        runs: their number.
        scores: name -> estimate over the runs.
        test: the paired comparison of the first score with the baseline's, `p` corrected for
            the number of methods compared (Holm); None for the baseline, and without one.
        costs: heading -> median over the runs (of the share that converged, the mean); None
            where a method has no such thing.
        missing: modality -> first score without it, if that was measured.
    """

    method: str
    kind: str
    runs: int
    scores: dict[str, Estimate]
    test: Paired | None
    costs: dict[str, float | None]
    missing: dict[str, Estimate]


def make_rows(
    results: Sequence[Result],
    scores: Sequence[Score],
    *,
    baseline: str | None = None,
    test_share: float | None = None,
) -> list[Row]:
    """Returns a row for each method, the best first score first.

    Args:
        results: of a `Comparison`; one without a `kind` is of a fusion.
        scores: what to show; the first is what is compared.
        baseline: the method that the others are compared with.
        test_share: see `compare_paired`.
    """
    methods: dict[str, list[Result]] = {}
    for result in results:
        methods.setdefault(result["method"], []).append(result)
    rows = [_row(name, group, scores, test_share) for name, group in methods.items()]
    if baseline in methods:
        others = [None if row.method == baseline else methods[row.method] for row in rows]
        reference, shared = methods[baseline], (scores[0], test_share)
        tests = [None if own is None else difference(own, reference, *shared) for own in others]
        adjusted = holm([None if test is None else test.p for test in tests])
        rows = [
            replace(row, test=None if test is None else replace(test, p=p))
            for row, test, p in zip(rows, tests, adjusted, strict=True)
        ]
    sign = 1 if scores[0].lower else -1

    def place(row: Row) -> tuple[bool, float]:
        mean = row.scores[scores[0].name].mean
        return math.isnan(mean), sign * mean  # what is undefined comes last

    return sorted(rows, key=place)


def _row(
    name: str, group: Sequence[Result], scores: Sequence[Score], test_share: float | None
) -> Row:
    costs: dict[str, float | None] = {}
    for heading, (key, _) in COSTS.items():
        costs[heading] = median(run[key] for run in group) if key in group[0] else None
    # in percent, and rounded down: 100 means all; 1e-6 keeps a share such as 0.57 from 56.99
    if costs["converged"] is not None:
        share = fmean(run["solver_converged"] for run in group)
        costs["converged"] = math.floor(1e4 * share + 1e-6) / 100

    def over_runs(score: Score, where: Sequence[Mapping[str, float]]) -> Estimate:
        found = estimate([scored[score.name] for scored in where], test_share=test_share)
        return replace(found, low=score.bounded(found.low), high=score.bounded(found.high))

    return Row(
        method=name,
        kind=group[0].get("kind", FUSION),
        runs=len(group),
        scores={s.name: over_runs(s, [run["scores"] for run in group]) for s in scores},
        test=None,
        costs=costs,
        missing={
            modality: over_runs(scores[0], [run["missing"][modality] for run in group])
            for modality in group[0].get("missing", {})
        },
    )


def difference(
    group: Sequence[Result], reference: Sequence[Result], score: Score, test_share: float | None
) -> Paired | None:
    """Returns how a method's scores differ from another's in the runs that both have; None if
    there is no such run."""
    first, second = ({r["run"]: r["scores"][score.name] for r in g} for g in (group, reference))
    shared = sorted(first.keys() & second.keys())  # a run may have failed for one of them
    if not shared:
        return None
    return compare_paired(
        [first[r] for r in shared], [second[r] for r in shared], test_share=test_share
    )


def cells(
    rows: Sequence[Row], scores: Sequence[Score], baseline: str | None
) -> tuple[list[str], list[list[str]]]:
    """Returns the heading and the lines of the table, as text; empty columns are left out."""
    first, *others = scores
    head = ["method", "kind", "runs", score_heading(first), "95 % interval"]
    head += [f"minus {baseline} [95 %]", "p", *(score_heading(score) for score in others), *COSTS]
    missing = list(dict.fromkeys(m for row in rows for m in row.missing))
    head += [f"without {modality}" for modality in missing]
    lines = []
    for row in rows:
        main = row.scores[first.name]
        line = [row.method, _kind(row), str(row.runs)]
        line += [spread(main, first), interval(main, first)]
        line += difference_cells(row.test, first)
        line += [spread(row.scores[score.name], score) for score in others]
        costs = ((form, row.costs[heading]) for heading, (_, form) in COSTS.items())
        line += ["" if cost is None else form.format(cost) for form, cost in costs]
        line += [spread(row.missing[m], first) if m in row.missing else "" for m in missing]
        lines.append(line)
    kept = [i for i in range(len(head)) if any(line[i] for line in lines)]
    return [head[i] for i in kept], [[line[i] for i in kept] for line in lines]


def short_cells(
    rows: Sequence[Row], score: Score, baseline: str | None
) -> tuple[list[str], list[list[str]]]:
    """Returns of the table what answers the question: the score, how it differs, and the time."""
    head = ["method", "kind", score_heading(score), f"minus {baseline} [95 %]", "p", "seconds"]
    lines = []
    for row in rows:
        cost, form = row.costs["seconds"], COSTS["seconds"][1]
        line = [row.method, _kind(row), spread(row.scores[score.name], score)]
        line += difference_cells(row.test, score)
        lines.append([*line, "" if cost is None else form.format(cost)])
    kept = [i for i in range(len(head)) if any(line[i] for line in lines)]
    return [head[i] for i in kept], [[line[i] for i in kept] for line in lines]


def _kind(row: Row) -> str:
    """Returns what sets a row apart whose network is not that of the others."""
    return SYSTEM if row.kind == SYSTEM else ""


def fitted(head: Sequence[str], lines: Sequence[Sequence[str]], width: int) -> str:
    """Returns a table as plain text that is no wider than that.

    Where it would be, headings and names (the first column) are shortened; where that is not
    enough, columns are left out from the right, but for two.
    """
    table = [[printable(cell) for cell in line] for line in [head, *lines]]
    if _width(table) > width:
        table[0] = [shortened(cell, HEADING) for cell in table[0]]
    while len(table[0]) > 2 and _width(table) - width > _widths(table)[0] - NAME:
        table = [line[:-1] for line in table]
    first = _widths(table)[0] - max(0, _width(table) - width)
    table = [[shortened(line[0], max(first, 1)), *line[1:]] for line in table]
    widths = _widths(table)
    table.insert(1, ["-" * each for each in widths])
    return "\n".join(_padded(line, widths) for line in table)


def _width(table: Sequence[Sequence[str]]) -> int:
    return sum(_widths(table)) + GAP * (len(table[0]) - 1)


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(columns_of, column)) for column in zip(*table, strict=True)]


def _padded(line: Sequence[str], widths: Sequence[int]) -> str:
    """Returns the cells at their widths: names on the left, numbers on the right."""
    spaces = [" " * (width - columns_of(cell)) for cell, width in zip(line, widths, strict=True)]
    numbers = [space + cell for space, cell in zip(spaces[1:], line[1:], strict=True)]
    return (" " * GAP).join([line[0] + spaces[0], *numbers]).rstrip()


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns a table as Markdown, its columns aligned; names in it are text, whatever they are."""
    head, lines = ([in_markdown(c) for c in head], [[in_markdown(c) for c in r] for r in lines])
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in [head, rule, *lines]
    )


def score_heading(score: Score) -> str:
    """Returns a score's name as the heading of its column."""
    return f"{score.name}{' %' if score.percent else ''}{' (less is better)' * score.lower}"


def number(value: float, score: Score, *, sign: bool = False) -> str:
    """Returns a score as text: in percent with one decimal, or with three."""
    plus = "+" if sign else ""
    return f"{100 * value:{plus}.1f}" if score.percent else f"{value:{plus}.3f}"


def spread(value: Estimate, score: Score) -> str:
    """Returns mean ± sd as text."""
    mean = number(value.mean, score)
    return mean if math.isnan(value.sd) else f"{mean} ± {number(value.sd, score)}"


def interval(value: Estimate, score: Score) -> str:
    """Returns the 95 % interval as text; nothing for a single run."""
    if math.isnan(value.low):
        return ""
    return f"{number(value.low, score)} to {number(value.high, score)}"


def difference_cells(test: Paired | None, score: Score) -> list[str]:
    """Returns a difference with its interval, and the p-value, as text."""
    if test is None:
        return ["", ""]
    text = number(test.difference, score, sign=True)
    if not math.isnan(test.low):
        bounds = (number(value, score, sign=True) for value in (test.low, test.high))
        text += f" [{', '.join(bounds)}]"
    return [text, p_cell(test.p)]


def p_cell(p: float | None) -> str:
    """Returns a p-value as text, just below `LEVEL` with as many digits as show that; nothing
    where there is none, for want of runs."""
    if p is None:
        return ""
    if p < 0.001:
        return "< 0.001"
    digits = 3
    while p < LEVEL and float(f"{p:.{digits}f}") >= LEVEL:
        digits += 1
    return f"{p:.{digits}f}"


def as_csv(results: Sequence[Result]) -> str:
    """Returns every run as a line of CSV: method, run, costs, scores, scores without modalities."""
    scores = list(results[0]["scores"])
    keys = [k for k in dict.fromkeys(k for r in results for k in r) if _is_number(results, k)]
    missing = list(dict.fromkeys(m for r in results for m in r.get("missing", {})))
    hidden = [f"{score} without {m}" for m in missing for score in scores]
    lines = []
    for result in results:
        line = [result["method"], *(result.get(key, "") for key in keys)]
        line += [result["scores"][score] for score in scores]
        left = result.get("missing", {})
        line += [left[m][score] if m in left else "" for m in missing for score in scores]
        lines.append(line)
    return csv_text(["method", *keys, *scores, *hidden], lines)


def _is_number(results: Sequence[Result], key: str) -> bool:
    return any(isinstance(result.get(key), (int, float)) for result in results)
