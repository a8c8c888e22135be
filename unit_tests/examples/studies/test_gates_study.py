"""What the study of the gates writes and draws is what its runs found."""

import csv
import json
import math
import shutil
from statistics import fmean, stdev

import pytest
from scipy import stats

from deq_fusion.examples.studies.gates.__main__ import main
from deq_fusion.examples.studies.gates.draw import draw
from deq_fusion.examples.studies.gates.summary import Point, tables
from deq_fusion.examples.studies.gates.rows import VARIANTS

ARGUMENTS = ["--dataset", "digits", "--modalities", "top left,bottom right", "--epochs", "1"]
ARGUMENTS += ["--runs", "2", "--steps", "4", "--samples", "200"]
ARGUMENTS += ["--fusions", "full,noise_2"]
for row in ("full", "noise_2"):  # soon done
    ARGUMENTS += ["--option", f"{row}.max_steps=4", "--option", f"{row}.jacobian_weight=0.0"]


@pytest.fixture(scope="module", autouse=True)
def coarse():
    """Pictures of few pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deq_fusion.examples.studies.drawing.DPI", 40)
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(output folder, arguments, points) of a study of digits."""
    folder = tmp_path_factory.mktemp("study") / "out"
    arguments = [*ARGUMENTS, "--output", str(folder)]
    return folder, arguments, main(arguments)


def test_the_csv_is_what_the_runs_found(study):
    folder, _, points = study
    with open(folder / "gates.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    # (injections, rows and conditions with 10 classes each or none, steps, modalities)
    assert len(lines) == len(points) == 2 * (2 * 11 + 2) * 4 * 2
    names = ["top left", "bottom right"]
    for line in lines:
        runs = []
        for run in (0, 1):
            path = folder / line["injection"] / "runs" / f"{line['row']}-{run}.json"
            runs.append(json.loads(path.read_text())["analysis"])
        kind, _, noise = line["condition"].partition(": ")
        assert kind == "noise throughout" if line["row"] != "full" else kind != "noise throughout"
        if kind == "noise throughout":
            assert line["row"] == f"noise_{names.index(noise) + 1}"
        if kind == "noise at inference":
            curves = [run["noise_at_inference"][noise] for run in runs]
        else:
            every = line["group"] == "all"
            curves = [(run if every else run["groups"][line["group"]])["shares"] for run in runs]
        place = int(line["step"]) - 1, names.index(line["modality"])
        values = [100 * curve[place[0]][place[1]] for curve in curves]
        half = stats.t.ppf(0.975, 1) * stdev(values) / math.sqrt(2)
        expected = [fmean(values), fmean(values) - half, fmean(values) + half]
        found = [float(line[name]) for name in ("mean", "low", "high")]
        assert found == pytest.approx(expected, abs=1e-4) and line["runs"] == "2"


def test_the_files_are_there_and_tell_the_same(study):
    folder, _, points = study
    for name in ("gates", "gates_classes", "gates_noise"):
        assert (folder / f"{name}.png").stat().st_size > 0
        assert "<svg" in (folder / f"{name}.svg").read_text()
    text = (folder / "gates.md").read_text()
    assert text == tables(points) + "\n"
    assert all(f"step {step} " in text for step in (1, 2, 4))
    first = points[0]
    cell = f"{first.mean:.1f} ({first.low:.1f} to {first.high:.1f})"
    assert f"| scale_free | top left     | {cell}" in text


def test_a_second_call_trains_nothing(study, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a run was trained again")

    monkeypatch.setattr("deq_fusion.training_structures.comparison.single_run.fit", refuse)
    _, arguments, points = study
    assert main(arguments) == points


def test_another_number_of_steps_is_another_analysis(study, tmp_path, capsys):
    folder = shutil.copytree(study[0], tmp_path / "out")
    points = main([*ARGUMENTS, "--output", str(folder), "--steps", "5"])
    assert {point.step for point in points} == {1, 2, 3, 4, 5}
    assert "): analyse changed" in capsys.readouterr().err


def test_the_pictures_draw_the_points(study):
    points = study[2]
    figures = draw(points)
    steps, classes, noise = (figures[n] for n in ("gates", "gates_classes", "gates_noise"))
    for axes, injection in zip(steps.axes, ("scale_free", "raw"), strict=True):
        lines = {line.get_label(): line for line in axes.lines}
        for modality in ("top left", "bottom right"):
            wanted = [
                p.mean
                for p in points
                if (p.injection, p.row, p.condition, p.group, p.modality)
                == (injection, "full", "as it is", "all", modality)
            ]
            assert list(lines[modality].get_xdata()) == [1, 2, 3, 4]
            assert list(lines[modality].get_ydata()) == wanted
    assert [len(figure.axes) for figure in (classes, noise)] == [2, 2]
    rows = [tick.get_text() for tick in classes.axes[0].get_yticklabels()]
    assert rows[0] == "all (256)" and rows[1].startswith("class 0 (") and len(rows) == 11
    rows = [tick.get_text() for tick in noise.axes[1].get_yticklabels()]
    conditions = "at inference: top left", "at inference: bottom right", "throughout: bottom right"
    assert rows == ["as it is", *(f"noise {condition}" for condition in conditions)]
    hollow = [line for line in noise.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert len(hollow) == 3  # one in each row with noise


def test_one_run_without_the_plain_row_is_drawn_without_intervals():
    points = [
        Point("raw", "noise_1", "noise throughout: a", "all", 9, s, m, 1, 50.0, math.nan, math.nan)
        for s in (1, 2)
        for m in ("a", "b")
    ]
    assert list(draw(points)) == ["gates_noise"]
    assert "50.0 (" not in tables(points) and "| 50.0" in tables(points)


def test_without_noise_none_is_told_of():
    points = [Point("raw", "full", "as it is", "all", 9, 1, "a", 2, 100.0, 99.0, 101.0)]
    assert list(draw(points)) == ["gates", "gates_classes"]
    assert "noise" not in tables(points) and "| 100.0" in tables(points)


@pytest.mark.parametrize("option", ["--steps", "--samples"])
def test_counts_that_make_no_sense_are_explained(option, capsys):
    with pytest.raises(SystemExit):
        main([option, "0"])
    assert "must be an integer of at least 1, got 0" in capsys.readouterr().err


def test_the_rows_can_be_listed(capsys):
    assert main(["--list"]) is None
    listed = capsys.readouterr().out
    assert all(name in listed for name in VARIANTS)
