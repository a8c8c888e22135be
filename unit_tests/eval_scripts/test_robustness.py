"""Relative and effective robustness against the published curves, worked out a second time."""

import subprocess
import sys

import numpy as np
import pytest

from deq_fusion.eval_scripts import robustness as measures
from deq_fusion.eval_scripts.published import robustness
from deq_fusion.training_structures import multibench

TASKS = sorted(robustness["LF"])
ERRORS = ("finance", "robotics", "gentle push")


def published(task):
    """Method -> curve, early and late fusion by the mean of their two."""
    found = {}
    for method, curves in robustness.items():
        name = method.removesuffix("-Transformer")
        if task in curves:
            found.setdefault(name, []).append(curves[task])
    return {name: np.mean(curves, axis=0) for name, curves in found.items()}


def area(curve):
    return sum(0.1 * (a + b) / 2 for a, b in zip(curve, curve[1:], strict=False))


def effective(curve, task):
    late = robustness["LF"][task]
    return sum(own - (curve[0] + other - late[0]) for own, other in zip(curve, late, strict=True))


def placed(value, others, task):
    ranked = np.array([*others, value]) * (-1 if task.startswith(ERRORS) else 1)
    return (ranked[-1] - ranked.min()) / (ranked.max() - ranked.min())


@pytest.mark.parametrize("task", TASKS)
def test_both_measures_of_a_curve(task):
    others = published(task)
    curve = np.mean([*others.values()], axis=0) * np.linspace(1.1, 0.9, len(robustness["LF"][task]))
    wanted = placed(area(curve), [area(other) for other in others.values()], task)
    assert measures.relative_robustness(curve, task) == pytest.approx(wanted)
    wanted = placed(
        effective(curve, task), [effective(other, task) for other in others.values()], task
    )
    assert measures.effective_robustness(curve, task) == pytest.approx(wanted)


@pytest.mark.parametrize("task", TASKS)
def test_the_better_the_curve_the_higher_it_stands(task):
    all_of_task = np.array([*published(task).values()])
    low, high = all_of_task.min(axis=0) * 0.9, all_of_task.max(axis=0) * 1.1
    worst, best = (high, low) if task.startswith(ERRORS) else (low, high)
    assert measures.relative_robustness(worst, task) == 0
    assert measures.relative_robustness(best, task) == 1
    rising = np.linspace(0, all_of_task.max() * 9, len(low))
    kept, lost = (-rising, rising) if task.startswith(ERRORS) else (rising, -rising)
    assert measures.effective_robustness(lost, task) == 0
    assert measures.effective_robustness(kept, task) == 1


def test_where_all_are_the_same_a_method_is_as_far_from_the_best_as_from_the_worst():
    for task in "mosi text", "gentle push image":
        assert measures.maxmin_normalize({"LF": 0.5, "my method": 0.5}, task) == 0.5


def test_the_area_is_the_one_that_a_test_returns():
    curve = robustness["LF"]["mosi text"]
    returned = multibench.robustness([{"accuracy": score} for score in curve])["accuracy"]
    assert returned["levels"] == curve
    relative = measures.relative_robustness_helper(curve, "mosi text")
    assert returned["area"] == pytest.approx(relative)


def test_a_curve_lower_by_a_constant_keeps_as_much():
    late = np.array(robustness["LF"]["mosi text"])
    assert measures.effective_robustness_helper(late - 0.2, "mosi text") == pytest.approx(0)


@pytest.mark.parametrize("measure", [measures.relative_robustness, measures.effective_robustness])
def test_what_cannot_be_compared_is_refused(measure):
    with pytest.raises(ValueError, match="no curves were published for 'digits top'.*mosi text"):
        measure([1.0] * 10, "digits top")
    with pytest.raises(ValueError, match="takes 10 finite scores.*0.9,"):
        measure([1.0] * 9, "mosi text")
    with pytest.raises(ValueError, match="takes 11 finite scores.*1.0,"):
        measure([float("nan")] * 11, "imdb text micro")


def test_an_unknown_measure_is_refused():
    with pytest.raises(ValueError, match="'relative' or 'effective', got 'absolute'"):
        measures.get_robustness_metric([1.0] * 10, "mosi text", "absolute")


def test_the_published_curves_of_a_task_are_of_one_length_and_each_task_has_late_fusion():
    for curves in robustness.values():
        for task, curve in curves.items():
            assert len(curve) == len(robustness["LF"][task]) in (9, 10, 11)
            assert np.isfinite(curve).all() and min(curve) >= 0
            assert task.startswith(ERRORS) or max(curve) <= 1


def test_the_published_curves_start_near_the_published_clean_scores():
    paper = {
        ("MulT", "mosi text"): 0.83,
        ("LF", "imdb text micro"): 0.5878,
        ("MFM", "mimic 1 timeseries"): 0.915,
    }
    for (method, task), score in paper.items():
        assert robustness[method][task][0] == pytest.approx(score, abs=0.015)


@pytest.mark.parametrize("task, logarithm", [("mosi text", False), ("gentle push image", True)])
def test_a_plot_is_saved_where_the_caller_says(task, logarithm, tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    drawn = []
    real = figure.Figure.subplots
    monkeypatch.setattr(
        figure.Figure, "subplots", lambda self: drawn.append(real(self)) or drawn[-1]
    )
    scores = [0.9, 0.5, 0.1]
    measures.single_plot(scores, task, "Noise level", "Accuracy", tmp_path / "curve", "mine")
    (file,) = tmp_path.iterdir()
    assert file.name == "curve.png" and file.read_bytes().startswith(b"\x89PNG")
    (line,) = drawn[0].lines
    np.testing.assert_allclose(line.get_xdata(), [0, 0.1, 0.2])
    np.testing.assert_allclose(line.get_ydata(), np.log(scores) if logarithm else scores)
    assert drawn[0].get_ylabel() == ("log Accuracy" if logarithm else "Accuracy")


def test_what_a_test_returned_is_told_in_multibenchs_lines(capsys, tmp_path):
    curve = robustness["MFM"]["imdb text micro"], robustness["MFM"]["imdb text macro"]
    tested = {"text": {"micro": {"levels": curve[0]}, "macro": {"levels": curve[1]}}}
    measures.report_robustness(tested, "imdb")
    printed = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert list(printed) == [
        f"{metric} robustness (text, {measure})"
        for measure in ("micro", "macro")
        for metric in ("relative", "effective")
    ]
    assert float(printed["relative robustness (text, micro)"]) == 0  # none is below MFM there
    assert list(tmp_path.iterdir()) == []


def test_of_one_measure_the_task_is_named_without_it_and_the_plot_is_told(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    tested = {"text": {"Accuracy": {"levels": robustness["LF"]["mosi text"]}}}
    measures.report_robustness(tested, "mosi", "mine", folder=tmp_path)
    *_, last = capsys.readouterr().out.splitlines()
    (file,) = tmp_path.iterdir()
    assert last == f"Plot saved as {file}"
    assert file.name == "mine-mosi text-text-Accuracy.png"


@pytest.mark.slow
def test_measuring_imports_no_matplotlib():
    code = "import sys, deq_fusion.eval_scripts.robustness; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
