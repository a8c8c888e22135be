"""The sentences above the table say what the rows say."""

import pytest

from deq_fusion.training_structures.comparison import Score
from deq_fusion.training_structures.comparison.methods import FLOOR, FUSION, SINGLE
from deq_fusion.training_structures.comparison.report import table
from deq_fusion.training_structures.comparison.report.verdict import verdict

ACCURACY = Score("accuracy")
MEANS = {"best": 0.9, "deq": 0.8, "only a": 0.7, "concat": 0.6, "only b": 0.5, "majority": 0.4}


def rows(runs=8, means=MEANS, spread=0.01, score=ACCURACY, baseline="concat"):
    """Rows whose differences to the baseline are about those of the means, or all chance."""
    results = [
        {
            "method": method,
            "run": run,
            "scores": {score.name: mean + spread * (-1) ** (run // 2 ** (i % 3))},
            "seconds": 1.0,
            "kind": SINGLE if method in ("only a", "only b") else FUSION,
        }
        for i, (method, mean) in enumerate(means.items())
        for run in range(runs)
    ]
    return table.make_rows(results, [score], baseline=baseline)


def say(made, score=ACCURACY, baseline="concat", subject="deq"):
    return verdict(made, score, baseline=baseline, subject=subject)


def test_the_best_the_subject_and_the_single_modalities_are_placed():
    best, subject, single, _ = say(rows())
    assert best == "Best of 6 methods: best (accuracy 90.0 %), mean of 8 runs."
    assert subject == "deq (accuracy 80.0 %) is number 2."
    assert single.startswith("Best single modality: only a (accuracy 70.0 %); ")
    assert single.endswith("it scores above concat, majority.")


def test_a_floor_that_is_best_is_called_one_and_the_best_of_the_others_is_named():
    results = [
        {"method": name, "run": 0, "scores": {"accuracy": mean}, "seconds": 1.0, "kind": kind}
        for name, mean, kind in (
            ("linear", 0.9, FLOOR),
            ("concat", 0.8, FUSION),
            ("most", 0.1, FLOOR),
        )
    ]
    said = say(table.make_rows(results, [ACCURACY], baseline="concat"))
    assert said[1] == (
        "linear is a floor, which a fusion has to beat, and no model to save; best of the others: "
        "concat (accuracy 80.0 %)."
    )
    alone = table.make_rows(results[:1], [ACCURACY], baseline=None)
    assert say(alone, baseline=None) == [
        "Best of 1 method: linear (accuracy 90.0 %), a single run."
    ]
    others = table.make_rows(results[1:], [ACCURACY], baseline="concat")
    assert "floor" not in " ".join(say(others))


def test_nothing_falls_short_when_all_beat_the_single_modalities():
    means = {"deq": 0.8, "concat": 0.7, "only a": 0.6, "only b": 0.5}
    best, single, _ = say(rows(means=means))  # and deq is not named a second time
    assert best.startswith("Best of 4 methods: deq") and "no fusion scores below it" in single


def test_a_floor_below_the_best_single_modality_is_not_named():
    kinds = {"deq": FUSION, "only a": SINGLE, "majority": FLOOR}
    results = [
        {"method": name, "run": 0, "scores": {"accuracy": mean}, "seconds": 1.0, "kind": kind}
        for mean, (name, kind) in zip((0.9, 0.8, 0.1), kinds.items(), strict=True)
    ]
    said = say(table.make_rows(results, [ACCURACY]), baseline=None)
    assert said[-1] == "Best single modality: only a (accuracy 80.0 %); no fusion scores below it."


def test_what_differs_beyond_chance_is_named():
    made = rows()
    tests = {row.method: row.test for row in made if row.test}
    clear = [name for name, test in tests.items() if test.p < 0.05]
    assert set(clear) == MEANS.keys() - {"concat"}
    last = say(made)[-1]
    better = [name for name in clear if tests[name].difference > 0]
    worse = [name for name in clear if tests[name].difference < 0]
    assert better and worse
    expected = f"{', '.join(better)} better; {', '.join(worse)} worse."
    assert last.endswith(f"Beyond chance, compared with concat: {expected}")
    difference, p = table.difference_cells(tests["deq"], ACCURACY)
    assert f"deq minus concat: {difference}, p {p}." in last


def test_chance_is_not_taken_for_a_difference():
    made = rows(means={"deq": 0.65, "concat": 0.6}, spread=0.1)
    assert all(0.05 < row.test.p < 1 for row in made if row.test)
    assert say(made)[-1].endswith("No method differs from concat by more than chance allows.")


def test_few_runs_allow_no_test():
    said = say(rows(runs=3))
    assert "mean of 3 runs" in said[0] and "Fewer than 6 runs allow no test" in said[-1]
    assert "beyond chance" not in " ".join(said)
    assert "a single run" in say(rows(runs=1))[0]


def test_errors_are_given_in_their_unit_with_the_least_first():
    score = Score("mae", percent=False, lower=True)
    said = say(rows(score=score), score)
    assert said[0].startswith("Best of 6 methods: majority (mae 0.400)")
    assert said[1] == "deq (mae 0.800) is number 5."
    assert " %" not in " ".join(said).replace("95 %", "")


@pytest.mark.parametrize("subject", [None, "not there"])
def test_without_subject_or_baseline_nothing_is_said_of_them(subject):
    said = say(rows(baseline=None), baseline=None, subject=subject)
    assert len(said) == 2 and "deq" not in " ".join(said)
