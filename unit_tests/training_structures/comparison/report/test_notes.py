"""Notes below the table: no baseline, and methods that the bound on epochs has stopped."""

from dataclasses import replace

import pytest

from deq_fusion.training_structures.comparison import compare
from deq_fusion.training_structures.comparison.report.budget import stopped
from deq_fusion.training_structures.comparison.report.report import terminal
from unit_tests.training_structures.comparison import toy


@pytest.fixture(scope="module")
def found():
    asked = {"unimodal": False, "progress": False}
    return compare(toy.recipe(epochs=3), {"sum": toy.Sum}, 3, **asked)


def ended(found, best, **changes):
    """The findings, had the runs been best at these epochs."""
    runs = [r for r in found.results if r["method"] == "sum"]
    changed = [r for r in found.results if r["method"] != "sum"]
    changed += [run | {"best_epoch": epoch} for run, epoch in zip(runs, best, strict=True)]
    methods = [
        replace(method, recipe=replace(method.recipe, **changes)) for method in found.methods
    ]
    return replace(found, results=changed, methods=methods)


def test_without_the_usual_baseline_that_is_said(found):
    text = " ".join(terminal(found).split())
    assert "concat, the usual one, is not among the methods. Name one of them: --baseline" in text
    named = replace(found, baseline="sum")
    assert "No baseline" not in terminal(named)


def said(found):
    return stopped(found.methods, found.results, found.score)


def test_methods_that_are_best_near_the_bound_in_over_a_fifth_of_the_runs_are_named(found):
    at_the_end = ended(found, [1, 3, 1])
    (sentence,) = said(at_the_end)
    assert sentence.startswith("Stopped by the bound of 3 epochs, in whose last tenth lies the")
    assert "over 20% of the runs" in sentence and "undertrained: sum." in sentence
    assert "--epochs 6" in sentence and sentence in " ".join(terminal(at_the_end).split())
    assert said(ended(found, [2, 2, 1])) == []
    assert said(ended(found, [3, 3, 3], epochs=9)) == []  # it was ended by its patience


@pytest.mark.parametrize(("best", "named"), [(90, False), (91, True), (100, True)])
def test_the_last_tenth_begins_where_it_says(found, best, named):
    assert bool(said(ended(found, [best, 1, 1], epochs=100))) == named


def test_a_fifth_of_the_runs_is_not_over_a_fifth(found):
    (run,) = [r for r in found.results if r["method"] == "sum"][:1]
    for late, named in ((1, False), (2, True)):
        runs = [run | {"run": i, "best_epoch": 3 if i < late else 1} for i in range(5)]
        assert bool(stopped(found.methods, runs, found.score)) == named


def test_a_schedule_over_the_epochs_is_best_at_its_end_by_design(found):
    assert said(ended(found, [3, 3, 3], scheduler=lambda optimizer: None)) == []


def test_the_page_has_them(found, tmp_path):
    ended(found, [3, 3, 3]).write(tmp_path)
    page = (tmp_path / "results.html").read_text()
    assert "No baseline, and so no test" in page and "Stopped by the bound of 3 epochs" in page


def test_costs_are_explained_and_nothing_unknown_is_named(found, tmp_path):
    replace(found, made_by={"torch": "2", "commit": None}).write(tmp_path)
    assert "parameters: of the whole network." in (tmp_path / "results.md").read_text()
    page = (tmp_path / "results.html").read_text()
    assert "torch: 2" in page and "commit" not in page.split("To repeat it")[1]
