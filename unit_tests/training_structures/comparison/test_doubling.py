"""Twice the epochs, for methods that the bound on them may have stopped."""

import json

import numpy as np
import pytest

from deq_fusion.training_structures.comparison import compare
from deq_fusion.training_structures.comparison.paired import Paired, compare_paired
from deq_fusion.training_structures.comparison.recipe import Score
from deq_fusion.training_structures.comparison.report.budget import at_the_bound, stopped
from deq_fusion.training_structures.comparison.report.report import terminal
from unit_tests.training_structures.comparison import toy

ASKED = {"unimodal": True, "progress": False, "metric": "certainty"}


def compared(tmp_path, **asked):
    return compare(
        toy.recipe(epochs=2, resplit=True), {"sum": toy.Sum}, 6, output=tmp_path, **ASKED, **asked
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doubled")
    return compared(folder, double_epochs=True), folder


def valid(found, method, bound=None):
    """What validation gives by hand: the certainty of all runs of a method, trained anew."""
    recipe = toy.recipe(epochs=bound, part="valid")
    again = compare(recipe, {"sum": toy.Sum}, 6, **ASKED)
    return [r["scores"]["certainty"] for r in again.results if r["method"] == method]


@pytest.mark.parametrize("method", ["sum", "only a"])
def test_the_gain_is_that_of_a_training_twice_as_long_on_the_same_validation_part(found, method):
    made, _ = found
    assert method in [m.name for m in at_the_bound(made.methods, made.results)]
    after, before = valid(made, method, 4), valid(made, method, 2)
    assert made.doubled[method].difference == pytest.approx(np.mean(after) - np.mean(before))
    tested = compare_paired(after, before, test_share=toy.SIZES[1] / toy.SIZES[0])
    assert made.doubled[method].low == pytest.approx(tested.low)
    assert made.doubled[method].p >= tested.p  # corrected for the number of methods


def test_only_those_at_the_bound_are_trained_again_and_what_is_stored_is_used(found):
    made, folder = found
    named = {method.name for method in at_the_bound(made.methods, made.results)}
    assert set(made.doubled) == named == {path.name for path in (folder / "twice").iterdir()}
    runs = {path: path.stat().st_mtime_ns for path in (folder / "twice").rglob("runs/*.json")}
    assert len(runs) == 6 * len(named)
    assert all(json.loads(path.read_text())["epochs"] <= 4 for path in runs)
    again = compared(folder, double_epochs=True)
    assert again.doubled == made.doubled
    assert {path: path.stat().st_mtime_ns for path in runs} == runs


def test_the_results_are_those_without_it(found):
    made, folder = found
    plain = compared(folder)
    assert plain.doubled is None and plain.table() == made.table()
    assert "see whether validation gains by it (--double-epochs)" in " ".join(
        terminal(plain).split()
    )
    assert "--double-epochs" not in terminal(made)


def test_a_search_is_refused(tmp_path):
    with pytest.raises(ValueError, match="with one setting of every method"):
        compared(tmp_path, double_epochs=True, trials=2)


def test_the_sentence_parts_what_gains_from_what_does_not(found):
    made, _ = found
    tests = {
        "sum": Paired(0.03, 0.01, 0.05, 0.01),
        "only a": Paired(0.01, -0.01, 0.03, 0.4),
    }
    for lower, gaining in ((False, True), (True, False)):
        score = Score("certainty", lower=lower)
        (said,) = stopped(made.methods, made.results, score, tests)
        assert ("gains beyond chance of sum (+3.0" in said) == gaining
        assert "bring nothing beyond chance to " in said and "only b" in said.split("Of ")[-1]
