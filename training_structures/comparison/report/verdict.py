"""A comparison in one sentence, and in a few."""

import math
from collections.abc import Sequence

from ..methods import FLOOR, SINGLE
from ..paired import MIN_RUNS, Paired
from ..recipe import Score
from .table import LEVEL, Row, difference_cells, number, p_cell


def headline(
    rows: Sequence[Row], score: Score, *, baseline: str | None, subject: str | None
) -> str:
    """Returns whether the subject differs from the baseline; without one of them, what is best.

    Args:
        rows: best first, as `make_rows` returns them.
        score: what they are compared by.
        baseline: the method of the paired tests.
        subject: the method that the comparison is about.
    """
    by_name = {row.method: row for row in rows}
    if subject in by_name and baseline is not None:
        row = by_name[subject]
        if row.test is not None:
            return _stands(row, row.test, score, baseline) + _above(rows, baseline)
    best = rows[0]
    unit = " %" if score.percent else ""
    text = f"{best.method} scores best: {score.name} "
    text += f"{number(best.scores[score.name].mean, score)}{unit}"
    if best.test is None:
        return f"{text}, and no method is above it" if best.method == baseline else text
    doubt = _doubt(best.test, best.runs, baseline)
    return f"{text}, but {doubt}" if doubt else text


def _above(rows: Sequence[Row], baseline: str) -> str:
    """Returns which single modality scores above all that fuse, if one does; where it is the
    baseline, the test says more."""
    trained = [row for row in rows if row.kind != FLOOR]
    best, fuse = trained[0], any(row.kind != SINGLE for row in trained)
    single = best.kind == SINGLE and fuse and best.method != baseline
    return f"; {best.method} scores above every fusion" if single else ""


def _stands(row: Row, test: Paired, score: Score, baseline: str) -> str:
    """Returns how a method stands to the baseline, by its test."""
    method = row.method
    if math.isnan(test.difference):
        return f"{method} and {baseline} cannot be compared: their {score.name} is undefined"
    size = number(abs(test.difference), score) + (" points" if score.percent else "")
    level = float(number(test.difference, score)) == 0
    way = "higher" if test.difference > 0 else "lower"
    measured = f"{score.name} {'the same' if level else f'{size} {way}'}"
    doubt = _doubt(test, row.runs, baseline)
    if test.p is not None and not doubt:
        better = (test.difference < 0) == score.lower
        way = "better" if better else "worse"
        return f"{method} is {way} than {baseline}: {measured}, p {p_cell(test.p)}"
    if test.p is None:
        return f"{method} against {baseline}: {measured}, but {doubt}"
    return f"{method} does not differ from {baseline} beyond chance: {measured}, p {test.p:.2f}"


def _doubt(test: Paired, runs: int, baseline: str | None) -> str:
    """Returns why a difference from the baseline may be chance; nothing if that is unlikely."""
    if test.p is None:
        return f"{runs} run{'s are' if runs > 1 else ' is'} too few to rule out chance"
    return "" if test.p < LEVEL else f"not beyond chance better than {baseline}"


def verdict(
    rows: Sequence[Row], score: Score, *, baseline: str | None, subject: str | None
) -> list[str]:
    """Returns what the rows say about the best method, the subject and chance.

    Args:
        rows: best first, as `make_rows` returns them.
        score: what they are compared by.
        baseline: the method of the paired tests.
        subject: the method that the comparison is about.
    """
    unit = " %" if score.percent else ""

    def scored(row: Row) -> str:
        return f"{row.method} ({score.name} {number(row.scores[score.name].mean, score)}{unit})"

    best = rows[0]
    methods = "method" if len(rows) == 1 else "methods"
    runs = f"mean of {best.runs} runs" if best.runs > 1 else "a single run"
    said = [f"Best of {len(rows)} {methods}: {scored(best)}, {runs}."]
    others = [row for row in rows if row.kind != FLOOR]
    if best.kind == FLOOR and others:
        said.append(
            f"{best.method} is a floor, which a fusion has to beat, and no model to save; best of "
            f"the others: {scored(others[0])}."
        )
    names = [row.method for row in rows]
    rank = names.index(subject) + 1 if subject in names else 1
    if rank > 1:
        said.append(f"{scored(rows[rank - 1])} is number {rank}.")
    singles = [row for row in rows if row.kind == SINGLE]
    if singles:
        after = rows[names.index(singles[0].method) + 1 :]
        below = [row.method for row in after if row.kind not in (SINGLE, FLOOR)]
        said.append(
            f"Best single modality: {scored(singles[0])}; "
            + (f"it scores above {', '.join(below)}." if below else "no fusion scores below it.")
        )
    if baseline in names:
        said.append(_against(rows, score, baseline, subject))
    return said


def _against(rows: Sequence[Row], score: Score, baseline: str, subject: str | None) -> str:
    tests = {row.method: row.test for row in rows if row.test is not None}
    text = ""
    if subject in tests:
        difference, p = difference_cells(tests[subject], score)
        chance = "" if tests[subject].p is None else f", p {p}"
        direction = " (less is better)" if score.lower else ""
        text = f"{subject} minus {baseline}: {difference}{direction}{chance}. "
    if all(test.p is None for test in tests.values()):
        few = f"Fewer than {MIN_RUNS} runs allow no test"
        return f"{text}{few}: take more of them before you choose by these."
    clear = {name: t for name, t in tests.items() if t.p is not None and t.p < LEVEL}
    if not clear:
        return text + f"No method differs from {baseline} by more than chance allows."
    better = [name for name, t in clear.items() if (t.difference < 0) == score.lower]
    worse = [name for name in clear if name not in better]
    sides = (("better", better), ("worse", worse))
    said = [f"{', '.join(names)} {side}" for side, names in sides if names]
    return text + f"Beyond chance, compared with {baseline}: {'; '.join(said)}."
