"""The table: rows in order, scores with intervals, tests over shared runs, costs; and the CSV."""

import csv
import io
import math
import re

import numpy as np
import pytest

from deq_fusion.training_structures.comparison import Score
from deq_fusion.training_structures.comparison.paired import compare_paired, estimate, holm
from deq_fusion.training_structures.comparison.report.table import (
    as_csv,
    cells,
    make_rows,
    markdown,
    p_cell,
)

SCORES = Score("accuracy"), Score("mae", percent=False, lower=True)
RNG = np.random.default_rng(0)
VALUES = {name: RNG.normal(mean, 0.02, 8) for name, mean in (("a", 0.7), ("b", 0.8), ("c", 0.75))}


def result(method, run, accuracy, mae=0.5, **more):
    scores = {"accuracy": float(accuracy), "mae": float(mae)}
    return {"method": method, "run": run, "scores": scores, "seconds": 2.0} | more


RESULTS = [
    result(name, i, x, 1 - x) for name, values in VALUES.items() for i, x in enumerate(values)
]


def table(results, scores=SCORES, baseline=None, **options):
    """Returns the table as one dict a line."""
    rows = make_rows(results, scores, baseline=baseline, **options)
    head, lines = cells(rows, scores, baseline)
    return [dict(zip(head, line, strict=True)) for line in lines]


def test_rows_hold_the_estimates_of_every_score():
    for test_share in (None, 0.3):
        for row in make_rows(RESULTS, SCORES, test_share=test_share):
            values = VALUES[row.method]
            assert row.runs == 8 and row.test is None
            assert row.scores == {
                "accuracy": estimate(values, test_share=test_share),
                "mae": estimate(1 - values, test_share=test_share),
            }


def test_the_best_comes_first_and_what_is_undefined_last():
    order = sorted(VALUES, key=lambda name: -VALUES[name].mean())
    assert [row.method for row in make_rows(RESULTS, SCORES)] == order
    assert [row.method for row in make_rows(RESULTS, SCORES[::-1])] == order  # the lower error
    most = Score("accuracy", lower=True)
    assert [row.method for row in make_rows(RESULTS, [most])] == order[::-1]
    undefined = [result("undefined", 0, math.nan), *RESULTS]
    for score in (SCORES[0], most):
        assert make_rows(undefined, [score])[-1].method == "undefined"


def test_tests_are_against_the_baseline_and_corrected_for_their_number():
    rows = make_rows(RESULTS, SCORES, baseline="c", test_share=0.4)
    others = [name for name in VALUES if name != "c"]
    tests = [compare_paired(VALUES[name], VALUES["c"], test_share=0.4) for name in others]
    found = {row.method: row.test for row in rows}
    assert found.pop("c") is None
    for name, test, p in zip(others, tests, holm([t.p for t in tests]), strict=True):
        ours = found[name]
        assert (ours.difference, ours.low, ours.high) == (test.difference, test.low, test.high)
        assert ours.p == p
    assert all(row.test is None for row in make_rows(RESULTS, SCORES, baseline="not there"))


def test_tests_are_over_the_runs_that_both_have():
    left = [r for r in RESULTS if (r["method"], r["run"]) not in {("a", 0), ("c", 3)}]
    left = [*left[::-1], result("elsewhere", 99, 0.5)]  # in any order
    found = {row.method: row for row in make_rows(left, SCORES, baseline="c")}
    shared = [1, 2, 4, 5, 6, 7]
    expected = compare_paired(VALUES["a"][shared], VALUES["c"][shared])
    assert found["a"].test.difference == pytest.approx(expected.difference)
    assert found["a"].test.low == pytest.approx(expected.low)
    assert found["a"].runs == found["c"].runs == 7
    assert found["elsewhere"].test is None


def test_scores_are_in_percent_or_with_three_decimals():
    line = table(RESULTS)[0]
    best = VALUES[line["method"]]
    assert line["runs"] == "8"
    assert line["accuracy %"] == f"{100 * best.mean():.1f} ± {100 * best.std(ddof=1):.1f}"
    half = estimate(best)
    assert line["95 % interval"] == f"{100 * half.low:.1f} to {100 * half.high:.1f}"
    error = 1 - best
    assert line["mae (less is better)"] == f"{error.mean():.3f} ± {error.std(ddof=1):.3f}"


def test_differences_are_signed_and_small_p_values_are_bounds():
    lines = {line["method"]: line for line in table(RESULTS, baseline="a")}
    test = compare_paired(VALUES["b"], VALUES["a"])
    expected = f"{100 * test.difference:+.1f} [{100 * test.low:+.1f}, {100 * test.high:+.1f}]"
    assert lines["b"]["minus a [95 %]"] == expected
    p = holm([test.p, compare_paired(VALUES["c"], VALUES["a"]).p])[0]
    assert p < 0.001 and lines["b"]["p"] == "< 0.001"
    assert lines["a"]["minus a [95 %]"] == lines["a"]["p"] == ""
    same = [*RESULTS, *(result("same", i, x, 1 - x) for i, x in enumerate(VALUES["a"]))]
    assert {r["method"]: r["p"] for r in table(same, baseline="a")}["same"] == "1.000"


def test_a_p_value_just_below_the_level_is_not_rounded_to_it():
    shown = {0.0496: "0.0496", 0.04996: "0.04996", 0.0494: "0.049", 0.05: "0.050", 0.0504: "0.050"}
    assert {p: p_cell(p) for p in shown} == shown


def test_few_runs_give_no_p_value_and_one_run_no_interval():
    few = [r for r in RESULTS if r["run"] < 3]
    assert "p" not in table(few, baseline="a")[0]
    lines = table([r for r in RESULTS if r["run"] == 0], baseline="a")
    assert "95 % interval" not in lines[0]
    assert re.fullmatch(r"\d\d\.\d", lines[0]["accuracy %"])
    assert re.fullmatch(r"[+-]\d+\.\d", lines[0]["minus a [95 %]"])


def test_columns_that_say_nothing_are_left_out():
    assert set(table(RESULTS)[0]) == {
        "method",
        "runs",
        "accuracy %",
        "95 % interval",
        "mae (less is better)",
        "seconds",
    }
    solving = {"parameters": 12345, "epochs": 7, "solver_steps": 4.25, "solver_converged": 0.99999}
    left_out = {"missing": {"text": {"accuracy": 0.5, "mae": 1.0}}}
    lines = table([*RESULTS, result("deq", 0, 0.9, **solving, **left_out)])
    deq, other = lines[0], lines[1]
    assert (deq["parameters"], deq["epochs"], deq["seconds"]) == ("12,345", "7", "2.0")
    assert deq["solver steps"] == f"{4.25:.1f}" and deq["without text"] == "50.0"
    assert deq["converged"] == "99.99 %"  # rounded down: not all of them did
    assert other["parameters"] == other["converged"] == other["without text"] == ""
    everything = {**solving, "solver_converged": 1.0}
    assert table([result("deq", 0, 0.9, **everything)])[0]["converged"] == "100.00 %"


def test_costs_are_medians_and_the_converged_share_a_mean():
    spent = [(10, 0.5), (20, 1.0), (90, 0.9)]
    group = [
        result("deq", i, 0.9, epochs=epochs, solver_converged=share)
        for i, (epochs, share) in enumerate(spent)
    ]
    (row,) = make_rows(group, SCORES)
    assert row.costs["epochs"] == 20 and row.costs["parameters"] is None
    assert row.costs["converged"] == 80.0


def test_markdown_is_aligned():
    text = markdown(["method", "p"], [["a", "0.5"], ["longer than it", ""]]).splitlines()
    assert len(text) == 4 and len({len(line) for line in text}) == 1
    assert set(text[1]) == set("|- ")
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in text]
    assert split[0] == ["method", "p"] and split[2:] == [["a", "0.5"], ["longer than it", ""]]


def test_the_csv_holds_every_run():
    left_out = {"missing": {"text": {"accuracy": 0.25, "mae": 2.0}}}
    results = [*RESULTS[:2], result("deq, or so", 7, 0.5, epochs=3, curve=[{}], **left_out)]
    lines = list(csv.DictReader(io.StringIO(as_csv(results))))
    for line, made in zip(lines, results, strict=True):
        assert (line["method"], int(line["run"])) == (made["method"], made["run"])
        assert {name: float(line[name]) for name in made["scores"]} == made["scores"]
        assert float(line["seconds"]) == made["seconds"]
    assert "curve" not in lines[0] and lines[0]["epochs"] == lines[0]["mae without text"] == ""
    assert (lines[2]["epochs"], float(lines[2]["mae without text"])) == ("3", 2.0)
