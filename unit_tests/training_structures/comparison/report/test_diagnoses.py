"""Diagnoses in reports: means and intervals against numpy and scipy, and where they are told."""

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from deq_fusion.training_structures.comparison.recipe import Score
from deq_fusion.training_structures.comparison.report.diagnoses import (
    as_csv,
    diagnosed_rows,
    not_told,
    pooled,
    sentences,
)
from deq_fusion.training_structures.comparison.report.diagnosis_pictures import DIAGNOSES
from deq_fusion.training_structures.comparison.report.pictures import Shown
from deq_fusion.training_structures.comparison.report.table import make_rows
from unit_tests.training_structures.comparison import toy
from unit_tests.training_structures.comparison.test_robustness import Mean

RUNS, SHARE, SCORE = 7, 0.4, Score("accuracy")
SETS = [[], ["a"], ["b"], ["a", "b"]]


@pytest.fixture(scope="module")
def results():
    """Random diagnoses of two methods, one of which has no calibration."""
    rng = np.random.default_rng(0)
    found = []
    for method in ("concat", "deq"):
        for run in range(RUNS):
            scores = rng.uniform(0.3, 0.9, 4)
            sets = [
                {"with": s, "scores": {"accuracy": x}} for s, x in zip(SETS, scores, strict=True)
            ]
            counts = rng.integers(0, 9, 15)
            bins = np.column_stack([counts, rng.random((15, 2)) * (counts > 0)[:, None]])
            told = {"sets": sets, "strengths": rng.random((2, 2)).tolist(), "not": {}}
            if method == "deq":
                numbers = dict(zip(("ece", "brier", "surplus"), rng.random(3), strict=True))
                told["calibration"] = {"bins": bins.tolist(), **numbers}
            else:
                told["not"] = {"calibration": "predicts numbers"}
            result = {"method": method, "run": run, "scores": sets[-1]["scores"], "seconds": 1.0}
            found.append(result | {"diagnoses": told})
    return found


def row_of(results, method, score=SCORE):
    rows = diagnosed_rows(results, score, ["concat", "deq"], test_share=SHARE)
    return next(row for row in rows if row.method == method)


def of(results, method):
    return [r["diagnoses"] for r in results if r["method"] == method]


def check(value, numbers):
    """An estimate against the mean, and the interval corrected for resampling."""
    x = np.array(numbers)
    half = stats.t.ppf(0.975, RUNS - 1) * np.sqrt((1 / RUNS + SHARE) * x.var(ddof=1))
    bounds = value.mean, value.low, value.high
    assert bounds == pytest.approx((x.mean(), x.mean() - half, x.mean() + half))


def test_what_modalities_bring_sums_to_the_whole_with_intervals(results):
    row = row_of(results, "deq")
    v = np.array([[s["scores"]["accuracy"] for s in d["sets"]] for d in of(results, "deq")])
    check(row.brought["a"], (v[:, 1] - v[:, 0] + v[:, 3] - v[:, 2]) / 2)
    check(row.brought["b"], (v[:, 2] - v[:, 0] + v[:, 3] - v[:, 1]) / 2)
    total = sum(value.mean for value in row.brought.values())
    assert total == pytest.approx(row.whole.mean - row.nothing.mean)
    lower = row_of(results, "deq", replace(SCORE, lower=True))
    assert lower.brought["a"].mean == pytest.approx(-row.brought["a"].mean)


def test_interaction_and_calibration_are_means_over_the_runs(results):
    row, found = row_of(results, "deq"), of(results, "deq")
    m = np.array([d["strengths"] for d in found])
    pairs = m[:, 0, 1]
    check(row.interaction, pairs / (pairs + m[:, 0, 0] + m[:, 1, 1]))
    check(row.pairs["a and b"], pairs)
    for name in ("ece", "brier", "surplus"):
        check(row.calibration[name], [d["calibration"][name] for d in found])
    assert row_of(results, "concat").calibration == {}


def test_bins_are_pooled_by_their_samples(results):
    bins = [np.array(d["calibration"]["bins"]) for d in of(results, "deq")]
    for i, (samples, sure, right) in enumerate(pooled(bins)):
        weights = [each[i, 0] for each in bins]
        assert samples == sum(weights)
        if samples:
            assert sure == pytest.approx(np.average([e[i, 1] for e in bins], weights=weights))
            assert right == pytest.approx(np.average([e[i, 2] for e in bins], weights=weights))


def test_every_number_is_a_line_of_csv(results):
    lines = list(csv.DictReader(io.StringIO(as_csv(results, [SCORE]))))
    by = {(x["method"], x["run"], x["kind"], x["of"]): float(x["value"]) for x in lines}
    for r in results:
        told = r["diagnoses"]
        own = {key[2:]: x for key, x in by.items() if key[:2] == (r["method"], str(r["run"]))}
        for each in told["sets"]:
            of_set = ", ".join(each["with"]) or "none"
            assert own["score with", of_set] == each["scores"]["accuracy"]
        whole = own["score with", "a, b"] - own["score with", "none"]
        assert own["brought", "a"] + own["brought", "b"] == pytest.approx(whole)
        assert own["interaction", "a and b"] == told["strengths"][0][1]
        assert own["main effect", "b"] == told["strengths"][1][1]
        assert (("calibration", "ece") in own) == (r["method"] == "deq")
    assert len(lines) == len(by) + 2 * 15 * RUNS  # a bin has three lines of one name


def test_in_words_doubt_is_said(results):
    row = row_of(results, "deq")
    _, calibrated = sentences([row], SCORE, "deq")
    doubt = row.calibration["surplus"].low <= 0
    assert ("which may be chance" in calibrated) == doubt and "too sure by" in calibrated
    assert sentences([row], SCORE, "concat") == []
    assert not_told(results) == ["Not told: calibration of concat, which predicts numbers."]


def test_bars_are_what_modalities_bring_and_dots_are_bins(results):
    pytest.importorskip("matplotlib")
    rows = diagnosed_rows(results, SCORE, ["concat", "deq"])
    shown = Shown(make_rows(results, [SCORE]), results, SCORE, "loss", "concat", "deq", (), rows)
    bars = [b.get_width() for b in DIAGNOSES["What each modality brings"](shown).axes[0].patches]
    expected = [100 * row.brought[name].mean for name in "ab" for row in rows]
    assert bars == pytest.approx(expected)
    bars = [b.get_width() for b in DIAGNOSES["Interaction of modalities"](shown).axes[0].patches]
    assert bars == pytest.approx([100 * row.interaction.mean for row in rows])
    (dots,) = DIAGNOSES["Reliability"](shown).axes[0].collections
    bins = rows[1].bins
    kept = bins[bins[:, 0] >= 0.01 * bins[:, 0].sum()]
    np.testing.assert_allclose(dots.get_offsets(), 100 * kept[:, 1:])


@pytest.fixture(scope="module")
def found():
    fusions = {"mean": Mean, "concat": toy.concat}
    return replace(toy.run(None, fusions, unimodal=True, diagnose=True), subject="mean")


def test_reports_tell_it_everywhere(found, tmp_path):
    found.write(tmp_path)
    page = (tmp_path / "results.html").read_text(encoding="utf-8")
    titles = "What each modality brings to accuracy", "Calibration"
    assert "<h2>Diagnoses</h2>" in page and all(f"<h3>{title}</h3>" in page for title in titles)
    if "pip install matplotlib" not in page:
        pictures = dict(re.findall(r"<h2>([^<]+)</h2><img alt=\"([^\"]+)", page))
        assert pictures.keys() >= DIAGNOSES.keys()
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "## Diagnoses" in text and all(f"### {title}" in text for title in titles)
    assert "mean owes its accuracy to its modalities" in text and "Wenderoth et al., 2024" in text
    content = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert len(content["diagnoses"]) == len(found.diagnoses()) == 4
    assert not any("diagnoses" in run for run in content["runs"])
    assert (tmp_path / "diagnoses.csv").read_text(encoding="utf-8").count("InterSHAP") == 4
    assert "from a" in str(found) and "ECE %" in str(found)


def test_a_comparison_without_it_says_nothing_of_it(tmp_path):
    plain = toy.run(None)
    plain.write(tmp_path)
    assert not (tmp_path / "diagnoses.csv").exists() and plain.diagnoses() == []
    for kind in ("md", "html", "json"):
        text = (tmp_path / f"results.{kind}").read_text(encoding="utf-8")
        assert "iagnos" not in text and "InterSHAP" not in text
