"""Notes below the table: no baseline, and methods that the bound on epochs has stopped."""

from dataclasses import replace

import pytest

from deq_fusion.training_structures.comparison import compare
from deq_fusion.training_structures.comparison.report.report import _undertrained, terminal
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


def test_methods_that_are_best_at_the_bound_in_most_runs_are_named(found):
    (said,) = _undertrained(ended(found, [3, 2, 3]))
    assert said.startswith("Stopped by the bound of 3 epochs, which was the best one in most runs")
    assert "undertrained: sum." in said and said in " ".join(
        terminal(ended(found, [3, 2, 3])).split()
    )
    assert _undertrained(ended(found, [3, 2, 1])) == []
    assert _undertrained(ended(found, [3, 3, 3], epochs=9)) == []  # it was ended by its patience


def test_a_schedule_over_the_epochs_is_best_at_its_end_by_design(found):
    planned = ended(found, [3, 3, 3], scheduler=lambda optimizer: None)
    assert _undertrained(planned) == []


def test_the_page_has_them_among_its_warnings(found, tmp_path):
    ended(found, [3, 3, 3]).write(tmp_path)
    page = (tmp_path / "results.html").read_text()
    assert "No baseline, and so no test" in page and "Stopped by the bound of 3 epochs" in page


def test_costs_are_explained_and_nothing_unknown_is_named(found, tmp_path):
    replace(found, made_by={"torch": "2", "commit": None}).write(tmp_path)
    assert "parameters: of the whole network." in (tmp_path / "results.md").read_text()
    page = (tmp_path / "results.html").read_text()
    assert "torch: 2" in page and "commit" not in page.split("To repeat it")[1]
