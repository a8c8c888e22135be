"""The headline answers what was asked, and claims nothing that chance could have done."""

from dataclasses import replace

import pytest

from deq_fusion.training_structures.comparison import Score
from deq_fusion.training_structures.comparison.methods import FLOOR, SINGLE
from deq_fusion.training_structures.comparison.report import table
from deq_fusion.training_structures.comparison.report.verdict import headline
from unit_tests.training_structures.comparison.report.test_verdict import ACCURACY, rows

ERROR = Score("mae", percent=False, lower=True)


def say(made, score=ACCURACY, baseline="concat", subject="deq"):
    return headline(made, score, baseline=baseline, subject=subject)


@pytest.mark.parametrize(("deq", "said"), [(0.7, "better"), (0.5, "worse")])
def test_a_clear_difference_of_the_subject_is_the_answer(deq, said):
    made = rows(means={"deq": deq, "concat": 0.6}, spread=0.001)
    way = "higher" if deq > 0.6 else "lower"
    assert say(made) == f"deq is {said} than concat: accuracy 10.0 points {way}, p < 0.001"


def test_less_of_an_error_is_better():
    made = rows(means={"deq": 0.5, "concat": 0.6}, spread=0.001, score=ERROR)
    assert say(made, ERROR) == "deq is better than concat: mae 0.100 lower, p < 0.001"


def test_a_difference_within_chance_is_none():
    made = rows(means={"deq": 0.65, "concat": 0.6}, spread=0.1)
    (test,) = (row.test for row in made if row.test)
    expected = "deq does not differ from concat beyond chance: accuracy 5.0 points higher, p "
    assert say(made) == f"{expected}{test.p:.2f}"


def test_few_runs_answer_nothing():
    few = rows(runs=3)
    size = next(f"{100 * r.test.difference:.1f}" for r in few if r.method == "deq")
    assert say(few) == (
        f"deq against concat: accuracy {size} points higher, but 3 runs are too few to rule out "
        "chance"
    )
    assert say(rows(runs=1)).endswith("but 1 run is too few to rule out chance")
    same = rows(runs=3, means={"deq": 0.6, "concat": 0.6}, spread=0.0)
    assert "accuracy the same, but" in say(same)


def test_a_single_modality_above_every_fusion_is_named():
    made = rows(means={"deq": 0.65, "concat": 0.6, "only a": 0.7, "linear": 0.9}, spread=0.1)
    kinds = {"only a": SINGLE, "linear": FLOOR}
    kinded = [replace(row, kind=kinds.get(row.method, row.kind)) for row in made]
    assert say(kinded).startswith("deq does not differ from concat beyond chance: ")
    assert say(kinded).endswith("; only a scores above every fusion")
    low = rows(means={"deq": 0.65, "concat": 0.6, "only a": 0.5}, spread=0.1)
    assert "only a" not in say([replace(row, kind=kinds.get(row.method, row.kind)) for row in low])


def test_without_a_subject_it_names_the_best():
    best = "best scores best: accuracy 90.0 %"
    assert say(rows(), subject=None) == best
    assert say(rows(), subject="other") == best
    assert say(rows(baseline=None), baseline=None) == best
    assert say(rows(runs=2), subject=None) == f"{best}, but 2 runs are too few to rule out chance"
    chance = rows(means={"best": 0.65, "concat": 0.6}, spread=0.1)
    assert say(chance, subject=None).endswith(", but not beyond chance better than concat")
    first = rows(means={"concat": 0.9, "deq": 0.6})
    said = say(first, subject=None)
    assert said == "concat scores best: accuracy 90.0 %, and no method is above it"


def test_what_is_undefined_is_not_compared():
    results = [
        {"method": m, "run": r, "scores": {"accuracy": s}, "seconds": 1.0}
        for m, s in (("deq", float("nan")), ("concat", 0.5))
        for r in range(6)
    ]
    made = table.make_rows(results, [ACCURACY], baseline="concat")
    assert say(made) == "deq and concat cannot be compared: their accuracy is undefined"
