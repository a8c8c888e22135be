"""One method against others over several sets: one family of tests, a margin, a number of runs."""

import math

import numpy as np
import pytest
from scipy import stats

from deq_fusion.examples.studies.across import main, matches, read
from deq_fusion.examples.studies.tables import read_tables
from deq_fusion.training_structures.files import write_json

RUNS = 12


def write(folder, score, test_share, values, failures=()):
    runs = [
        {"method": method, "run": run, "scores": {score["name"]: value}}
        for method, own in values.items()
        for run, value in enumerate(own)
    ]
    content = {"scores": [score], "test_share": test_share, "runs": runs}
    folder.mkdir()
    write_json(folder / "results.json", content | {"failures": list(failures)})


@pytest.fixture
def folders(tmp_path):
    """Shares on fresh splits, and errors of fixed ones, for which less is better."""
    rng = np.random.default_rng(0)
    shares = {name: 0.7 + rng.normal(0, 0.03, RUNS) for name in ("deq", "concat", "late")}
    shares["deq"] -= 0.01
    errors = {name: 0.9 + rng.normal(0, 0.01, RUNS) for name in ("deq", "concat", "late")}
    errors["deq"] -= 0.05
    percent = {"name": "accuracy", "percent": True, "lower": False}
    write(tmp_path / "one", percent, 0.5, {k: v.tolist() for k, v in shares.items()})
    lower = {"name": "mae", "percent": False, "lower": True}
    write(tmp_path / "two", lower, None, {k: v.tolist() for k, v in errors.items()})
    return tmp_path, shares, errors


def test_tests_are_one_family_in_the_direction_that_is_better(folders):
    pytest.importorskip("matplotlib")
    folder, shares, errors = folders
    sets = [f"one={folder / 'one'}", f"two={folder / 'two'}"]
    output = folder / "out"
    told = main([*sets, "--against", "concat,late", "--margin", "2", "--output", str(output)])
    assert read_tables(output / "tables.json")[1] == {t.name: t for t in told.tables}
    assert (output / "across.png").stat().st_size > 0

    expected, p_values = {}, {}
    for other in ("concat", "late"):
        d = shares["deq"] - shares[other]
        expected["one", other] = d, d.std(ddof=1) * math.sqrt(1 / RUNS + 0.5)
        d = (errors[other] - errors["deq"]) / errors[other].mean()
        expected["two", other] = d, d.std(ddof=1) / math.sqrt(RUNS)
    for key, (d, error) in expected.items():
        p_values[key] = 2 * stats.t.sf(abs(d.mean() / error), RUNS - 1)
    order = sorted(p_values, key=p_values.get)
    corrected = np.maximum.accumulate([min(1, (4 - i) * p_values[k]) for i, k in enumerate(order)])
    tests, tally = told.tables
    for (name, other), p in zip(order, corrected, strict=True):
        d, error = expected[name, other]
        row = f"{name}, deq, {other}"
        cell, half = tests.cell(row, "difference"), stats.t.ppf(0.975, RUNS - 1) * error
        assert (cell.value, cell.low, cell.high) == pytest.approx(
            (d.mean(), d.mean() - half, d.mean() + half)
        )
        assert tests.cell(row, "p") == pytest.approx(p)
        assert tests.cell(row, "outcome") == ("win" if name == "two" else "tie")
        judged = "undecided" if name == "one" else "non-inferior"
        assert tests.cell(row, "by the margin") == judged
    counts = [tally.cell("deq, concat", name) for name in ("sets", "win", "tie", "loss")]
    assert counts == [2, 1, 1, 0]


def test_the_runs_that_would_decide_it(folders):
    folder, shares, _ = folders
    found = {"one": read(folder / "one")}
    match = matches(found, ["deq"], ["concat"])[0]
    d = shares["deq"] - shares["concat"]

    def half(runs, share):
        return stats.t.ppf(0.975, runs - 1) * d.std(ddof=1) * math.sqrt(1 / runs + share)

    assert half(10**9, 0.5) > abs(d.mean() + 0.02)  # splits share samples: it cannot be told
    assert match.runs_needed(0.02) is None
    margin = half(40, 0.5) - d.mean()  # which 40 runs do not quite tell
    assert match.runs_needed(margin) == 41
    write(
        folder / "fixed",
        {"name": "accuracy", "percent": True, "lower": False},
        None,
        {name: own.tolist() for name, own in shares.items()},
    )
    needed = matches({"": read(folder / "fixed")}, ["deq"], ["concat"])[0].runs_needed(0.02)
    away = abs(d.mean() + 0.02)
    assert half(needed, 0) < away <= half(needed - 1, 0)


def test_what_cannot_be_compared_is_said(folders, capsys):
    folder, *_ = folders
    for arguments, said in [
        ([f"one={folder / 'one'}", "--against", "gmu"], "one must have gmu, it has deq, concat"),
        ([f"one={folder / 'none'}"], "none"),
        ([f"a={folder / 'one'}", f"a={folder / 'two'}"], "a name of its own"),
        ([str(folder / "one")], "must be SET=FOLDER"),
    ]:
        with pytest.raises(SystemExit):
            main([*arguments, "--output", str(folder / "out")])
        assert said in capsys.readouterr().err
    percent = {"name": "accuracy", "percent": True, "lower": False}
    write(folder / "failed", percent, None, {"deq": [0.5]}, failures=[{"error": "it failed"}])
    with pytest.raises(ValueError, match="1 runs of .*failed.* failed; run it again"):
        read(folder / "failed")
