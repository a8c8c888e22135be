"""Diagnoses of trained models, against their own predictions with features replaced by hand."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from deq_fusion.training_structures.comparison import System, compare
from deq_fusion.training_structures.comparison.diagnoses.calibration import (
    calibration,
    classified,
)
from deq_fusion.training_structures.comparison.diagnoses.looking import Diagnosis
from deq_fusion.training_structures.comparison.diagnoses.shapley import intershap
from deq_fusion.training_structures.comparison.methods import Method
from deq_fusion.training_structures.comparison.single_run import run_fusion
from deq_fusion.training_structures.comparison.store import MixedSettings
from deq_fusion.training_structures.files import write_json
from unit_tests.training_structures.comparison import toy
from unit_tests.training_structures.comparison.test_robustness import Mean, count_parts, lost

SETS = [[], ["a"], ["b"], ["a", "b"]]


class Product(toy.Sum):
    def forward(self, features):
        return self.scale * features[0] * features[1]


class Needs(toy.Sum):
    """A fusion that cannot do without its second modality."""

    def forward(self, features):
        if len(features[1]) > 1 and (features[1] == features[1][0]).all():
            raise ZeroDivisionError("no spread\nto divide by")
        return super().forward(features)


def compared(folder, fusions, changes=None, runs=(0,), **asked):
    asked = {"diagnose": True, "progress": False} | asked
    return compare(toy.recipe(**changes or {}), fusions, runs, output=folder, **asked)


def looked_at(fusion, **changes):
    """The result of a run, its diagnoses, and the trained host."""
    hosts = []

    def build(*args):
        hosts.append(toy.build(*args))
        return hosts[-1]

    method = Method("it", toy.recipe(build=build, **changes), fusion)
    result = run_fusion(method, 0, analyse=Diagnosis(method, 0))
    return result, result["analysis"]["diagnoses"], hosts[0].eval()


def whole(part):
    loader = toy.load(0, "ab")[part]
    return [torch.cat(each) for each in zip(*loader, strict=True)]


def by_means():
    """The scored samples' features with every set, absent ones at the training part's mean."""
    *train, _ = whole(0)
    *views, truth = whole(2)
    gone = [x.double().mean(0).float().expand_as(y) for x, y in zip(train, views, strict=True)]
    there = [["a" in s, "b" in s] for s in SETS]
    return [[views[i] if flags[i] else gone[i] for i in range(2)] for flags in there], truth


@pytest.mark.parametrize("fusion", [toy.concat, Product])
def test_scores_of_sets_are_the_models_with_absent_features_at_their_mean(fusion):
    result, found, host = looked_at(fusion)
    features, truth = by_means()
    assert [each["with"] for each in found["sets"]] == SETS and found["not"] == {}
    with torch.no_grad():
        for each, views in zip(found["sets"], features, strict=True):
            expected = toy.metrics(host(views), truth)
            assert each["scores"] == pytest.approx({k: float(v) for k, v in expected.items()})
    assert found["sets"][-1]["scores"] == result["scores"]  # exactly: nothing was drawn


def test_a_fusion_that_knows_absence_is_told_for_scores_and_meets_means_for_interactions():
    _, found, host = looked_at(Mean)
    (nothing, *_), truth = by_means()
    *views, _ = whole(2)
    with torch.no_grad():
        alone = [host.head(views[i]) for i in range(2)]  # the mean of what is there
        expected = [host(nothing), *alone, host(views)]
    for each, prediction in zip(found["sets"], expected, strict=True):
        scores = {k: float(v) for k, v in toy.metrics(prediction, truth).items()}
        assert each["scores"] == pytest.approx(scores)
    assert intershap(np.array(found["strengths"])) < 1e-6  # with means it adds up its modalities


def test_interactions_are_those_of_the_formula_on_centred_logits():
    _, found, host = looked_at(Product)
    with torch.no_grad():
        outputs = [host(views).double().numpy() for views in by_means()[0]]
    nothing, a, b, both = (x - x.mean(1, keepdims=True) for x in outputs)
    pair = (both + nothing - a - b) / 2
    mains = [(a - nothing + both - b) / 2 - pair, (b - nothing + both - a) / 2 - pair]
    expected = [[abs(mains[0]), abs(pair)], [abs(pair), abs(mains[1])]]
    np.testing.assert_allclose(found["strengths"], np.mean(expected, axis=(2, 3)), rtol=1e-4)
    assert intershap(np.array(found["strengths"])) > 0.1


def test_an_additive_network_has_no_interaction():
    _, found, _ = looked_at(toy.concat)
    assert intershap(np.array(found["strengths"])) < 1e-6


def test_calibration_is_that_of_the_scored_part_with_the_temperature_of_validation():
    _, found, host = looked_at(toy.concat)
    parts = []
    for part in (2, 1):
        *views, truth = whole(part)
        with torch.no_grad():
            parts.append(classified(host(views), truth, "classification"))
    expected = calibration(*parts)
    assert found["calibration"].keys() == expected.keys()
    np.testing.assert_allclose(found["calibration"]["bins"], expected["bins"], atol=1e-6)
    for name in expected.keys() - {"bins"}:
        assert found["calibration"][name] == pytest.approx(expected[name], rel=1e-4)


def test_validation_that_is_scored_gives_no_temperature():
    _, found, _ = looked_at(toy.concat, part="valid")
    assert "temperature" not in found["calibration"]


# ---- what cannot be told


def test_what_cannot_be_told_is_a_sentence_and_the_runs_count():
    found = compared(None, {"needs": Needs, "concat": toy.concat})
    assert not found.failures
    by = {r["method"]: r.get("diagnoses") for r in found.results}
    assert by["majority"] is None
    assert by["only a"].keys() == {"not", "calibration"}
    assert "one modality" in by["only a"]["not"]["modalities"]
    assert by["needs"]["not"] == {"modalities": "cannot do without a and b (no spread)"}
    assert {"calibration"} == by["needs"].keys() - {"not"}
    said = " ".join(str(found).split())
    assert "Not told: anything of majority, which is a floor" in said
    assert "of only a, only b, each of which has one modality" in said
    assert "of needs, which cannot do without a and b (no spread)" in said


def test_numbers_have_no_calibration():
    recipe = toy.regression_recipe()
    asked = {"diagnose": True, "progress": False, "unimodal": False}
    found = compare(recipe, {"concat": toy.concat}, 1, **asked)
    (result,) = [r for r in found.results if r["method"] == "concat"]
    assert result["diagnoses"]["not"].keys() == {"calibration"}
    assert "predicts numbers" in str(found)


def test_a_system_is_judged_by_its_calibration_alone():
    system = System(partial(replace, build=build_alone), "", "", "", "")
    found = compared(None, {"own": system}, unimodal=False)
    (result,) = [r for r in found.results if r["method"] == "own"]
    assert result["diagnoses"].keys() == {"not", "calibration"}
    assert "a system with a network of its own" in result["diagnoses"]["not"]["modalities"]


def build_alone(fusion, train):
    return toy.Host(toy.Concat(), 6, 2)


def test_a_part_of_one_class_is_answered():
    found = compared(None, {"concat": toy.concat}, {"load": load_ones}, unimodal=False)
    (result,) = [r for r in found.results if r["method"] == "concat"]
    assert "samples of one class" in result["diagnoses"]["not"]["calibration"]
    assert "sets" in result["diagnoses"]


def load_ones(run, modalities):
    loaders = toy.load(run, modalities)
    loaders[0].dataset.dataset.tensors[-1].fill_(1)
    return loaders


def test_too_many_modalities_are_refused_before_any_work():
    names = tuple("abcdefghijk")
    with pytest.raises(ValueError, match="of 10 at most, got 11, which have 2048 sets"):
        compared(None, {"sum": toy.Sum}, {"modalities": names}, unimodal=False)


# ---- asked for, stored, and used again


def test_not_being_asked_for_they_change_nothing(tmp_path):
    plain = compared(tmp_path / "plain", {"mean": Mean}, diagnose=False)
    asked = compared(tmp_path / "asked", {"mean": Mean})
    assert toy.scores(plain) == toy.scores(asked)
    for method, run in toy.scores(plain):
        path = f"runs/{method}-{run}.json"
        one, two = (json.loads((tmp_path / k / path).read_text()) for k in ("plain", "asked"))
        added = {"diagnose"} if method != "majority" else set()
        assert "diagnoses" not in one and ("diagnoses" in two) == bool(added)
        for there, given in ((one["settings"], two["settings"]),
                             (one["identity"]["given"], two["identity"]["given"])):  # fmt: skip
            assert given.keys() - there.keys() == added
            assert {key: given[key] for key in there} == there
    with pytest.raises(MixedSettings, match="diagnose was None and is True"):
        compared(tmp_path / "plain", {"mean": Mean})


def test_stored_runs_are_used_again_also_without_their_diagnoses(tmp_path):
    first = compared(tmp_path, {"mean": Mean})
    assert compared(tmp_path, {"mean": Mean}).results == first.results
    plain = compared(tmp_path, {"mean": Mean}, diagnose=False)
    assert plain.reused[0].startswith("4 of 4 runs reused") and plain.diagnoses() == []
    assert not any("diagnoses" in result for result in plain.results)


def test_they_are_made_besides_robustness_and_an_analysis():
    asked = {"robustness": (0, 1), "analyse": count_parts, "unimodal": False}
    found = compared(None, {"mean": Mean}, {"noise": {"a": lost, "b": lost}}, **asked)
    (result,) = [r for r in found.results if r["method"] == "mean"]
    assert result["analysis"] == 3 and result["robustness"]["levels"] == [0, 1]
    assert result["diagnoses"]["sets"][-1]["scores"] == result["scores"]
    (alone,) = [r for r in compared(None, {"mean": Mean}, unimodal=False).results
                if r["method"] == "mean"]  # fmt: skip
    assert alone["diagnoses"] == result["diagnoses"]


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.pop("not"),
        lambda found: found.pop("strengths"),
        lambda found: found.update(other=1),
        lambda found: found["sets"].pop(),
        lambda found: found["sets"][1].update({"with": ["b"]}),
        lambda found: found["sets"][1]["scores"].update(accuracy=1.5),
        lambda found: found["sets"][1]["scores"].pop("accuracy"),
        lambda found: found["strengths"][0].pop(),
        lambda found: found["calibration"].pop("ece"),
        lambda found: found["calibration"]["bins"].pop(),
        lambda found: found["calibration"].update(brier=float("nan")),
    ],
)
def test_damaged_diagnoses_are_set_aside_and_made_again(stored, tmp_path, change):
    first, content = stored
    folder = tmp_path / "runs"
    folder.mkdir()
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    path = folder / "mean-0.json"
    result = next(r for r in first.results if r["method"] == "mean")
    kept = json.loads(path.read_text())
    kept = {key: value for key, value in kept.items() if key in {*result, "identity"}}
    change(kept["diagnoses"])
    write_json(path, kept)
    with pytest.warns(UserWarning, match="mean-0.json.damaged"):
        again = compared(tmp_path, {"mean": Mean}, unimodal=False)
    assert toy.scores(again) == toy.scores(first)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    found = compared(folder, {"mean": Mean}, unimodal=False)
    files = [path for path in folder.rglob("*.json") if path.is_file()]
    return found, {str(path.relative_to(folder)): path.read_text() for path in files}


def test_features_that_are_no_list_of_modalities_are_answered():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.fusion, self.head = toy.Concat(), nn.Linear(6, 2)

        def forward(self, views):
            return self.head(self.fusion([torch.cat(views, 1)]))

    def build(fusion, train):
        host = Odd()
        host.fusion = fusion([6], 3)[0]
        return host

    method = Method("it", toy.recipe(build=build), toy.concat)
    result = run_fusion(method, 0, analyse=Diagnosis(method, 0))
    why = result["analysis"]["diagnoses"]["not"]["modalities"]
    assert why == "has a fusion that does not get a list of 2 features, one a modality"
