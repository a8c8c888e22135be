"""Whether a set is worth fusing on, and what its runs could have shown, in sentences."""

import numpy as np
import pytest
from scipy import stats

from deq_fusion.training_structures.comparison.methods import FUSION, SINGLE
from deq_fusion.training_structures.comparison.recipe import Score
from deq_fusion.training_structures.comparison.report.findings import Findings
from deq_fusion.training_structures.comparison.report.worth import resolution, smallest, worth
from unit_tests.training_structures.comparison import toy

VALID = {"only a": 0.7, "only b": 0.6, "deq": 0.8, "concat": 0.75}


def found(gap, runs=8, *, lower=False, valid=VALID, names=tuple(VALID), **changes):
    """Findings in which deq scores `gap` above `only a`, and both of these as they should."""
    rng = np.random.default_rng(0)
    means = {"only a": 0.7, "only b": 0.6, "deq": 0.7 + gap, "concat": 0.72}
    results = [
        {
            **{"method": name, "run": run, "seconds": 1.0, "valid": {"it": valid[name]}},
            **{"kind": SINGLE if name.startswith("only") else FUSION},
            "scores": {"it": means[name] + 0.01 * rng.normal()},
        }
        for name in names
        for run in range(runs)
    ]
    score = Score("it", lower=lower)
    given = {"recipe": toy.recipe(), "methods": (), "results": results, "skipped": {}}
    given |= {"failures": [], "reused": [], "score": score, "baseline": "concat", "subject": "deq"}
    return Findings(**given | {"test_share": 0.25, "asked": "", "made_by": {}} | changes)


@pytest.mark.parametrize(
    ("gap", "runs", "answer"),
    [
        (0.1, 8, "yes, beyond chance"),
        (0.001, 8, "not shown, the difference is within chance"),
        (-0.1, 8, "no, it loses beyond chance"),
        (0.1, 5, "too few runs to tell, take 6 or more"),
    ],
)
def test_the_best_fusion_is_tested_against_the_best_modality(gap, runs, answer):
    (said,) = worth(found(gap, runs))
    assert said.startswith(f"Worth fusing: {answer}. On validation deq is the best fusion and only")
    assert ("p " in said.split("of it")[1]) == (runs >= 6)


def test_both_are_chosen_on_validation_and_not_by_what_they_score():
    (said,) = worth(found(0.1, valid=VALID | {"concat": 0.9, "only b": 0.8}))
    assert "concat is the best fusion and only b the best single modality" in said
    (said,) = worth(found(0.1, lower=True))
    assert "concat is the best fusion and only b the best single modality" in said
    assert "less is better" in said and "no, it loses beyond chance" in said


def test_fusions_above_the_modality_are_counted():
    (said,) = worth(found(-0.1))
    assert said.endswith("Of 2 fusions 1 scores above only a.")


def test_where_it_cannot_be_told_that_is_said():
    (said,) = worth(found(0.1, names=("deq", "concat")))
    assert "single modalities are not among the methods (--no-unimodal" in said
    one = found(0.1, names=("deq",), recipe=toy.recipe(modalities=("a",)), baseline=None)
    assert worth(one) == ["Whether it is worth fusing cannot be told: there is one modality."]
    assert worth(found(0.1, names=("only a",), baseline=None)) == []
    (said,) = worth(found(0.1, valid=VALID | {"deq": np.nan, "concat": np.nan}))
    assert said == "Whether it is worth fusing cannot be told: it is undefined."


def test_the_smallest_difference_is_that_of_the_tables_test():
    made = found(0.0, runs=10)
    by = {name: [r["scores"]["it"] for r in made.results if r["method"] == name] for name in VALID}
    for name, gap in smallest(made).items():
        sd = np.std(np.subtract(by[name], by["concat"]), ddof=1)
        noncentrality = gap / (sd * np.sqrt(1 / 10 + 0.25))
        critical = stats.t.ppf(1 - 0.05 / 3 / 2, 9)  # of three comparisons
        assert stats.nct.sf(critical, 9, noncentrality) == pytest.approx(0.8)
    assert smallest(made).keys() == VALID.keys() - {"concat"}
    assert all(smallest(made, 2)[name] < gap for name, gap in smallest(made).items())
    (said,) = resolution(made)
    assert f"by {100 * np.median(list(smallest(made).values())):.1f} points of it" in said
    assert said.endswith(f"{100 * np.median(list(smallest(made, 2).values())):.1f}.")


def test_without_a_test_nothing_could_have_been_shown():
    assert resolution(found(0.1, runs=5)) == [] == resolution(found(0.1, baseline=None))
    alike = found(0.1, names=("concat", "deq"))
    copied = [r | {"method": "deq"} for r in alike.results if r["method"] == "concat"]
    kept = [r for r in alike.results if r["method"] == "concat"]
    assert smallest(found(0.1, results=[*kept, *copied])) == {}
