"""The recipe of synthetic vectors: its name, floors, and which fusions can represent what."""

import pickle
from dataclasses import replace

import pytest
import torch

from deq_fusion.datasets.synthetic.vectors import Structure
from deq_fusion.examples.synthetic.vectors import train
from deq_fusion.examples.synthetic.vectors.recipe import recipe
from deq_fusion.examples.synthetic.vectors.systems import FLOORS
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison.methods import Method, refusal
from deq_fusion.training_structures.comparison.single_run import run_fusion


def scored(found, name):
    train, valid, test = found.loaders(0)
    truth = torch.cat([batch[-1] for batch in test])
    return found.metrics(found.floors[name]([train, valid], test), truth)["accuracy"]


@pytest.mark.parametrize("kind", ["unique", "additive", "product", "parity", "gated"])
def test_the_floor_bayes_gets_what_the_name_says(kind):
    found = recipe(kind=kind, modalities=3, samples=40)
    best = Structure(kind, 3).accuracy()
    assert f"the best possible accuracy is {best:.1%}" in found.name
    assert scored(found, "bayes") == pytest.approx(best, abs=4.5 * 0.5 / 4000**0.5)


def test_of_fewer_modalities_the_floor_is_their_best_in_whatever_order():
    found = recipe(kind="gated", modalities=3, samples=40)
    margin = 4.5 * 0.5 / 4000**0.5
    for names in (["third"], ["second", "first"]):
        best = Structure("gated", 3).accuracy(names)
        assert scored(found.restricted(names), "bayes") == pytest.approx(best, abs=margin)
        assert f"{Structure('gated', 3).accuracy(['third']):.1%} third" in found.about[0]


def test_a_linear_model_adds_up_and_no_more():
    assert scored(recipe(kind="additive"), "linear") > Structure("additive").accuracy() - 0.03
    assert scored(recipe(kind="parity"), "linear") == pytest.approx(0.5, abs=0.05)


def test_each_run_draws_samples_of_its_own_of_the_sizes_said():
    found = recipe(kind="parity", modalities=4, order=6, samples=100, width=3)
    first, second = (found.loaders(run) for run in (0, 1))
    assert [len(loader.dataset) for loader in first] == [100, 25, 4000]
    assert not torch.equal(first[0].dataset.tensors[0], second[0].dataset.tensors[0])
    assert len(found.modalities) == 4


def test_the_script_trains_and_says_what_could_be_reached(capsys):
    for kind in ("steep", "exchanged", "noise"):
        arguments = ["--set", f"kind={kind}", "--set", "samples=60", "--epochs", "1"]
        result = train.main([*arguments, "--fusion", "concat"])
        assert 0.3 < result["scores"]["accuracy"] <= 1
    assert "best possible accuracy" in capsys.readouterr().out


def test_a_recipe_can_be_sent_to_another_process_once_it_has_drawn():
    found = recipe(kind="gated", samples=40)
    again = pickle.loads(pickle.dumps(found.load))
    pairs = zip(found.loaders(3), again(3, found.modalities), strict=True)
    assert all(torch.equal(a.dataset.tensors[0], b.dataset.tensors[0]) for a, b in pairs)


def test_the_floors_are_those_that_are_listed():
    assert recipe().floors.keys() == FLOORS.keys()


def test_fusions_of_vectors_take_it():
    taking = {name for name, entry in FUSIONS.items() if refusal(entry, recipe()) is None}
    assert {"deq", "concat", "mutan", "late", "gmu"} <= taking


@pytest.mark.slow
def test_concatenation_cannot_tell_a_parity_and_a_tensor_can():
    found = replace(recipe(kind="parity", samples=1000), epochs=40)
    score = {n: run_fusion(Method(n, found, FUSIONS[n]), 0)["scores"] for n in ("concat", "tensor")}
    assert score["concat"]["accuracy"] < 0.6 < 0.75 < score["tensor"]["accuracy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_dir": "somewhere"}, "vectors are drawn, not read: leave out data_dir"),
        ({"official": True}, "vectors are drawn"),
        ({"kind": "xor"}, "kind must be one of"),
        ({"samples": 7}, "samples must be 8 or more, .* got 7"),
        ({"mislabelled": 0.5}, "mislabelled must be a share from 0 to below 0.5, .* got 0.5"),
        ({"modalities": 6}, "modalities must be a whole number from 2 to 5, got 6"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        recipe(**options)


def test_with_fewer_samples_there_are_as_many_steps():
    small, usual, large = (recipe(samples=count) for count in (500, 2000, 20000))
    assert (small.epochs, usual.epochs, large.epochs) == (400, 100, 20)
    assert (small.patience, usual.patience, large.patience) == (120, 30, 10)
