"""The study of convergence: how runs are brought together, and what the command writes."""

import csv
import json
import math

import numpy as np
import pytest
from scipy import stats

from deq_fusion.examples.studies import drawing
from deq_fusion.examples.studies.convergence import __main__ as convergence
from deq_fusion.examples.studies.convergence import summary as curves
from deq_fusion.examples.studies.convergence.draw import PICTURES
from deq_fusion.examples.studies.convergence.rows import TIED
from deq_fusion.training_structures.comparison import Score


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


@pytest.mark.usefixtures("few_digits")
def test_the_command_writes_tables_pictures_and_numbers_and_trains_nothing_twice(tmp_path, capsys):
    arguments = "--dataset digits --epochs 1 --runs 2 --steps 12 --samples 10".split()
    arguments += ["--modalities", "top left,bottom right", "--injection", "raw"]
    arguments += ["--fusions", "no_penalty,tied", "--output", str(tmp_path)]
    found = convergence.main(arguments)
    text = str(found)
    runs = sorted(tmp_path.glob("*/runs/*.json"))
    assert len(runs) == 4  # two rows, two runs
    assert text in capsys.readouterr().out
    names = {f"{name}.{kind}" for name in PICTURES for kind in ("png", "svg")}
    names |= {"convergence.md", "traces.csv", "radii.csv", "early.csv"}
    assert (tmp_path / "tables.json").is_file()
    assert names <= {path.name for path in tmp_path.iterdir()}
    first = {path: path.stat().st_mtime_ns for path in runs}
    pictures = {name: (tmp_path / name).read_bytes() for name in names}
    assert convergence.main(arguments) == found
    assert first == {path: path.stat().st_mtime_ns for path in runs}
    assert pictures == {name: (tmp_path / name).read_bytes() for name in names}
    check_traces(tmp_path, text)


def check_traces(folder, text):
    """The CSV is the geometric mean of what the runs hold, and the table shows it."""
    lines = list(csv.DictReader((folder / "traces.csv").read_text().splitlines()))
    chosen = {
        "injection": "raw",
        "row": "no_penalty",
        "solve": "joint anderson",
        "quantity": "residual",
    }
    line = next(x for x in lines if chosen.items() <= x.items() and x["step"] == "5")
    values = []
    for run in (0, 1):
        stored = json.loads((folder / "raw" / "runs" / f"no_penalty-{run}.json").read_text())
        values.append(stored["analysis"]["traces"]["joint anderson"]["joint"]["residual"][4])
    expected = math.sqrt(values[0] * values[1])
    assert float(line["mean"]) == pytest.approx(expected, rel=1e-4)
    shown = next(x for x in text.splitlines() if "| raw " in x and " residual " in x)
    assert f"{expected:.1e}" in shown
    assert {x["step"] for x in lines} == {str(k) for k in range(1, 13)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--steps 0", "--steps: must be an integer of at least 1, got 0"),
        ("--samples x", "--samples: must be an integer of at least 1, got x"),
        ("--injection other", "unknown ['other']; choose from scale_free, raw"),
        ("--fusions concat", "unknown ['concat']; choose from no_penalty, penalty"),
        ("--fusions full", "row full has another name now: no_penalty"),
        ("--option tied.unroll=3", "--option tied.unroll is what makes this row"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, message, capsys):
    with pytest.raises(SystemExit):
        convergence.main(wrong.split())
    assert message in capsys.readouterr().err
