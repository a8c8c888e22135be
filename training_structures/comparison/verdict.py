"""A comparison in a few sentences."""

from collections.abc import Sequence

from .methods import SINGLE
from .paired import MIN_RUNS
from .recipe import Score
from .table import Row, difference_cells, number

LEVEL = 0.05


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
    names = [row.method for row in rows]
    if subject in names:
        rank = names.index(subject) + 1
        said.append(f"{scored(rows[rank - 1])} is number {rank}.")
    singles = [row for row in rows if row.kind == SINGLE]
    if singles:
        below = [r.method for r in rows[names.index(singles[0].method) + 1 :] if r not in singles]
        said.append(
            f"Best single modality: {scored(singles[0])}; "
            + (f"below it: {', '.join(below)}." if below else "no other method is below it.")
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
