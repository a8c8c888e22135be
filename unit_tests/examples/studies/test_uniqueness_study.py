"""The study of uniqueness: its looks, what it makes of them, and what the command writes."""

import json
import math
from argparse import Namespace
from dataclasses import replace
from functools import partial

import pytest
import torch
from scipy import stats

from deq_fusion.examples.digits.recipe import recipe as digits
from deq_fusion.examples.studies.study import INJECTIONS, entries
from deq_fusion.examples.studies.uniqueness import __main__ as study
from deq_fusion.examples.studies.uniqueness import measure as module
from deq_fusion.examples.studies.uniqueness.estimate import seconds_of
from deq_fusion.examples.studies.uniqueness.measure import (
    batches_of,
    look,
    looks_of,
    measure,
    trained_with_looks,
)
from deq_fusion.examples.studies.uniqueness.rows import ROWS
from deq_fusion.examples.studies.uniqueness.summary import SELECTED, differences, points
from deq_fusion.fusions.analysis import Uniqueness, uniqueness
from deq_fusion.training_structures.comparison import Score
from deq_fusion.training_structures.comparison.methods import Method
from deq_fusion.training_structures.comparison.single_run import run_fusion
from deq_fusion.training_structures.evaluation import evaluate, inputs_of

HOW = {"starts": 1, "max_steps": 80}


def trained(row, epochs=1, looks=True, **how):
    """Returns the model of a row, and what is measured of it."""
    recipe = replace(digits(), modalities=("top left", "bottom right"), epochs=epochs)
    recipe = recipe.treating({row: INJECTIONS["scale_free"]})
    if looks:
        recipe = replace(recipe, train=partial(trained_with_looks, recipe.train, 20, HOW))
    caught = {}

    def keep(model, recipe):
        caught["model"], caught["recipe"] = model, recipe
        return measure(model, recipe, samples=20, how=HOW)

    method = Method(row, recipe, entries(ROWS, "scale_free")[row])
    result = run_fusion(method, 0, analyse=keep, **how)
    return caught["model"], caught["recipe"], result["analysis"]


@pytest.fixture(scope="module")
def few(few_digits):
    """Few samples for all that is trained here."""


@pytest.fixture(scope="module")
def trained_deq(few):
    return trained("deq", epochs=2)


def test_looks_are_before_training_and_at_powers_of_two(trained_deq):
    model, _, found = trained_deq
    assert list(found["looks"]) == ["0", "1", "2"]
    assert found["selected"]["epoch"] == model.history.best_epoch
    torch.manual_seed(0)
    names = set(look(uniqueness(model.fusions[0], features_of(model), **HOW)))
    assert set(found["looks"]["0"]) <= names and set(found["selected"]) == names | {"epoch"}


def features_of(model, samples=20):
    batches = batches_of(model.loaders[1], samples)
    return inputs_of(model.fusions[0], model.model, batches)[0]


def test_the_selected_model_is_looked_at(trained_deq):
    model, _, found = trained_deq
    features = features_of(model)
    assert found["samples"] == len(features[0]) == 20
    direct = uniqueness(model.fusions[0], features, **HOW)
    assert found["selected"]["several"] == pytest.approx(direct.share(direct.several))
    assert found["selected"]["judged"] == pytest.approx(float(direct.judged.double().mean()))
    assert found["selected"]["radius_largest"] == pytest.approx(
        float(direct.radius.max()), rel=0.05
    )
    for name, share in found["converged"].items():
        assert share == pytest.approx(direct.converged[name], abs=1e-3)


def test_scores_are_those_of_each_solution(trained_deq):
    model, recipe, found = trained_deq
    batches = batches_of(model.loaders[1], 20)
    own = evaluate(model.model, batches, metrics=recipe.metrics)
    assert found["scores"]["own"]["accuracy"] == pytest.approx(own["accuracy"], abs=1e-4)
    assert len(found["scores"]) == 1 + 3 * 2
    batches = batches_of(model.loaders[1], 150)
    assert [len(batch[-1]) for batch in batches] == [128, 22]
    truth = torch.cat([batch[-1] for batch in batches])
    fused, label = 9 * torch.randn(2, 2, 150, 64), torch.randint(-1, 2, (2, 2, 150))
    solves = ("anderson", "picard"), fused.unsqueeze(3), label
    ends = Uniqueness(*solves, radius=torch.zeros(150), spread=torch.zeros(150), fused=fused)
    scores = module._scores(model.model, model.fusions[0], batches, ends, recipe)
    head = model.model.head
    with torch.no_grad():
        features, _ = inputs_of(model.fusions[0], model.model, batches)
        plain = model.fusions[0](features)
        for k, s in ((0, 0), (0, 1), (1, 0), (1, 1)):
            put = torch.where(label[k, s].unsqueeze(1) >= 0, fused[k, s], plain)
            expected = (head(put).argmax(1) == truth).double().mean().item()
            got = scores[f"{ends.solvers[k]} {s}"]["accuracy"]
            assert got == pytest.approx(expected, abs=1e-3) and got != scores["own"]["accuracy"]
    again = module._scores(model.model, model.fusions[0], batches, ends, recipe)
    assert again == scores  # nothing stays behind


@pytest.mark.slow
def test_looks_change_nothing_of_a_training_and_outlive_an_interruption(few, tmp_path):
    plain, _, _ = trained("deq", epochs=2, looks=False)
    whole, _, found = trained("deq", epochs=2)
    for one, other in zip(plain.model.parameters(), whole.model.parameters(), strict=True):
        assert one.equal(other)
    path = tmp_path / "run.ckpt"
    trained("deq", epochs=1, checkpoint=path)
    resumed, _, again = trained("deq", epochs=2, checkpoint=path)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert one.equal(other)
    assert again == found


def test_the_map_with_one_fixed_point_has_one(few):
    _, _, found = trained("contractive")
    looks = [*found["looks"].values(), found["selected"]]
    assert len(looks) == 3
    assert all(x["several"] == 0 and x["radius_largest"] < 0.9 for x in looks)
    scores = [of["accuracy"] for of in found["scores"].values()]
    assert max(scores) == pytest.approx(min(scores), abs=1e-3)


def test_a_map_that_diverges_is_told_and_other_fusions_are_left_alone(few, monkeypatch):
    def diverges(*args, **options):
        raise FloatingPointError("not finite")

    monkeypatch.setattr(module, "uniqueness", diverges)
    _, _, found = trained("deq")
    assert found == {"looks": {}, "failed": "not finite"}
    assert points([found], "several") == [] and differences([found], Score("accuracy"))["own"] == []


def test_what_is_no_number_is_left_out():
    label = torch.full((2, 2, 3), -1)
    nothing = Uniqueness(
        ("anderson", "picard"),
        torch.zeros(2, 2, 3, 1),
        label,
        torch.full((3,), math.nan),
        torch.zeros(3),
    )
    assert look(nothing) == {"judged": 0}


def test_looks_are_read_from_the_records_of_epochs():
    records = [
        {"epoch": 1, "unique_several": 0.5, "unique_before_several": 0.25},
        {"epoch": 2, "unique_several": 0.75},
        {"epoch": 3},
    ]
    found = looks_of(Namespace(epochs=records))
    assert found == {"0": {"several": 0.25}, "1": {"several": 0.5}, "2": {"several": 0.75}}


def run_of(looks, selected, scores=(0.5, 0.25, 0.75), share=None):
    return {
        "looks": {k: {"several": x} for k, x in looks.items()},
        "selected": {"epoch": 1, "several": selected},
        "scores": {str(i): {"accuracy": x} for i, x in enumerate(scores)},
        "share": share,
    }


def test_moments_are_means_over_the_runs_that_reached_them():
    runs = [run_of({"0": 0.0, "16": 0.5}, 0.5), run_of({"0": 0.5, "2": 0.25}, 0.0)]
    runs.append(run_of({"0": 1.0}, 0.25))
    found = {p.when: p for p in points(runs, "several")}
    assert list(found) == ["0", "2", "16", SELECTED]
    assert [found[k].runs for k in found] == [3, 1, 1, 3]
    values = [0.0, 0.5, 1.0]
    expected = stats.t.interval(0.95, 2, loc=0.5, scale=stats.sem(values))
    assert (found["0"].low, found["0"].high) == pytest.approx(expected)
    assert found[SELECTED].mean == 0.25 and math.isnan(found["2"].low)
    shared = [{**run, "share": 0.5} for run in runs]
    wider = next(p for p in points(shared, "several") if p.when == "0")
    factor = math.sqrt((1 / 3 + 0.5) / (1 / 3))
    assert 0.5 - wider.low == pytest.approx(factor * (0.5 - expected[0]))


def test_a_range_is_highest_minus_lowest_of_the_solves_without_the_model_as_it_stands():
    runs = [run_of({}, 0.0, (0.0, 0.25, 0.75)), run_of({}, 0.0, (0.5, 0.5, None))]
    found = differences(runs, Score("accuracy"))
    assert found == {"own": [0.0], "lowest": [0.25], "highest": [0.75], "range": [0.5]}


def test_an_estimate_counts_epochs_and_looks():
    moments = [0, *(2**k for k in range(10) if 2**k <= 20), "selected"]
    assert seconds_of(3, 20, 2.0, 6.0) == 3 * (20 * 2.0 + len(moments) * 2.0)


@pytest.mark.slow
def test_the_command_writes_tables_pictures_and_numbers_and_trains_nothing_twice(
    few, tmp_path, capsys
):
    arguments = "--dataset digits --epochs 1 --runs 1 --samples 10 --starts 1".split()
    arguments += ["--max-steps", "60", "--modalities", "top left,bottom right"]
    arguments += ["--injection", "scale_free", "--fusions", "deq", "--output", str(tmp_path)]
    found = study.main(arguments)
    said = capsys.readouterr()
    assert "runs left: 1, of at most 1 epochs" in said.err and str(found) in said.out
    runs = sorted(tmp_path.glob("*/runs/*.json"))
    assert len(runs) == 1
    names = {"several.png", "several.svg", "solutions.png", "looks.csv", "solutions.csv"}
    assert names | {"uniqueness.md", "tables.json"} <= {p.name for p in tmp_path.iterdir()}
    first = {path: path.stat().st_mtime_ns for path in runs}
    _, comparisons = study.STUDY.run(arguments)
    assert study.STUDY.summary(comparisons) == found
    assert first == {path: path.stat().st_mtime_ns for path in runs}
    assert "runs left" not in capsys.readouterr().err
    stored = json.loads(runs[0].read_text())["analysis"]
    table = next(table for table in found.tables if table.name == "uniqueness")
    for column, quantity in (("several fixed points", "several"), ("judged", "judged")):
        cell = table.cell("scale_free, deq, 0", column)
        assert getattr(cell, "value", cell) == stored["looks"]["0"][quantity]
    assert {table.name for table in found.tables} == {"uniqueness", "solutions", "scores"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--starts 0", "--starts: must be an integer of at least 1, got 0"),
        ("--samples x", "--samples: must be an integer of at least 1, got x"),
        ("--max-steps 0", "--max-steps: must be an integer of at least 1, got 0"),
        ("--option deq.jacobian_weight=1", "--option deq.jacobian_weight is what makes this row"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, message, capsys):
    with pytest.raises(SystemExit):
        study.main(wrong.split())
    assert message in capsys.readouterr().err
