"""Robustness of a trained model, against its own predictions noised and hidden by hand."""

import json
import math
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from deq_fusion.training_structures.comparison import System, compare
from deq_fusion.training_structures.comparison.methods import Method, gather
from deq_fusion.training_structures.comparison.robustness import (
    LEVELS,
    Look,
    check_levels,
    draws,
    noised,
)
from deq_fusion.training_structures.comparison.single_run import run_fusion
from deq_fusion.training_structures.comparison.store import MixedSettings
from deq_fusion.training_structures.files import write_json
from unit_tests.training_structures.comparison import toy

SOME = (0.0, 0.4, 1.0)


def lost(x, level, generator):
    """Entries that are lost."""
    return torch.where(torch.from_numpy(generator.random(tuple(x.shape)) < level), 0 * x, x)


def shifted(x, level, generator):
    return x + 3 * level


class Mean(nn.Module):
    """The mean of the features that are there."""

    def __init__(self, input_dims, dim):
        super().__init__()

    def forward(self, features, present=None):
        x = torch.stack(features, 1)
        weight = torch.ones(x.shape[:2]) if present is None else present.to(x)
        return (weight.unsqueeze(-1) * x).sum(1) / weight.sum(1, keepdim=True)


FUSIONS = {"mean": Mean, "concat": toy.concat}


class Hiding(toy.Host):
    """A host that can do without some modalities, by zeros."""

    def __init__(self, known):
        super().__init__(toy.Concat(), 6, 2)
        self.known, self.hidden = known, None

    def without(self, modality):
        return self.blinded(modality) if modality in self.known else None

    @contextmanager
    def blinded(self, modality):
        self.hidden = modality
        yield
        self.hidden = None

    def forward(self, views):
        return super().forward([x * (i != self.hidden) for i, x in enumerate(views)])


def met(recipe, known):
    return replace(recipe, build=partial(build_hiding, known))


def build_hiding(known, fusion, train):
    return Hiding(known)


def recipe(**changes):
    return toy.recipe(**{"noise": {"a": lost, "b": lost}} | changes)


def compared(folder, changes=None, fusions=FUSIONS, runs=range(2), **asked):
    asked = {"robustness": SOME, "progress": False} | asked
    return compare(recipe(**changes or {}), fusions, runs, output=folder, **asked)


def looked_at(fusion, run=0, levels=SOME, **changes):
    """The result of a run, its robustness, and the trained host."""
    hosts = []

    def build(*args):
        hosts.append(toy.build(*args))
        return hosts[-1]

    method = Method("it", recipe(build=build, **changes), fusion)
    look = Look(method, run, levels)
    result = run_fusion(method, run, analyse=look)
    return result, result["analysis"]["robustness"], hosts[0].eval()


def part(run=0):
    """All samples of the test part in one batch."""
    return next(iter(torch.utils.data.DataLoader(toy.load(run, "ab")[2].dataset, batch_size=99)))


def scored(prediction, truth):
    return {name: float(value) for name, value in toy.metrics(prediction, truth).items()}


def check(curve, predictions, truth):
    expected = [scored(prediction, truth) for prediction in predictions]
    assert curve.keys() == expected[0].keys()
    for name, values in curve.items():
        assert values == pytest.approx([each[name] for each in expected])


@pytest.mark.parametrize("fusion", [toy.concat, Mean])
@torch.no_grad()
def test_scores_under_noise_are_those_of_the_model_on_noised_inputs(fusion):
    with torch.enable_grad():
        result, found, host = looked_at(fusion)
    a, b, truth = part()
    noisy = {}
    for name, view in (("a", a), ("b", b)):
        generator = draws(0, "noise", name)
        uniform = torch.from_numpy(generator.random(tuple(view.shape)))
        noisy[name] = [torch.where(uniform < level, 0 * view, view) for level in SOME]
    assert found["levels"] == list(SOME)
    clean = {name: values[0] for name, values in found["noise"]["all"].items()}
    assert clean == result["scores"]  # exactly: nothing else was selected, or drawn
    check(found["noise"]["a"], [host([x, b]) for x in noisy["a"]], truth)
    check(found["noise"]["b"], [host([a, x]) for x in noisy["b"]], truth)
    both = zip(noisy["a"], noisy["b"], strict=True)
    check(found["noise"]["all"], [host([x, y]) for x, y in both], truth)


@pytest.mark.parametrize("fusion", [toy.concat, Mean])
@torch.no_grad()
def test_a_share_of_the_samples_lacks_a_modality(fusion):
    with torch.enable_grad():
        _, found, host = looked_at(fusion)
    a, b, truth = part()

    def without(which, *, told):
        views = [torch.where(which[:, [i]], 0 * x, x) for i, x in enumerate((a, b))]
        if told:
            return host.head(host.fusion([a, b], present=~which))
        return host.head(host.fusion(views))

    ways = {"missing": fusion is Mean} | ({"zeros": False} if fusion is Mean else {})
    assert found.keys() == {"levels", "noise", *ways}
    for kind, told in ways.items():
        for what, numbers in (("a", [0]), ("b", [1]), ("any", [0, 1])):
            generator = draws(0, "missing", what)
            uniform = generator.random(len(truth))
            chosen = np.array(numbers)[generator.integers(len(numbers), size=len(truth))]
            predictions = []
            for share in SOME:
                which = torch.zeros(len(truth), 2, dtype=torch.bool)
                rows = np.flatnonzero(uniform < share)
                which[rows, chosen[rows]] = True
                predictions.append(without(which, told=told))
            check(found[kind][what], predictions, truth)


def test_all_samples_without_a_modality_score_as_if_it_were_dropped():
    method = Method("it", recipe(), Mean)
    asked = {"drop_modality": True, "analyse": Look(method, 3, SOME)}
    result = run_fusion(method, 3, **asked)
    for name in "ab":
        curve = result["analysis"]["robustness"]["missing"][name]
        assert {score: values[-1] for score, values in curve.items()} == result["missing"][name]


def test_draws_are_of_the_run_and_the_name_and_rise_with_the_level():
    loader = [[torch.ones(50, 4), torch.ones(50, 4), torch.zeros(50)]]

    def batch(run, name, level):
        (found,) = noised(loader, {1: (lost, draws(run, name))}, level)
        return found[1]

    low, high = batch(0, "a", 0.3), batch(0, "a", 0.6)
    assert ((low == 0) <= (high == 0)).all() and 0 < (low == 0).sum() < (high == 0).sum()
    assert torch.equal(low, batch(0, "a", 0.3))
    assert not torch.equal(low, batch(1, "a", 0.3)) and not torch.equal(low, batch(0, "b", 0.3))
    assert draws(-1, "a").random() == draws(-1, "a").random() != draws(1, "a").random()


def test_all_methods_meet_the_same_noise():
    """Two fusions that compute the same have the same curves, and a modality alone has its own."""

    class Same(Mean):
        pass

    found = compared(None, fusions={"mean": Mean, "same": Same})
    by = {(r["method"], r["run"]): r.get("robustness") for r in found.results}
    for run in range(2):
        assert by["mean", run] == by["same", run]
        alone = by["only a", run]
        assert alone.keys() == {"levels", "noise"} and alone["noise"].keys() == {"a", "all"}
        assert alone["noise"]["a"] == alone["noise"]["all"]
        assert by["majority", run] is None
    assert by["mean", 0] != by["mean", 1]


def test_views_that_lie_in_a_list_are_found_and_the_batch_is_left_as_it_is():
    views, masks, truth = [torch.ones(3, 2), torch.ones(3, 2)], [torch.ones(3)] * 2, torch.ones(3)
    (batch,) = noised([[views, masks, truth]], {1: (shifted, draws(0))}, 0.5)
    assert batch[1] is masks and batch[2] is truth
    assert torch.equal(batch[0][0], views[0]) and torch.equal(batch[0][1], views[1] + 1.5)
    assert torch.equal(views[1], torch.ones(3, 2))


def test_a_noise_that_returns_something_else_is_refused():
    with pytest.raises(ValueError, match=r"tensor of the shape that it gets, \(3, 2\), got \(3,\)"):
        list(noised([[torch.ones(3, 2), 0]], {0: (lambda x, *_: x.sum(1), draws(0))}, 0.5))


# ---- asked for, stored, and used again


def test_what_is_not_asked_for_changes_nothing(tmp_path):
    plain = compared(tmp_path / "plain", robustness=False, runs=[0])
    asked = compared(tmp_path / "asked", runs=[0])
    assert toy.scores(plain) == toy.scores(asked)
    for method, run in toy.scores(plain):
        path = f"runs/{method}-{run}.json"
        one, two = (json.loads((tmp_path / k / path).read_text()) for k in ("plain", "asked"))
        assert "robustness" not in one and "noise" not in one["identity"]["given"]
        added = {"robustness", "noise"} if method != "majority" else set()
        assert two["settings"].keys() - one["settings"].keys() == added
        assert two["identity"]["given"].keys() - one["identity"]["given"].keys() == added
        shared = {key: two["settings"][key] for key in one["settings"]}
        assert shared == one["settings"] and two["scores"] == one["scores"]
        shared = {key: two["identity"]["given"][key] for key in one["identity"]["given"]}
        assert shared == one["identity"]["given"]


def test_stored_runs_are_used_again_also_without_their_robustness(tmp_path):
    first = compared(tmp_path, runs=[0])
    assert compared(tmp_path, runs=[0]).results == first.results
    plain = compared(tmp_path, runs=[0], robustness=None)
    assert plain.reused[0].startswith("5 of 5 runs reused")
    assert not any("robustness" in result for result in plain.results) and not plain.robustness()
    again = compared(tmp_path, runs=[0], robustness=list(SOME))  # it is still there
    assert again.results == first.results


def test_an_interrupted_comparison_ends_as_an_undisturbed_one(tmp_path):
    whole = compared(None)
    compared(tmp_path, fusions={"mean": Mean}, runs=[0])
    (tmp_path / "runs" / "only b-0.json").unlink()
    ended, kept = compared(tmp_path), ("method", "run", "scores", "robustness", "best_epoch")
    one, two = (
        [{key: result.get(key) for key in kept} for result in found.results]
        for found in (ended, whole)
    )
    assert one == two


def test_other_levels_are_another_comparison(tmp_path):
    compared(tmp_path, runs=[0], unimodal=False)
    with pytest.raises(MixedSettings, match=r"robustness was \(0.0, 0.4, 1.0\) and is"):
        compared(tmp_path, robustness=(0, 1), runs=[0], unimodal=False)
    compared(tmp_path / "plain", robustness=False, runs=[0], unimodal=False)
    with pytest.raises(MixedSettings, match="robustness was None and is"):
        compared(tmp_path / "plain", runs=[0], unimodal=False)


def test_runs_of_another_noise_are_made_again(tmp_path):
    first = compared(tmp_path, runs=[0], unimodal=False)
    noise = {"a": shifted, "b": lost}
    found = compared(tmp_path, {"noise": noise}, runs=[0], unimodal=False)
    assert toy.scores(found) == toy.scores(first)
    assert found.reused[1].startswith("2 runs made again (mean, concat): ")


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.pop("levels"),
        lambda found: found["noise"].pop("all"),
        lambda found: found["noise"]["a"]["accuracy"].pop(),
        lambda found: found["noise"]["a"]["accuracy"].__setitem__(1, 1.5),
        lambda found: found["missing"]["a"].pop("accuracy"),
        lambda found: found.update(other={}),
        lambda found: found.update(missing={"c": {}}),
        lambda found: found.update(levels=[0, 0.5, 0.2]),
    ],
)
def test_a_damaged_result_is_set_aside_and_made_again(tmp_path, change):
    first = compared(tmp_path, fusions={"mean": Mean}, runs=[0], unimodal=False)
    path = tmp_path / "runs" / "mean-0.json"
    result = next(r for r in first.results if r["method"] == "mean")
    stored = json.loads(path.read_text())
    stored = {key: value for key, value in stored.items() if key in {*result, "identity"}}
    change(stored["robustness"])
    write_json(path, stored)
    with pytest.warns(UserWarning, match="mean-0.json.damaged"):
        again = compared(tmp_path, fusions={"mean": Mean}, runs=[0], unimodal=False)
    assert toy.scores(again) == toy.scores(first)


def test_an_analysis_is_made_besides(tmp_path):
    found = compared(tmp_path, analyse=count_parts, fusions={"mean": Mean}, runs=[0])
    result = next(r for r in found.results if r["method"] == "mean")
    assert result["analysis"] == 3 and result["robustness"]["levels"] == list(SOME)


def count_parts(trained, recipe):
    return len(trained.loaders)


def test_systems_are_measured_as_far_as_they_know_ways():
    def system(known, **more):
        return System(partial(met, known=known), "", "", "", "", **more)

    systems = {"knows": system((0, 1)), "half": system((0,)), "needs": system((), needs=("b",))}
    found = compared(None, fusions=systems, runs=[0], unimodal=False)
    assert not found.failures
    by = {r["method"]: r["robustness"] for r in found.results if r["method"] in systems}
    assert [list(by[name]["missing"]) for name in systems] == [["a", "b", "any"], ["a"], ["a"]]
    assert all("zeros" not in curves for curves in by.values())
    a = by["knows"]["missing"]["a"]["certainty"]
    assert a[0] != a[1] != a[2] and by["half"]["missing"]["a"]["certainty"] == a
    assert len(set(by["needs"]["missing"]["a"]["certainty"])) == 1  # which it does not need
    assert len(set(by["needs"]["noise"]["a"]["certainty"])) == 3


def test_validation_is_scored_where_that_is_asked_for():
    hosts = []

    def build(*args):
        hosts.append(toy.build(*args))
        return hosts[-1]

    method = Method("it", recipe(build=build, part="valid"), toy.concat)
    result = run_fusion(method, 0, analyse=Look(method, 0, SOME))
    curve = result["analysis"]["robustness"]["noise"]["a"]
    assert {name: values[0] for name, values in curve.items()} == result["scores"]


# ---- what is asked


def test_levels_begin_with_clean_data_and_rise():
    assert check_levels(True) == LEVELS == tuple(np.linspace(0, 1, 11).round(1))
    assert check_levels(None) is None and check_levels(False) is None
    assert check_levels([0, 0.5]) == (0.0, 0.5)
    for wrong in ([0.1, 1], [0], [], [0, 0.5, 0.5], [0, 1.1], [0, math.nan], ["0", 1], [0, True]):
        with pytest.raises(ValueError, match="robustness must be levels that begin with 0"):
            check_levels(wrong)


def test_a_modality_without_noise_is_refused_before_any_work():
    with pytest.raises(ValueError, match=r"the recipe of toy has none for b: Recipe\(noise="):
        compared(None, {"noise": {"a": lost}})
    with pytest.raises(ValueError, match="another name than 'all'"):
        noise = {"a": lost, "all": lost}
        compared(None, {"modalities": ("a", "all"), "noise": noise}, unimodal=False)


def test_a_recipe_of_fewer_modalities_needs_noise_for_these_alone():
    methods, _ = gather(recipe(noise={"a": lost}), {"mean": Mean}, unimodal=True)
    assert methods[1].recipe.modalities == ("a",)
    found = compared(None, {"modalities": ("a",), "noise": {"a": lost}}, runs=[0])
    assert not found.failures
