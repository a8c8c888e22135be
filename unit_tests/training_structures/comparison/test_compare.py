"""The comparison: every method in every run, each result stored once and never made twice."""

import json
import random
from functools import partial

import numpy as np
import pytest
import torch

from deq_fusion.training_structures.comparison import compare
from deq_fusion.training_structures.comparison.single_run import run_fusion
from deq_fusion.training_structures.comparison.store import MixedSettings, Unwritable
from deq_fusion.training_structures.files import read_json, write_json
from unit_tests.training_structures.comparison import toy


class Observed(toy.Sum):
    """Tells how often it was built."""

    built = 0

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        Observed.built += 1


@pytest.fixture(autouse=True)
def none_built():
    Observed.built = 0


def test_every_method_gets_every_run_in_order(tmp_path):
    found = toy.run(tmp_path, runs=[4, 1], unimodal=True)
    keys = [(r["method"], r["run"]) for r in found.results]
    methods = ["majority", "only a", "only b", "sum", "concat"]
    assert keys == [(method, run) for method in methods for run in (4, 1)]
    assert found.skipped == {} and found.failures == []
    for result in found.results[2:]:
        assert result["scores"].keys() == result["valid"].keys() - {"loss"}
        assert 1 <= result["best_epoch"] <= result["epochs"] == len(result["curve"]) == toy.EPOCHS
        lowest = min(epoch["valid_loss"] for epoch in result["curve"])
        assert result["curve"][result["best_epoch"] - 1]["valid_loss"] == lowest
        assert result["valid"]["loss"] == pytest.approx(lowest, rel=1e-5)
    shares = {r["method"]: (r["fusion_parameters"], r["parameters"]) for r in found.results[6:]}
    assert shares == {"sum": (1, 1 + 3 * 2 + 2), "concat": (0, 6 * 2 + 2)}


def test_fusions_that_cannot_take_the_recipe_are_told_and_left_out(tmp_path):
    class Three(toy.Sum):
        modalities = (3, 3)

    found = toy.run(tmp_path, {"three": Three, "sum": toy.Sum})
    assert found.skipped == {"three": "takes 3 modalities, and there are 2"}
    assert {r["method"] for r in found.results} == {"majority", "sum"}


def test_a_run_depends_on_its_number_alone(tmp_path):
    def guessing(known, scored):
        return torch.rand(len(scored.dataset), 2)

    changes = {"floors": {"guessing": guessing}}
    together = toy.scores(toy.run(tmp_path / "a", runs=range(3), changes=changes))
    torch.manual_seed(5)
    alone = toy.scores(toy.run(tmp_path / "b", runs=[2], changes=changes))
    assert alone == {key: scores for key, scores in together.items() if key[1] == 2}
    assert together["guessing", 0] != together["guessing", 2]


def test_the_callers_random_generators_are_as_before(tmp_path):
    def state():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()

    before = state()
    toy.run(tmp_path, unimodal=True, trials=2, drop_modality=True)
    assert state() == before


def test_a_run_has_the_threads_asked_for_and_the_caller_those_of_before(tmp_path):
    threads = []

    def build(*args):
        threads.append(torch.get_num_threads())
        return toy.build(*args)

    before = torch.get_num_threads()
    changes = {"build": build, "epochs": 1}
    toy.run(tmp_path, {"sum": toy.Sum}, runs=[0], changes=changes, threads=before + 1)
    assert threads == [before + 1] and torch.get_num_threads() == before


def test_finished_runs_are_read_and_not_made_again(tmp_path):
    fusions = {"sum": Observed, "concat": toy.concat}
    first = toy.run(tmp_path, fusions)
    assert Observed.built == 2
    (tmp_path / "runs" / "sum-1.json").unlink()
    again = toy.run(tmp_path, fusions, runs=range(3))
    assert Observed.built == 2 + 2  # the one that was gone, and a new one
    known = [result for result in again.results if result["run"] < 2]
    assert [r["scores"] for r in known] == [r["scores"] for r in first.results]
    assert Observed.built == 4 and toy.run(tmp_path, fusions, runs=range(3)) == again
    assert Observed.built == 4
    assert not list((tmp_path / "runs").glob("*.ckpt"))


def test_a_stored_run_says_what_it_came_from(tmp_path):
    fusions, rate = {"sum": Observed}, {"optimizer": partial(torch.optim.SGD, lr=0.25)}
    toy.run(tmp_path, fusions, runs=[1], changes=rate, trials=2)
    stored = json.loads((tmp_path / "runs" / "sum-1.json").read_text(encoding="utf-8"))
    assert (stored["method"], stored["run"]) == ("sum", 1)
    assert stored["settings"]["optimizer"] == "torch.optim.sgd.SGD(lr=0.25)"
    assert stored["settings"]["load"] == "unit_tests.training_structures.comparison.toy.load"
    assert stored["settings"]["trials"] == "2"
    assert stored["identity"]["versions"]["torch"] == torch.__version__
    assert stored["identity"]["data"].keys() == {"train", "valid", "test"}
    assert stored["made_by"]["torch"] == torch.__version__
    assert stored["made_by"]["threads"] == 1 and stored["made_by"]["device"] == "cpu"


@pytest.mark.parametrize(
    ("changes", "asked", "message"),
    [
        ({"epochs": 4}, {}, "epochs was 3 and is 4; choose another output folder"),
        ({"name": "other"}, {}, "name was 'toy' and is 'other'"),
        ({"part": "valid"}, {}, "part was 'test' and is 'valid'"),
        ({}, {"trials": 2}, "trials was 1 and is 2; .* or delete that file"),
        ({}, {"drop_modality": True}, "drop_modality was False and is True"),
    ],
)
def test_results_of_other_settings_are_not_mixed(tmp_path, changes, asked, message):
    fusions = {"sum": Observed}
    toy.run(tmp_path, fusions, runs=[0])
    with pytest.raises(MixedSettings, match=message):
        toy.run(tmp_path, fusions, runs=[0], changes=changes, **asked)
    assert Observed.built == 1


@pytest.mark.parametrize(("key", "value"), [("format", "another"), ("name", "'other'")])
def test_a_folder_of_another_format_or_benchmark_is_refused(tmp_path, key, value):
    toy.run(tmp_path, {"sum": toy.Sum}, runs=[0])
    manifest = tmp_path / "comparison.json"
    write_json(manifest, read_json(manifest) | {key: value})
    with pytest.raises(MixedSettings, match=f"{key} was {value} and is"):
        toy.run(tmp_path, {"sum": toy.Sum}, runs=[1])


def test_runs_of_nobody_knows_what_are_refused(tmp_path):
    toy.run(tmp_path, {"sum": toy.Sum}, runs=[0])
    (tmp_path / "comparison.json").unlink()
    with pytest.raises(MixedSettings, match="no comparison.json tells what they compare"):
        toy.run(tmp_path, {"sum": toy.Sum}, runs=[0])


@pytest.mark.parametrize("taken", ["results", "results/runs"])
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, taken):
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("a file in the way", encoding="utf-8")
    with pytest.raises(Unwritable, match="cannot write to .*results.*; choose another folder"):
        toy.run(tmp_path / "results")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"runs": []}, r"runs must be different numbers, at least one, got \[\]"),
        ({"runs": [0, 1, 0]}, r"runs must be different numbers, .*got \[0, 1, 0\]"),
        ({"fusions": {}}, "fusions must name at least one fusion, got none"),
        ({"trials": 5}, "5 trials need 4 settings"),
        ({"fusions": {"majority": toy.Sum}}, r"a name of its own, got \['majority'\] twice"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(tmp_path, asked, message):
    settings = {"fusions": toy.FUSIONS, "runs": [0], "output": tmp_path / "results"}
    with pytest.raises(ValueError, match=message):
        compare(toy.recipe(), **settings | asked)
    assert not (tmp_path / "results").exists()


def test_a_fusion_has_its_own_learning_rate(tmp_path):
    kept = []

    def build(*args):
        kept.append(toy.build(*args))
        return kept[-1]

    changes = {"fusion_lr": {"sum": 0.0}, "build": build}
    toy.run(tmp_path, {"sum": toy.Sum, "again": toy.Sum}, runs=[0], changes=changes)
    still, moved = kept
    assert still.fusion.scale.item() == 1 and moved.fusion.scale.item() != 1
    torch.manual_seed(0)
    assert not torch.equal(still.head.weight, torch.nn.Linear(3, 2).weight)


def test_a_validation_score_that_is_never_a_number_is_told(tmp_path):
    def metrics(prediction, truth):
        return {"accuracy": float("nan")}

    recipe = toy.recipe(metrics=metrics, select="accuracy", floors={})
    found = compare(recipe, {"sum": toy.Sum}, runs=[0], output=tmp_path, unimodal=False)
    assert "the validation accuracy must be a number in some epoch" in found.failures[0]["error"]


def test_a_run_alone_is_the_run_of_the_comparison(tmp_path):
    from deq_fusion.training_structures.comparison.methods import Method

    found = toy.run(tmp_path, {"sum": toy.Sum}, runs=[1])
    alone = run_fusion(Method("sum", toy.recipe(), toy.Sum), run=1)
    assert alone["scores"] == found.results[-1]["scores"]
