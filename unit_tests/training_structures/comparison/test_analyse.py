"""Trained models are analysed where they are trained, once, and recipes treat fusions alike."""

import json
from functools import partial

import pytest

from deq_fusion.training_structures.evaluation import evaluate
from unit_tests.training_structures.comparison import toy

CALLS = []


def analysed(trained, recipe, *, what="scores"):
    CALLS.append(what)
    (fusion,) = trained.fusions
    scale = fusion.scale.item() if hasattr(fusion, "scale") else None
    return {what: evaluate(trained.model, trained.loaders[2], metrics=recipe.metrics), "own": scale}


@pytest.fixture(autouse=True)
def none_called():
    CALLS.clear()


def test_the_analysis_sees_the_selected_epoch_and_is_kept_with_the_run(tmp_path):
    found = toy.run(tmp_path, runs=[0, 1], analyse=analysed)
    trained = [r for r in found.results if r["method"] in toy.FUSIONS]
    assert len(trained) == len(CALLS) == 4
    for result in trained:
        assert result["analysis"]["scores"] == result["scores"]
        path = tmp_path / "runs" / f"{result['method']}-{result['run']}.json"
        assert json.loads(path.read_text())["analysis"] == result["analysis"]
    assert all("analysis" not in r for r in found.results if r["method"] == "majority")


def test_a_stored_run_is_not_analysed_again(tmp_path):
    first = toy.run(tmp_path, analyse=analysed)
    count = len(CALLS)
    again = toy.run(tmp_path, analyse=analysed)
    assert len(CALLS) == count > 0
    assert again.results == first.results


def test_runs_that_were_analysed_otherwise_are_made_again(tmp_path):
    toy.run(tmp_path, analyse=analysed)
    found = toy.run(tmp_path, analyse=partial(analysed, what="this"))
    assert found.reused[1:] == ["4 runs made again (sum, concat): analyse changed"]
    assert all("this" in r["analysis"] for r in found.results if r["method"] != "majority")


def test_an_analysis_that_is_not_asked_for_is_left_out(tmp_path):
    toy.run(tmp_path, analyse=analysed)
    found = toy.run(tmp_path)
    assert found.reused[0].startswith("6 of 6 runs reused")
    assert not any("analysis" in result for result in found.results)


def test_an_analysis_that_fails_is_a_run_that_failed(tmp_path):
    def failing(trained, recipe):
        raise RuntimeError("nothing to see")

    found = toy.run(tmp_path, analyse=failing)
    assert {failure["method"] for failure in found.failures} == set(toy.FUSIONS)
    assert "nothing to see" in found.failures[0]["error"]


def test_a_variant_is_treated_like_its_fusion():
    recipe = toy.recipe(
        fusion_options={"deq": {"dim": 5, "tol": 0.1}, "mine": {"tol": 0.3}, "other": {"a": 1}},
        fusion_lr={"deq": 0.01, "other": 0.5},
    )
    treated = recipe.treating({"mine": "deq", "new": "deq", "plain": "concat"})
    assert treated.fusion_options == {
        "deq": {"dim": 5, "tol": 0.1},
        "other": {"a": 1},
        "mine": {"dim": 5, "tol": 0.3},  # its own come first
        "new": {"dim": 5, "tol": 0.1},
        "plain": {},
    }
    assert treated.fusion_lr == {"deq": 0.01, "other": 0.5, "mine": 0.01, "new": 0.01}
    assert recipe.fusion_options["mine"] == {"tol": 0.3}
