"""The recipe of synthetic sequences: floors, single modalities, and fusions that meet sequences."""

from dataclasses import replace

import pytest
import torch

from deq_fusion.datasets.synthetic.sequences import bayes, bayes_mse
from deq_fusion.examples.synthetic.recipe import recipe
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison.methods import Method, refusal, single
from deq_fusion.training_structures.comparison.single_run import run_fusion

SERIES = ["early_gru", "ef_lstm", "mfn", "marn", "rmfn", "mult", "late_transformer"]


@pytest.fixture(scope="module")
def loaders():
    return recipe().loaders(0)


def test_the_floors_know_the_word_at_most_and_the_best_predictor_all(loaders):
    train, _, test = loaders
    *views, truth = (torch.cat(parts) for parts in zip(*test, strict=True))
    found = recipe()
    constant, linear = (
        found.metrics(found.floors[name]([train], test), truth)["mse"]
        for name in ("constant", "linear")
    )
    best = torch.from_numpy(bayes([view.numpy() for view in views])).float()
    assert found.metrics(best, truth)["mse"] == pytest.approx(0.09, abs=0.01)
    text = bayes_mse(["text"], steps=8, noise=0.3)
    assert text < linear < constant < 1.2 * (text + 0.25)
    assert constant == pytest.approx(float(truth.var()), rel=0.01)


def test_all_fusions_that_take_sequences_take_it():
    takes = {name for name, entry in FUSIONS.items() if refusal(entry, recipe()) is None}
    assert {*SERIES} <= takes
    assert all("sequences" in FUSIONS[name].features for name in takes)


@pytest.mark.parametrize(
    "name", ["ef_lstm", pytest.param("late_transformer", marks=pytest.mark.slow), "only text"]
)
def test_a_short_training_runs_end_to_end(monkeypatch, name):
    short = replace(recipe(steps=2, noise=0.5), epochs=1)
    method = single(short, "text") if name == "only text" else Method(name, short, FUSIONS[name])
    result = run_fusion(method, 0)
    assert result["scores"]["mse"] > bayes_mse(steps=2, noise=0.5) / 2


def test_its_name_says_the_best_possible_score():
    assert "best possible mse is 0.09)" in recipe().name
    assert "best possible mse is 1)" in recipe(noise=1.0).name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_dir": "somewhere"}, "sequences are drawn, not read: leave out data_dir"),
        ({"official": True}, "sequences are drawn"),
        ({"steps": 0}, "steps must"),
        ({"noise": 0}, "noise must"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        recipe(**options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ef_lstm", "mfn", "marn", "rmfn"])
def test_fusions_step_by_step_come_near_the_best_possible_score(name):
    assert run_fusion(Method(name, recipe(), FUSIONS[name]), 0)["scores"]["mse"] < 0.2


def test_train_says_how_many_are_drawn_and_the_usual_number_is_as_ever():
    sizes = [len(loader.dataset) for loader in recipe(train=500).loaders(0)]
    assert sizes == [500, 125, 250]
    assert [len(loader.dataset) for loader in recipe().loaders(0)] == [4000, 1000, 2000]
    with pytest.raises(ValueError, match="train must be 8 or more, .* got 3"):
        recipe(train=3)
