"""The study of convergence: what it trains, and what it measures of a trained model."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from deq_fusion.examples.digits.recipe import recipe as digits
from deq_fusion.examples.studies.convergence import summary as curves
from deq_fusion.examples.studies.convergence.measure import LIMITS, TOLERANCES, measure
from deq_fusion.examples.studies.convergence.rows import ROWS, TIED
from deq_fusion.examples.studies.study import INJECTIONS, entries
from deq_fusion.fusions.analysis import spectral_radii, trace
from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.training_structures.comparison import Score
from deq_fusion.training_structures.comparison.methods import Method
from deq_fusion.training_structures.comparison.single_run import run_fusion
from deq_fusion.training_structures.evaluation import evaluate, inputs_of

STEPS, SAMPLES = 6, 150


def trained(row, injection="scale_free"):
    """Returns what `measure` gets, and what it returns, of a row trained for an epoch."""
    recipe = replace(digits(), epochs=1).treating({row: INJECTIONS[injection]})
    caught = {}

    def keep(model, recipe):
        caught["measured"] = measure(model, recipe, steps=STEPS, samples=SAMPLES)
        caught["trained"], caught["recipe"] = model, recipe
        return None

    run_fusion(Method(row, recipe, entries(ROWS, injection)[row]), 0, analyse=keep)
    return caught["trained"], caught["recipe"], caught["measured"]


@pytest.fixture(scope="module")
def no_penalty():
    return trained("no_penalty")


@pytest.fixture(scope="module")
def tied():
    return trained("tied", "raw")


def features_of(model):
    (fusion,) = model.fusions
    features, _ = inputs_of(fusion, model.model, model.loaders[2], enough=SAMPLES)
    return fusion, [x[:SAMPLES] for x in features]


def four_digits(values):
    return [float(f"{v:.4g}") for v in values]


@pytest.mark.parametrize("row", ["no_penalty", "tied"])
def test_traces_are_means_over_the_samples_of_the_scored_part(row, request):
    model, _, found = request.getfixturevalue(row)
    fusion, features = features_of(model)
    assert found["samples"] == SAMPLES == len(features[0])
    solves = {
        f"{way} {s}" for way in ("joint", "block-wise") for s in ("anderson", "broyden", "picard")
    }
    assert found["traces"].keys() == solves
    for solve, blocks in found["traces"].items():
        way, solver = solve.split()
        direct = trace(fusion, features, joint=way == "joint", solver=solver, steps=STEPS)
        assert blocks.keys() == direct.keys()
        for block, quantities in blocks.items():
            for quantity, values in quantities.items():
                rows = getattr(direct[block], quantity).flatten(1).double().numpy()
                assert values == four_digits(np.nanmean(rows, axis=1)) and len(values) == STEPS


def test_radii_are_those_of_the_samples(no_penalty):
    model, _, found = no_penalty
    fusion, features = features_of(model)
    torch.manual_seed(0)
    for state, radii in spectral_radii(fusion, features).items():
        kept = found["radii"][state]
        assert kept["mean"] == pytest.approx(float(radii.mean()), rel=0.02)
        assert kept["largest"] == pytest.approx(float(radii.max()), rel=0.1)
        assert kept["contracts"] == pytest.approx(float((radii < 1).float().mean()), abs=1e-4)


def test_early_scores_are_those_of_a_fusion_built_with_these_limits(no_penalty):
    model, recipe, found = no_penalty
    (fusion,) = model.fusions
    assert found["early"]["tolerance"].keys() == {f"{tol:g}" for tol in TOLERANCES}
    assert found["early"]["limit"].keys() == {str(k) for k in LIMITS}
    settings = [({"tol": 0.3}, found["early"]["tolerance"]["0.3"])]
    settings += [({"tol": 0.0, "max_steps": 2}, found["early"]["limit"]["2"])]
    for options, kept in settings:
        other = DEQFusion(fusion.input_dims, fusion.dim, on_failure="ignore", **options)
        other.load_state_dict(fusion.state_dict())
        model.model.fuse, before = other, model.model.fuse
        scores = evaluate(model.model, model.loaders[1], metrics=recipe.metrics)
        model.model.fuse = before
        assert {k: kept[k] for k in scores} == pytest.approx(scores, rel=1e-3)
        other(features_of(model)[1])
        assert kept["steps"] == pytest.approx(float(other.info.steps.double().mean()), rel=0.1)


def test_measuring_leaves_the_fusion_as_it_was(no_penalty, tied):
    assert no_penalty[0].fusions[0].equilibrium.tol == DEQFusion([4], 4).equilibrium.tol
    assert no_penalty[0].fusions[0].equilibrium.max_steps == DEQFusion([4], 4).equilibrium.max_steps
    assert tied[0].fusions[0].unroll == TIED


def test_a_tied_map_is_scored_by_its_steps(tied):
    model, recipe, found = tied
    assert found["early"].keys() == {"limit", "share"} and found["early"]["share"] is None
    trained_with = evaluate(model.model, model.loaders[1], metrics=recipe.metrics)
    kept = found["early"]["limit"][str(TIED)]
    assert {k: kept[k] for k in trained_with} == pytest.approx(trained_with, rel=1e-3)
    assert [found["early"]["limit"][str(k)]["steps"] for k in LIMITS] == list(LIMITS)
    assert found["early"]["limit"]["1"] != kept


def test_a_diverging_solve_is_told(no_penalty, monkeypatch):
    def diverging(*args, solver, **options):
        if solver == "broyden":
            raise FloatingPointError("iterates must stay finite")
        return trace(*args, solver=solver, **options)

    monkeypatch.setattr("deq_fusion.examples.studies.convergence.measure.trace", diverging)
    found = measure(*no_penalty[:2], steps=2, samples=10)
    assert found["traces"]["joint broyden"] == {"failed": "iterates must stay finite"}
    assert curves.trace_curve(curves.Measured([found], None), "joint broyden", "residual") is None
    assert (
        curves.trace_curve(curves.Measured([found], None), "joint picard", "residual").runs[0] == 1
    )


def test_a_part_that_is_not_finite_is_told_and_the_scores_are_kept(no_penalty, monkeypatch):
    def diverging(*args, **options):
        raise FloatingPointError("iterates must stay finite")

    monkeypatch.setattr("deq_fusion.examples.studies.convergence.measure.spectral_radii", diverging)
    monkeypatch.setattr("deq_fusion.examples.studies.convergence.measure.solved_with", diverging)
    found = measure(*no_penalty[:2], steps=2, samples=10)
    assert found["radii"] == found["early"] == {"failed": "iterates must stay finite"}
    rows = curves.Measured([found], None)
    assert curves.radius_curve(rows, "mean") is None
    assert curves.early_curve(rows, "limit", Score("accuracy")) is None
    both = curves.Measured([found, no_penalty[2]], None)
    assert curves.radius_curve(both, "mean").runs.tolist() == [1] * 5


def test_samples_that_do_not_converge_have_no_radius(no_penalty, monkeypatch):
    fusion, features = features_of(no_penalty[0])
    radii = spectral_radii(fusion, features)
    radii["z_1"][: SAMPLES // 2] = torch.nan
    radii["z_2"][:] = torch.nan
    monkeypatch.setattr(
        "deq_fusion.examples.studies.convergence.measure.spectral_radii", lambda *_: radii
    )
    found = measure(*no_penalty[:2], steps=2, samples=SAMPLES)["radii"]
    rest = radii["z_1"][SAMPLES // 2 :]
    assert found["z_1"]["converged"] == 0.5
    assert found["z_1"]["largest"] == pytest.approx(float(rest.max()), rel=1e-3)
    assert found["z_2"] == {"mean": None, "largest": None, "contracts": None, "converged": 0.0}
    json.dumps(found, allow_nan=False)


def test_a_fusion_of_another_kind_is_compared_and_not_measured():
    class Trained:
        fusions = [torch.nn.Identity()]

    assert measure(Trained(), None, steps=2, samples=2) == {}
    Trained.fusions = [torch.nn.Identity()] * 2
    with pytest.raises(ValueError, match="builds one fusion, got 2"):
        measure(Trained(), None, steps=2, samples=2)


def test_the_released_start_is_that_of_linear_maps():
    torch.manual_seed(0)
    fusion = DEQFusion([64, 64], 64, equations="paper", start="released")
    bound = 1 / math.sqrt(64)
    z, x, other = torch.randn(3, 5, 64)
    for i in range(2):
        first, second = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)
        cells = fusion.unimodal
        with torch.no_grad():
            first.weight.copy_(cells.weight1[i].T), first.bias.copy_(cells.bias1[i, 0])
            second.weight.copy_(cells.weight2[i].T), second.bias.copy_(cells.bias2[i, 0])
        for linear in (first.requires_grad_(False), second.requires_grad_(False)):
            assert linear.weight.abs().max() <= bound and linear.bias.abs().max() <= bound
            assert float(linear.weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
            assert float(linear.bias.std()) > 0
        norm = torch.nn.GroupNorm(4, 64)
        expected = norm(torch.relu(norm(second(torch.relu(norm(first(z)))) + x)))
        f = cells.map(x.expand(2, -1, -1), None, *cells.inputs())
        torch.testing.assert_close(f(z.expand(2, -1, -1).contiguous())[i], expected)
    fuse = fusion.fuse
    gated = (fuse.gates(z, other[None])[:, 0]) * z
    expected = norm(torch.relu(gated @ fuse.weight.T + fuse.bias + x))
    context = fuse.context(other[None], None, None)
    f = fuse.map(*context, torch.ones(1, 1), None, x, *fuse.inputs())
    torch.testing.assert_close(f(z), expected)
    assert fuse.weight.abs().max() <= bound and float(fuse.gate_bias.detach().std()) > 0
