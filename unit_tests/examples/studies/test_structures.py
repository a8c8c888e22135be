"""The study of synthetic structures compares fusions set by set, against the best possible rule."""

import json
from dataclasses import replace
from statistics import fmean

import pytest

from deq_fusion import compare
from deq_fusion.datasets.synthetic.vectors import KINDS, Structure
from deq_fusion.examples.studies.structures.__main__ import main
from deq_fusion.examples.studies.structures.sets import SETS
from deq_fusion.examples.studies.structures.summary import in_order, reached
from deq_fusion.examples.studies.tables import read_tables
from deq_fusion.examples.synthetic.vectors.recipe import recipe

QUICK = ["--fusions", "concat,mutan", "--runs", "2", "--epochs", "1"]


def test_every_set_is_one_that_can_be_drawn_and_every_kind_is_there():
    made = {name: recipe(**each.settings, samples=40) for name, each in SETS.items()}
    assert {each.settings["kind"] for each in SETS.values()} == set(KINDS)
    assert len({str(each.settings) for each in SETS.values()}) == len(made) == len(SETS)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    pytest.importorskip("matplotlib")
    output = tmp_path_factory.mktemp("structures")
    arguments = ["--sets", "unique,noise", "--samples", "40,80", *QUICK, "--output", str(output)]
    return main(arguments), output, arguments


def test_the_tables_hold_the_scores_of_all_runs(found):
    told, output, _ = found
    scores, tests = told.tables
    for samples in (40, 80):
        for name in ("unique", "noise"):
            files = (output / str(samples) / name / "runs").glob("mutan-*.json")
            values = [json.loads(path.read_text())["scores"]["accuracy"] for path in files]
            cell = scores.cell(f"{samples}, mutan", name)
            assert cell.mean == pytest.approx(fmean(values)) and len(values) == 2
            assert tests.cell(f"{samples}, {name}, mutan", "accuracy") == cell
    assert read_tables(output / "tables.json")[1] == {t.name: t for t in told.tables}
    assert all((output / f"{name}.png").stat().st_size > 0 for name in ("structures", "sizes"))


def test_what_is_reached_lies_between_a_coin_and_the_best_rule(found):
    _, tests = found[0].tables
    for method in ("mutan", "linear", "bayes"):
        accuracy, best = (
            tests.cell(f"80, unique, {name}", "accuracy").mean for name in (method, "bayes")
        )
        share = tests.cell(f"80, unique, {method}", "reached")
        assert share == pytest.approx((accuracy - 0.5) / (best - 0.5))
    assert tests.cell("80, noise, mutan", "reached") is None
    assert tests.cell("80, unique, bayes", "accuracy").mean == pytest.approx(
        Structure("unique", 3).accuracy(), abs=0.02
    )


def test_methods_come_by_what_they_reach_the_floors_first():
    made = {}
    for name in ("additive", "parity_2"):
        short = replace(recipe(**SETS[name].settings, samples=80, width=4), epochs=1)
        made[80, name] = compare(short, ["sum", "concat"], runs=2, unimodal=False)
    shares = reached(made)
    assert shares[80, "additive"]["linear"] > 0.5 > shares[80, "parity_2"]["linear"]
    means = {name: fmean(each[name] for each in shares.values()) for name in ("sum", "concat")}
    best = sorted(means, key=lambda name: -means[name])
    assert in_order(made) == ["bayes", "linear", *best]


def test_finished_runs_are_used_again_and_nothing_is_estimated_twice(found, capsys):
    _, output, arguments = found
    runs = {path: path.stat().st_mtime_ns for path in output.rglob("runs/*.json")}
    main(arguments)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("runs/*.json")} == runs
    assert "all runs are stored" in capsys.readouterr().err


def test_it_first_says_how_long_it_takes(tmp_path, capsys):
    main(["--sets", "noise", "--samples", "16", *QUICK, "--output", str(tmp_path)])
    assert "1 of 1 comparisons are left: at most " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sets", "parity_9"], "unknown ['parity_9']"),
        (["--samples", "3"], "8"),
        (["--set", "kind=parity"], "--set kind: the sets say it"),
        (["--set", "wdth=4"], "wdth"),
    ],
)
def test_arguments_that_make_no_sense_are_one_error(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main([*arguments, *QUICK])
    assert message in capsys.readouterr().err


def test_the_list_is_of_sets(capsys):
    assert main(["--list"]) is None
    told = capsys.readouterr().out
    assert all(name in told for name in SETS)
