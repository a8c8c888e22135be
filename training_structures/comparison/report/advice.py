"""Advice on these data: which methods are worth trying, and why, as far as the runs have shown."""

from collections.abc import Mapping
from typing import Any

from ..methods import FLOOR, FUSION, SINGLE
from ..paired import MIN_RUNS, Paired
from .choice import choose
from .findings import Findings
from .table import LEVEL, Row, difference, difference_cells
from .worth import best_on_validation, runs_of

ADDS, JOINS = 0.05, 0.2  # InterSHAP of what adds modalities up, at most, and of what joins them
MUCH = 0.7  # of the time for training; what takes more is no cheaper


def advice(found: Findings) -> list[str]:
    """Returns what is worth trying, in a text; nothing of too few runs.

    It stands on three things: which methods are on validation within chance of the one that is
    chosen there, and cheaper; whether fusions that let modalities interact are beyond chance better
    than those that add them up; and whether every modality brings something. The latter two need
    diagnoses.
    """
    if len({result["run"] for result in found.results}) < MIN_RUNS:
        return []
    try:
        best, _ = choose(found)
    except ValueError:
        return []
    said = [*_cheaper(found, best), *_joining(found), *_idle(found, best)]
    return [" ".join(["What to try on these data:", *said])] if said else []


def _cheaper(found: Findings, best: str) -> list[str]:
    """Returns the method that takes least to train among those within chance of the best on
    validation data, which alone may choose. Every test stands by itself: corrected for their
    number, more would look alike. Where runs are fresh splits, the correction is that of the test
    part."""
    rows = {row.method: row for row in found.table() if row.kind != FLOOR}
    own = _on_validation(found, best)
    tests: dict[str, Paired] = {}
    for name in rows.keys() - {best}:
        test = difference(_on_validation(found, name), own, found.score, found.test_share)
        if test is not None and test.p is not None:
            tests[name] = test
    if not tests:
        return []
    alike = [name for name, test in tests.items() if test.p is not None and test.p >= LEVEL]
    mine = rows[best].costs["seconds"]
    cheapest = min(alike, key=lambda name: (_seconds(rows[name]), name), default=None)
    if cheapest is None or not mine or _seconds(rows[cheapest]) > MUCH * mine:
        return [
            f"{best}, which validation chooses; nothing that is cheaper is within chance of it."
        ]
    share = _seconds(rows[cheapest]) / mine
    told, p = difference_cells(tests[cheapest], found.score)
    unit = " points" if found.score.percent else ""
    alone = ", and needs no fusion" if rows[cheapest].kind == SINGLE else ""
    return [
        f"{cheapest} first: on validation it is within chance of {best}, which is chosen there "
        f"({told}{unit}, p {p} by itself), in {share:.0%} of the time{alone}."
    ]


def _on_validation(found: Findings, method: str) -> list[Mapping[str, Any]]:
    """Returns a method's runs with their validation scores in the place of the scored part's."""
    name = found.score.name
    runs = [run for run in runs_of(found, method) if name in run.get("valid", {})]
    return [{**run, "scores": run["valid"]} for run in runs]


def _seconds(row: Row) -> float:
    return row.costs["seconds"] or 0.0


def _joining(found: Findings) -> list[str]:
    """Returns whether it helps that modalities interact, where diagnoses tell what lets them."""
    shares = {row.method: row.interaction.mean for row in found.diagnoses() if row.interaction}
    rows = [row for row in found.table() if row.kind == FUSION and row.method in shares]
    adding = best_on_validation(found, [r for r in rows if shares[r.method] <= ADDS])
    joining = best_on_validation(found, [r for r in rows if shares[r.method] >= JOINS])
    if adding is None or joining is None:
        return []
    sides = runs_of(found, joining), runs_of(found, adding)
    test = difference(*sides, found.score, found.test_share)
    if test is None or test.p is None:
        return []
    told, p = difference_cells(test, found.score)
    unit = " points" if found.score.percent else ""
    which = f"{joining} (interaction {shares[joining]:.0%}) minus {adding} ({shares[adding]:.0%})"
    better = (test.difference < 0) == found.score.lower
    if test.p >= LEVEL:
        answer = "letting modalities interact is not shown to help: what adds them up may do"
    elif better:
        answer = "modalities interact, so try fusions that multiply or gate them"
    else:
        answer = "letting modalities interact hurts, so keep to fusions that add them up"
    return [f"By the best of each kind on validation, {answer}: {which}: {told}{unit}, p {p}."]


def _idle(found: Findings, best: str) -> list[str]:
    """Returns the modalities that bring nothing that can be told from chance, to the best fusion
    that was diagnosed."""
    rows: Mapping[str, Any] = {row.method: row for row in found.diagnoses() if row.brought}
    if not rows:
        return []
    whose = best if best in rows else next(iter(rows))
    idle = [name for name, value in rows[whose].brought.items() if not value.low > 0]
    if not idle:
        return []
    verb = "brings" if len(idle) == 1 else "bring"
    return [
        f"{' and '.join(idle)} {verb} nothing to {whose} that can be told from chance: try without "
        "(--modalities)."
    ]
