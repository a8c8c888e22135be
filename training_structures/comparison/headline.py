"""The one sentence that answers what a comparison asked."""

import math
from collections.abc import Sequence

from .recipe import Score
from .table import Row, number
from .verdict import LEVEL


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
    if subject in by_name and by_name[subject].test is not None:
        return _against(by_name[subject], score, baseline)
    best = rows[0]
    unit = " %" if score.percent else ""
    text = f"{best.method} scores best: {score.name} "
    text += f"{number(best.scores[score.name].mean, score)}{unit}"
    if best.test is None:
        return f"{text}, and no method is above it" if best.method == baseline else text
    return f"{text}, but {_doubt(best, baseline)}" if _doubt(best, baseline) else text


def _against(row: Row, score: Score, baseline: str) -> str:
    """Returns how a method stands to the baseline."""
    test, method = row.test, row.method
    if math.isnan(test.difference):
        return f"{method} and {baseline} cannot be compared: their {score.name} is undefined"
    size = number(abs(test.difference), score) + (" points" if score.percent else "")
    level = float(number(test.difference, score)) == 0
    way = "higher" if test.difference > 0 else "lower"
    measured = f"{score.name} {'the same' if level else f'{size} {way}'}"
    doubt = _doubt(row, baseline)
    if not doubt:
        better = (test.difference < 0) == score.lower
        p = "p < 0.001" if test.p < 0.001 else f"p {test.p:.3f}"
        return f"{method} is {'better' if better else 'worse'} than {baseline}: {measured}, {p}"
    if test.p is None:
        return f"{method} against {baseline}: {measured}, but {doubt}"
    return f"{method} does not differ from {baseline} beyond chance: {measured}, p {test.p:.2f}"


def _doubt(row: Row, baseline: str | None) -> str:
    """Returns why a difference from the baseline may be chance; nothing if that is unlikely."""
    if row.test.p is None:
        return f"{row.runs} run{'s are' if row.runs > 1 else ' is'} too few to rule out chance"
    return "" if row.test.p < LEVEL else f"not beyond chance better than {baseline}"
