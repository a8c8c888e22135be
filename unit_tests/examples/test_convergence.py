"""The study of convergence: what it measures of a trained model, and what it writes."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from examples import drawing
from examples.convergence import __main__ as convergence
from examples.convergence import curves
from examples.convergence.measure import LIMITS, TOLERANCES, measure
from examples.convergence.rows import ROWS, TIED, start_as_linear
from examples.digits.recipe import recipe as digits
from examples.studies import INJECTIONS, entries
from fusions.analysis import spectral_radii, trace
from fusions.deq import DEQFusion
from training_structures.comparison import Score
from training_structures.comparison.methods import Method
from training_structures.comparison.single_run import run_fusion
from training_structures.evaluation import evaluate, inputs_of

STEPS, SAMPLES = 6, 150


class Args:
    epochs = 1


def trained(row, injection="scale_free"):
    """Returns what `measure` gets, and what it returns, of a row trained for an epoch."""
    recipe = digits(Args).treating({row: INJECTIONS[injection]})
    caught = {}

    def keep(model, recipe):
        caught["measured"] = measure(model, recipe, steps=STEPS, samples=SAMPLES)
        caught["trained"], caught["recipe"] = model, recipe
        return None

    run_fusion(Method(row, recipe, entries(ROWS, injection)[row]), 0, analyse=keep)
    return caught["trained"], caught["recipe"], caught["measured"]


@pytest.fixture(scope="module")
def full():
    return trained("full")


@pytest.fixture(scope="module")
def tied():
    return trained("tied", "raw")


def features_of(model):
    (fusion,) = model.fusions
    features, _ = inputs_of(fusion, model.model, model.loaders[2], enough=SAMPLES)
    return fusion, [x[:SAMPLES] for x in features]


def four_digits(values):
    return [float(f"{v:.4g}") for v in values]


@pytest.mark.parametrize("row", ["full", "tied"])
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


def test_radii_are_those_of_the_samples(full):
    model, _, found = full
    fusion, features = features_of(model)
    torch.manual_seed(0)
    for state, radii in spectral_radii(fusion, features).items():
        kept = found["radii"][state]
        assert kept["mean"] == pytest.approx(float(radii.mean()), rel=0.02)
        assert kept["largest"] == pytest.approx(float(radii.max()), rel=0.1)
        assert kept["contracts"] == pytest.approx(float((radii < 1).float().mean()), abs=1e-4)


def test_early_scores_are_those_of_a_fusion_built_with_these_limits(full):
    model, recipe, found = full
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


def test_measuring_leaves_the_fusion_as_it_was(full, tied):
    assert full[0].fusions[0].equilibrium.tol == DEQFusion([4], 4).equilibrium.tol
    assert full[0].fusions[0].equilibrium.max_steps == DEQFusion([4], 4).equilibrium.max_steps
    assert tied[0].fusions[0].unroll == TIED


def test_a_tied_map_is_scored_by_its_steps(tied):
    model, recipe, found = tied
    assert found["early"].keys() == {"limit", "share"} and found["early"]["share"] is None
    trained_with = evaluate(model.model, model.loaders[1], metrics=recipe.metrics)
    kept = found["early"]["limit"][str(TIED)]
    assert {k: kept[k] for k in trained_with} == pytest.approx(trained_with, rel=1e-3)
    assert [found["early"]["limit"][str(k)]["steps"] for k in LIMITS] == list(LIMITS)
    assert found["early"]["limit"]["1"] != kept


def test_a_diverging_solve_is_told(full, monkeypatch):
    def diverging(*args, solver, **options):
        if solver == "broyden":
            raise FloatingPointError("iterates must stay finite")
        return trace(*args, solver=solver, **options)

    monkeypatch.setattr("examples.convergence.measure.trace", diverging)
    found = measure(*full[:2], steps=2, samples=10)
    assert found["traces"]["joint broyden"] == {"failed": "iterates must stay finite"}
    assert curves.trace_curve(curves.Measured([found], None), "joint broyden", "residual") is None
    assert (
        curves.trace_curve(curves.Measured([found], None), "joint picard", "residual").runs[0] == 1
    )


def test_a_part_that_is_not_finite_is_told_and_the_scores_are_kept(full, monkeypatch):
    def diverging(*args, **options):
        raise FloatingPointError("iterates must stay finite")

    monkeypatch.setattr("examples.convergence.measure.spectral_radii", diverging)
    monkeypatch.setattr("examples.convergence.measure.solved_with", diverging)
    found = measure(*full[:2], steps=2, samples=10)
    assert found["radii"] == found["early"] == {"failed": "iterates must stay finite"}
    rows = curves.Measured([found], None)
    assert curves.radius_curve(rows, "mean") is None
    assert curves.early_curve(rows, "limit", Score("accuracy")) is None
    both = curves.Measured([found, full[2]], None)
    assert curves.radius_curve(both, "mean").runs.tolist() == [1] * 5


def test_samples_that_do_not_converge_have_no_radius(full, monkeypatch):
    fusion, features = features_of(full[0])
    radii = spectral_radii(fusion, features)
    radii["z_1"][: SAMPLES // 2] = torch.nan
    radii["z_2"][:] = torch.nan
    monkeypatch.setattr("examples.convergence.measure.spectral_radii", lambda *_: radii)
    found = measure(*full[:2], steps=2, samples=SAMPLES)["radii"]
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
    fusion = DEQFusion([64, 64], 64, injection="raw")
    start_as_linear(fusion)
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
        found = cells.step(z.expand(2, -1, -1), x.expand(2, -1, -1), None, *cells.tensors())[i]
        torch.testing.assert_close(found, expected)
    fuse = fusion.fuse
    gated = (fuse.gates(z, other[None])[:, 0]) * z
    expected = norm(torch.relu(gated @ fuse.weight.T + fuse.bias + x))
    context = fuse.context(other[None], None, None)
    found = fuse.step(z, *context, torch.ones(1, 1), None, x, *fuse.tensors())
    torch.testing.assert_close(found, expected)
    assert fuse.weight.abs().max() <= bound and float(fuse.gate_bias.detach().std()) > 0


def run_of(residual, steps=("1", str(TIED), "40"), scores=(0.5, 0.6, 0.7), solved=True):
    early = {
        "limit": {k: {"accuracy": v, "steps": 1.0} for k, v in zip(steps, scores, strict=True)}
    }
    early |= {"tolerance": early["limit"]} if solved else {}
    early["share"] = None
    traces = {"joint picard": {"joint": {"residual": residual, "difference": residual}}}
    return {
        "traces": traces,
        "early": early,
        "radii": {"z_1": {"mean": 0.1, "largest": residual[0]}},
    }


def test_runs_are_averaged_as_logarithms_as_far_as_they_go():
    runs = [run_of([1.0, 0.1, 0.01]), run_of([0.01, 0.001]), run_of([0.1, 0.1, 0.0])]
    runs = curves.Measured(runs, None)
    curve = curves.trace_curve(runs, "joint picard", "residual")
    assert curve.x == [1, 2, 3] and curve.runs.tolist() == [3, 3, 2]
    assert curve.mean == pytest.approx([0.1, 10 ** (-5 / 3), 10 ** ((-2 - 12) / 2)])
    logs = np.array([0, -2, -1])
    half = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / math.sqrt(3)
    assert np.log10([curve.low[0], curve.high[0]]) == pytest.approx([-1 - half, -1 + half])
    assert curves.radius_curve(runs, "largest").mean == pytest.approx([0.1])


def test_gains_are_against_the_most_exact_setting_of_the_same_run():
    score = Score("accuracy")  # in its own unit, as the metrics have it
    solved = [run_of([1.0]), run_of([1.0], scores=(0.8, 0.9, 0.9))]
    solved = curves.Measured(solved, None)
    assert curves.early_curve(solved, "limit", score).mean == pytest.approx([-0.15, -0.05, 0])
    assert curves.early_curve(solved, "limit", score, gain=False).mean == pytest.approx(
        [0.65, 0.75, 0.8]
    )
    tied = curves.Measured([run_of([1.0], solved=False)], None)
    assert curves.early_curve(tied, "limit", score).mean == pytest.approx([-0.1, 0, 0.1])
    assert curves.early_curve(tied, "tolerance", score) is None


def test_bands_are_students_intervals_and_skip_what_is_missing():
    runs = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan], [8.0, 6.0, 5.0]])
    mean, low, high = drawing.mean_band(runs)
    assert mean == pytest.approx([4, 4, 5])
    for at, values in enumerate(([1, 3, 8], [2, 6])):
        expected = stats.t.interval(
            0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values)
        )
        assert (low[at], high[at]) == pytest.approx(expected)
    assert math.isnan(low[2]) and math.isnan(high[2])
    _, shared, _ = drawing.mean_band(runs, test_share=0.5)  # runs that share samples
    assert mean[1] - shared[1] == pytest.approx(
        (mean[1] - low[1]) * math.sqrt((1 / 2 + 0.5) / (1 / 2))
    )


def test_the_command_writes_tables_pictures_and_numbers_and_trains_nothing_twice(tmp_path, capsys):
    arguments = "--dataset digits --epochs 1 --runs 2 --fusions full,tied --steps 12".split()
    arguments += ["--samples", "40", "--output", str(tmp_path)]
    text = convergence.main(arguments)
    runs = sorted(tmp_path.glob("*/runs/*.json"))
    assert len(runs) == 8  # two injections, two rows, two runs
    assert text in capsys.readouterr().out
    names = {f"{name}.{kind}" for name in convergence.PICTURES for kind in ("png", "svg")}
    names |= {"convergence.md", "traces.csv", "radii.csv", "early.csv"}
    assert names <= {path.name for path in tmp_path.iterdir()}
    first = {path: path.stat().st_mtime_ns for path in runs}
    pictures = {name: (tmp_path / name).read_bytes() for name in names}
    assert convergence.main(arguments) == text
    assert first == {path: path.stat().st_mtime_ns for path in runs}
    assert pictures == {name: (tmp_path / name).read_bytes() for name in names}
    check_traces(tmp_path, text)


def check_traces(folder, text):
    """The CSV is the geometric mean of what the runs hold, and the table shows it."""
    lines = list(csv.DictReader((folder / "traces.csv").read_text().splitlines()))
    chosen = {"injection": "raw", "row": "full", "solve": "joint anderson", "quantity": "residual"}
    line = next(x for x in lines if chosen.items() <= x.items() and x["step"] == "5")
    values = []
    for run in (0, 1):
        stored = json.loads((folder / "raw" / "runs" / f"full-{run}.json").read_text())
        values.append(stored["analysis"]["traces"]["joint anderson"]["joint"]["residual"][4])
    expected = math.sqrt(values[0] * values[1])
    assert float(line["mean"]) == pytest.approx(expected, rel=1e-4)
    shown = next(x for x in text.splitlines() if "raw " in x and "full " in x and "residual" in x)
    assert f"{expected:.1e}" in shown
    assert {x["step"] for x in lines} == {str(k) for k in range(1, 13)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--steps 0", "--steps: must be an integer of at least 1, got 0"),
        ("--samples x", "--samples: must be an integer of at least 1, got x"),
        ("--injection other", "unknown ['other']; choose from scale_free, raw"),
        ("--fusions concat", "unknown ['concat']; choose from full, penalty"),
        ("--option tied.unroll=3", "--option tied.unroll is what makes this row"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, message, capsys):
    with pytest.raises(SystemExit):
        convergence.main(wrong.split())
    assert message in capsys.readouterr().err
