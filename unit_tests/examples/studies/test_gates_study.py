"""What the study of the gates writes and draws is what its runs found."""

import csv
import json
import math
import shutil
from dataclasses import replace
from statistics import fmean, stdev

import pytest
from scipy import stats

from deq_fusion.examples.studies.gates.__main__ import STUDY, main
from deq_fusion.examples.studies.gates.draw import draw_points
from deq_fusion.examples.studies.gates.rows import ROWS
from deq_fusion.examples.studies.gates.summary import Point, points_of, tables_of
from deq_fusion.examples.studies.tables import Bounded, read_tables

ARGUMENTS = ["--dataset", "digits", "--modalities", "top left,bottom right", "--epochs", "1"]
ARGUMENTS += ["--runs", "2", "--steps", "4", "--samples", "200"]
ARGUMENTS += ["--fusions", "full,noise_in_modality_2"]
for row in ("full", "noise_in_modality_2"):  # soon done
    ARGUMENTS += ["--option", f"{row}.max_steps=4", "--option", f"{row}.jacobian_weight=0.0"]


@pytest.fixture(scope="module")
def study(tmp_path_factory, few_digits):
    """(output folder, arguments, points, what was found) of a study of digits."""
    folder = tmp_path_factory.mktemp("study") / "out"
    arguments = [*ARGUMENTS, "--output", str(folder)]
    kept = []
    found = replace(STUDY, summary=lambda c: kept.append(c) or STUDY.summary(c)).main(arguments)
    return folder, arguments, points_of(kept[0]), found


def test_the_csv_is_what_the_runs_found(study):
    folder, _, points, _ = study
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
            assert line["row"] == f"noise_in_modality_{names.index(noise) + 1}"
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
    folder, _, points, found = study
    for name in ("gates", "gates_classes", "gates_noise"):
        assert (folder / f"{name}.png").stat().st_size > 0
        assert "<svg" in (folder / f"{name}.svg").read_text()
    assert (folder / "gates.md").read_text() == f"{found}\n"
    written = read_tables(folder / "tables.json")[1]
    assert list(written) == ["shares", "noise", "scores"]
    assert list(written.values()) == list(found.tables)
    first = points[0]
    assert [c.name for c in written["shares"].columns][2:] == ["step 1", "step 2", "step 4"]
    cell = written["shares"].cell("scale_free, top left", "step 1")
    assert (100 * cell.value, 100 * cell.low) == pytest.approx((first.mean, first.low))


def test_a_second_call_trains_nothing(study, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a run was trained again")

    monkeypatch.setattr("deq_fusion.training_structures.comparison.single_run._train_on", refuse)
    _, arguments, _, found = study
    _, comparisons = STUDY.run(arguments)
    assert STUDY.summary(comparisons) == found


def test_another_number_of_steps_is_another_analysis(study, tmp_path, capsys):
    folder = shutil.copytree(study[0], tmp_path / "out")
    more = ["--output", str(folder), "--steps", "5", "--injection", "raw"]
    _, comparisons = STUDY.run([*ARGUMENTS, *more])
    shares, *_ = STUDY.summary(comparisons).tables
    assert shares.columns[-1].name == "step 5"
    assert "): analyse changed" in capsys.readouterr().err


def test_the_pictures_draw_the_points(study):
    points = study[2]
    figures = draw_points(points)
    steps, classes, noise = (figures[n] for n in ("gates", "gates_classes", "gates_noise"))
    for axes, injection in zip(steps.axes, ("scale_free", "raw"), strict=True):
        assert axes.get_ylim() == (0, 100)
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
    assert {axes.get_xlim() for axes in (*classes.axes, *noise.axes)} == {(0, 100)}
    assert [len(figure.axes) for figure in (classes, noise)] == [2, 2]
    rows = [tick.get_text() for tick in classes.axes[0].get_yticklabels()]
    assert rows[0] == "all (200)" and rows[1].startswith("class 0 (") and len(rows) == 11
    rows = [tick.get_text() for tick in noise.axes[1].get_yticklabels()]
    conditions = "at inference: top left", "at inference: bottom right", "throughout: bottom right"
    assert rows == ["as it is", *(f"noise {condition}" for condition in conditions)]
    hollow = [line for line in noise.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert len(hollow) == 3  # one in each row with noise


def test_one_run_without_the_plain_row_is_drawn_without_intervals():
    points = [
        Point(
            "raw",
            "noise_in_modality_1",
            "noise throughout: a",
            "all",
            9,
            s,
            m,
            1,
            50.0,
            math.nan,
            math.nan,
        )
        for s in (1, 2)
        for m in ("a", "b")
    ]
    assert list(draw_points(points)) == ["gates_noise"]
    (noise,) = tables_of(points)
    assert noise.rows == (("raw", "noise throughout: a", Bounded(0.5), Bounded(0.5)),)


def test_without_noise_none_is_told_of():
    points = [Point("raw", "full", "as it is", "all", 9, 1, "a", 2, 100.0, 99.0, 101.0)]
    assert list(draw_points(points)) == ["gates", "gates_classes"]
    (shares,) = tables_of(points)
    assert shares.rows == (("raw", "a", Bounded(1.0, 0.99, 1.01)),)


@pytest.mark.parametrize("option", ["--steps", "--samples"])
def test_counts_that_make_no_sense_are_explained(option, capsys):
    with pytest.raises(SystemExit):
        main([option, "0"])
    assert "must be an integer of at least 1, got 0" in capsys.readouterr().err


def test_the_rows_can_be_listed(capsys):
    assert main(["--list"]) is None
    listed = capsys.readouterr().out
    assert all(name in listed for name in ROWS)
