"""Advice follows from tests between methods, and from diagnoses; of too few runs there is none."""

import numpy as np
import pytest
from scipy import stats

from deq_fusion.training_structures.comparison.methods import FLOOR, FUSION, SINGLE, Method
from deq_fusion.training_structures.comparison.recipe import Score
from deq_fusion.training_structures.comparison.report.advice import advice
from deq_fusion.training_structures.comparison.report.findings import Findings
from unit_tests.training_structures.comparison import toy

MEANS = {"big": 0.9, "small": 0.9, "far": 0.5, "only a": 0.4, "floor": 0.3}
SECONDS = {"big": 10.0, "small": 2.0, "far": 0.1, "only a": 0.1, "floor": 0.0}
KINDS = {"only a": SINGLE, "floor": FLOOR}


def run_of(name, run, mean, interaction=None, brings=None, tested=0.0):
    # waves over eight runs: of mean 0, and another for each method
    noise = 0.01 * np.cos(2 * np.pi * (1 + [*MEANS].index(name)) * run / 8)
    valid = mean + noise + 0.001 * (name == "big")  # so that this is chosen
    score = mean + noise + tested
    result = {"method": name, "run": run, "seconds": SECONDS[name], "scores": {"it": score}}
    result |= {"valid": {"it": valid}, "kind": KINDS.get(name, FUSION)}
    if interaction is None:
        return result
    # of two modalities; InterSHAP is the share of what is off the diagonal
    pair = interaction / (1 - interaction)
    a, b = brings
    scores = [0.0, a, b + 0.001 * run, a + b + 0.001 * run]
    sets = [
        {"with": names, "scores": {"it": value}}
        for names, value in zip(([], ["a"], ["b"], ["a", "b"]), scores, strict=True)
    ]
    strengths = [[0.5, pair], [pair, 0.5]]
    reasons = {"calibration": "has none"}
    return result | {"diagnoses": {"not": reasons, "sets": sets, "strengths": strengths}}


def found(means=MEANS, runs=8, interaction=None, brings=(0.4, 0.4), tested=None, **changes):
    tested = tested or {}
    shares = interaction or {}
    results = [
        run_of(name, run, mean, shares.get(name), brings, tested.get(name, 0.0))
        for name, mean in means.items()
        for run in range(runs)
    ]
    recipe = toy.recipe()
    methods = [Method(name, recipe, object(), KINDS.get(name, FUSION)) for name in means]
    given = {"recipe": recipe, "methods": methods, "results": results, "skipped": {}}
    given |= {"failures": [], "reused": [], "score": Score("it"), "baseline": None}
    given |= {"subject": None, "test_share": None, "asked": "", "made_by": {}}
    return Findings(**given | changes)


def test_the_cheapest_that_is_within_chance_of_the_choice_comes_first():
    (said,) = advice(found())
    assert said.startswith(
        "What to try on these data: small first: on validation it is within "
        "chance of big, which is chosen there"
    )
    assert said.endswith("in 20% of the time.")


def test_what_the_test_part_says_chooses_nothing():
    plain = advice(found())
    assert advice(found(tested={"small": -0.4})) == plain
    assert advice(found(tested={"far": 0.4})) == plain


def test_where_all_that_is_cheaper_is_worse_the_choice_stands():
    (said,) = advice(found({**MEANS, "small": 0.8}))
    assert said.endswith(
        "big, which validation chooses; nothing that is cheaper is within chance of it."
    )


def test_other_methods_do_not_make_one_that_is_worse_look_alike(monkeypatch):
    monkeypatch.setitem(SECONDS, "far", 9.0)  # it is alike, and no cheaper

    def p_of(name, mean):
        own, big = (
            [run_of(n, run, m)["valid"]["it"] for run in range(8)]
            for n, m in ((name, mean), ("big", MEANS["big"]))
        )
        return stats.ttest_rel(own, big).pvalue

    mean = next(m for m in np.arange(MEANS["big"], 0, -0.0005) if p_of("small", m) < 0.04)
    assert 0.025 < p_of("small", mean) < p_of("far", MEANS["big"])  # Holm's doubles the former
    (said,) = advice(found({"big": MEANS["big"], "small": mean, "far": MEANS["big"]}))
    assert said.endswith("nothing that is cheaper is within chance of it.")


def test_a_single_modality_that_does_needs_no_fusion_and_floors_are_no_methods():
    (said,) = advice(found({"big": 0.9, "only a": 0.9, "floor": 0.9}))
    assert "only a first" in said and said.endswith("in 1% of the time, and needs no fusion.")


@pytest.mark.parametrize(
    ("small", "answer"),
    [
        (0.9, "letting modalities interact is not shown to help: what adds them up may do"),
        (0.5, "modalities interact, so try fusions that multiply or gate them"),
        (0.99, "letting modalities interact hurts, so keep to fusions that add them up"),
    ],
)
def test_what_joins_modalities_is_tested_against_what_adds_them_up(small, answer):
    shares = {"big": 0.5, "small": 0.01}
    (said,) = advice(found({"big": 0.9, "small": small}, interaction=shares))
    assert f"By the best of each kind on validation, {answer}: " in said
    assert "big (interaction 50%) minus small (1%)" in said


def test_between_the_two_kinds_of_fusions_nothing_is_said():
    (said,) = advice(found({"big": 0.9, "small": 0.9}, interaction={"big": 0.1, "small": 0.01}))
    assert "interact" not in said


@pytest.mark.parametrize(("brings", "idle"), [((0.4, 0.4), ""), ((0.4, -0.1), "b brings nothing")])
def test_modalities_that_bring_nothing_are_named(brings, idle):
    (said,) = advice(found({"big": 0.9, "small": 0.1}, interaction={"big": 0.5}, brings=brings))
    assert (f"{idle} to big" in said) if idle else "brings nothing" not in said


def test_of_too_few_runs_or_without_a_choice_nothing_is_advised():
    assert advice(found(runs=5)) == []
    assert advice(found({"floor": 0.3})) == []
    assert advice(found({"big": 0.9})) == []
