"""Robustness in reports: areas, gains and tests against numpy and scipy; where they are told."""

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from deq_fusion.training_structures.comparison.paired import holm
from deq_fusion.training_structures.comparison.recipe import Score
from deq_fusion.training_structures.comparison.report.robustness import (
    area,
    as_csv,
    curves_of,
    robust_rows,
    tables,
    title,
)
from unit_tests.training_structures.comparison import toy
from unit_tests.training_structures.comparison.test_robustness import compared

LEVELS = [0.0, 0.2, 0.5, 1.0]
RUNS, SHARE = 8, 0.4
SCORE = Score("accuracy")


@pytest.fixture(scope="module")
def results():
    """Random curves of three methods, one of which failed in a run and one of which has zeros."""
    rng = np.random.default_rng(0)
    found = []
    for method in ("base", "told", "other"):
        for run in range(RUNS):
            if (method, run) == ("other", 3):
                continue
            clean = rng.uniform(0.6, 0.8)

            def curve(clean=clean):
                falling = clean * rng.uniform(0.7, 1, len(LEVELS) - 1).cumprod()
                return {"accuracy": [clean, *falling], "f1_macro": [0.5] * len(LEVELS)}

            kinds = {"noise": ("a", "b", "all"), "missing": ("a", "b", "any")}
            kinds |= {"zeros": kinds["missing"]} if method == "told" else {}
            curves = {kind: {w: curve() for w in wheres} for kind, wheres in kinds.items()}
            scores = {"accuracy": clean, "f1_macro": 0.5}
            robust = {"levels": LEVELS, **curves}
            found.append({"method": method, "run": run, "scores": scores, "robustness": robust})
    return found


def of(results, method, kind, where):
    """Run -> curve of the accuracy."""
    return {
        r["run"]: np.array(r["robustness"][kind][where]["accuracy"])
        for r in results
        if r["method"] == method
    }


def expected(one, two):
    """Difference, interval and p of the corrected resampled t-test, from the runs of both."""
    runs = sorted(one.keys() & two.keys())
    d = np.array([one[run] - two[run] for run in runs])
    error = np.sqrt((1 / len(d) + SHARE) * d.var(ddof=1))
    half = stats.t.ppf(0.975, len(d) - 1) * error
    p = 2 * stats.t.sf(abs(d.mean() / error), len(d) - 1)
    return d.mean(), d.mean() - half, d.mean() + half, p


def by_name(rows):
    return {(row.method, row.kind, row.where): row for row in rows}


@pytest.fixture(scope="module")
def rows(results):
    return robust_rows(results, SCORE, ["a", "b"], baseline="base", test_share=SHARE)


def test_an_area_is_that_of_trapezoids_by_the_width():
    rng = np.random.default_rng(1)
    values = rng.random(4)
    assert area(LEVELS, values) == pytest.approx(np.trapezoid(values, LEVELS))
    assert area([0, 0.3, 0.9], [1, 1, 1]) == pytest.approx(1)
    tenths = np.arange(11) / 10  # MultiBench's rule: steps of 0.1
    values = rng.random(11)
    by_hand = sum((values[i] + values[i + 1]) * 0.1 / 2 for i in range(10))
    assert area(tenths.tolist(), values) == pytest.approx(by_hand)


@pytest.mark.parametrize("kind", ["noise", "missing"])
def test_relative_and_effective_robustness_are_tested_against_the_baseline(results, rows, kind):
    found, curves = by_name(rows), curves_of(["a", "b"])
    for _, where in (pair for pair in curves if pair[0] == kind):
        base = of(results, "base", kind, where)
        tests = {}
        for method in ("told", "other"):
            own = of(results, method, kind, where)
            areas = [{run: np.trapezoid(c, LEVELS) for run, c in x.items()} for x in (own, base)]
            row = found[method, kind, where]
            assert row.relative.mean == pytest.approx(np.mean(list(areas[0].values())))
            *test, p = expected(*areas)
            assert (row.test.difference, row.test.low, row.test.high) == pytest.approx(test)
            # above the baseline's curve, shifted to the same clean score
            gains = {
                run: np.trapezoid(own[run] - (base[run] + own[run][0] - base[run][0]), LEVELS)
                for run in own.keys() & base.keys()
            }
            *gain, gain_p = expected(gains, dict.fromkeys(gains, 0.0))
            effective = row.effective
            assert (effective.difference, effective.low, effective.high) == pytest.approx(gain)
            tests[method] = p, gain_p, row
        for name, place in (("test", 0), ("effective", 1)):
            adjusted = holm([tests[m][place] for m in tests])
            assert [getattr(t[2], name).p for t in tests.values()] == pytest.approx(adjusted)
        row = found["base", kind, where]
        assert row.test is row.effective is row.told is None


def test_what_being_told_brings_is_tested_against_zeros(results, rows):
    found = by_name(rows)
    for where in ("a", "b", "any"):
        sides = [of(results, "told", kind, where) for kind in ("missing", "zeros")]
        areas = [{run: np.trapezoid(c, LEVELS) for run, c in side.items()} for side in sides]
        told = found["told", "missing", where].told
        values = told.difference, told.low, told.high, told.p
        assert values == pytest.approx(expected(*areas))
        assert found["other", "missing", where].told is None
        # with zeros it is compared with the baseline, which knows nothing else
        base = of(results, "base", "missing", where)
        *test, _ = expected(areas[1], {r: np.trapezoid(c, LEVELS) for r, c in base.items()})
        row = found["told", "zeros", where]
        assert (row.test.difference, row.test.low, row.test.high) == pytest.approx(test)


def test_curves_come_in_order_and_the_best_method_first(results, rows):
    keys = list(dict.fromkeys((row.kind, row.where) for row in rows))
    assert keys == [(k, w) for k, more in (("noise", "all"), ("missing", "any"), ("zeros", "any"))
                    for w in (more, "a", "b")]  # fmt: skip
    for key in keys:
        means = [row.relative.mean for row in rows if (row.kind, row.where) == key]
        assert means == sorted(means, reverse=True)
    lower = robust_rows(results, replace(SCORE, lower=True), ["a", "b"])
    means = [row.relative.mean for row in lower if (row.kind, row.where) == keys[0]]
    assert means == sorted(means) and all(row.test is None for row in lower)


def test_tables_have_a_line_a_method_and_leave_out_what_there_is_not(rows):
    found = {name: (head, lines) for name, head, lines in tables(rows, SCORE, "base")}
    assert list(found) == [title(k, w) for k, w in curves_of(["a", "b"]) if k != "zeros"]
    head, lines = found["Samples that lack one modality, any of them"]
    assert sorted(line[0] for line in lines) == ["base", "other", "told", "told (zeros)"]
    assert "present minus zeros [95 %]" in head and head.count("p") == 3
    assert "present minus zeros [95 %]" not in found["Noise in a"][0]


def test_every_point_is_a_line_of_csv(results):
    lines = list(csv.DictReader(io.StringIO(as_csv(results))))
    assert len(lines) == (8 * 6 + 8 * 9 + 7 * 6) * 4  # runs, curves and levels
    points = {
        (x["method"], int(x["run"]), x["kind"], x["where"], float(x["level"])): x for x in lines
    }
    for r in results:
        for i, level in enumerate(LEVELS):
            line = points[r["method"], r["run"], "missing", "any", level]
            value = r["robustness"]["missing"]["any"]["accuracy"][i]
            assert float(line["accuracy"]) == value and float(line["f1_macro"]) == 0.5


@pytest.fixture(scope="module")
def found():
    return replace(compared(None), subject="mean")


def test_reports_tell_it_everywhere(found, tmp_path):
    found.write(tmp_path)
    page = (tmp_path / "results.html").read_text(encoding="utf-8")
    names = [name for name, *_ in tables(found.robustness(), found.score, found.baseline)]
    assert names[0] == "Noise in all modalities" and len(names) == 6
    assert all(f"<h3>{name}</h3>" in page for name in names)
    pictures = dict(re.findall(r"<h2>([^<]+)</h2><img alt=\"([^\"]+)", page))
    assert "rising noise" in pictures["Robustness to noise"]
    assert "rising share" in pictures["Robustness to absence"]
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "## Robustness" in text and all(f"### {name}" in text for name in names)
    assert "Taori et al., 2020" in text and "Liang et al., 2021" in text
    content = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert len(content["robustness"]) == len(found.robustness())
    assert not any("robustness" in run for run in content["runs"])
    first = content["robustness"][0]
    row = found.robustness()[0]
    assert (first["method"], first["kind"], first["where"]) == (row.method, "noise", "all")
    assert first["relative"]["mean"] == row.relative.mean
    points = (tmp_path / "robustness.csv").read_text(encoding="utf-8").count("\n")
    curves = 2 * 2 + 6 + 9  # of the single modalities, of concat, and of what knows two ways
    assert points == 1 + curves * 2 * 3  # runs and levels
    assert "noise in all" in str(found) and "one missing" in str(found)


def test_a_comparison_without_it_says_nothing_of_it(tmp_path):
    plain = toy.run(None)
    plain.write(tmp_path)
    assert not (tmp_path / "robustness.csv").exists() and plain.robustness() == []
    for kind in ("md", "html", "json"):
        assert "obustness" not in (tmp_path / f"results.{kind}").read_text(encoding="utf-8")
    assert "obust" not in str(plain)
