"""The studies of the ablations train, test and draw their rows from the command line.

They do so on digits, few of them.
"""

import csv
import json
from dataclasses import replace
from statistics import fmean

import pytest

from deq_fusion.examples.studies import ablation
from deq_fusion.examples.studies.ablation import OLD, STUDIES
from deq_fusion.examples.studies.study import INJECTIONS
from deq_fusion.examples.studies.tables import read_tables

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.usefixtures("few_digits")
SMALL = ["--dataset", "digits", "--modalities", "top left,bottom right", "--epochs", "1"]


def scores_of(folder):
    """Row -> accuracies of its runs, from the files of the runs."""
    found = {}
    for path in sorted((folder / "runs").glob("*.json")):
        result = json.loads(path.read_text())
        found.setdefault(result["method"], []).append(result["scores"]["accuracy"])
    return found


def run(study, output, *arguments):
    return ablation.main([*SMALL, "--study", study, "--output", str(output), *arguments])


def csv_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def parts(tmp_path_factory, few_digits):
    """What the study of all parts found, and its folder."""
    folder = tmp_path_factory.mktemp("parts")
    return run("parts", folder, "--runs", "2"), folder


def test_all_parts_are_trained_with_both_injections(parts):
    found, folder = parts
    rows = list(STUDIES["parts"][1])
    assert [list(line[:2]) for line in found.tables[0].rows] == [
        [i, row] for i in INJECTIONS for row in rows
    ]
    found = {injection: scores_of(folder / injection) for injection in INJECTIONS}
    assert all(len(scores) == 2 for runs in found.values() for scores in runs.values())
    assert found["raw"] != found["scale_free"]
    read = [line for line in csv_of(folder / "parts.csv") if line["score"] == "accuracy"]
    assert len(read) == 2 * len(rows)
    for line in read:
        scores, full = found[line["injection"]][line["row"]], found[line["injection"]]["full"]
        assert float(line["mean"]) == pytest.approx(fmean(scores))
        if line["row"] == "full":  # what the others are tested against
            assert line["difference"] == ""
        else:
            assert float(line["difference"]) == pytest.approx(fmean(scores) - fmean(full))


def test_only_what_has_an_equilibrium_reports_a_solve(parts):
    for injection in INJECTIONS:
        for path in (parts[1] / injection / "runs").glob("*.json"):
            result = json.loads(path.read_text())
            without = result["method"] in (
                "only_weighted_sum",
                "no_equilibrium",
                "no_equilibrium_states",
            )
            assert ("solver_steps" in result) is not without


def test_table_and_picture_are_written_and_a_second_call_trains_nothing(parts, capsys):
    found, folder = parts
    text = (folder / "parts.md").read_text()
    assert all(f"| {row} " in text for row in STUDIES["parts"][1])
    assert (folder / "parts.png").stat().st_size > 1_000
    assert (folder / "parts.svg").read_text().startswith("<?xml")
    files = [path for path in folder.rglob("*") if path.parent.name == "runs"]
    before = {path: path.stat().st_mtime_ns for path in files}
    tables = {kind: (folder / f"parts.{kind}").read_bytes() for kind in ("md", "csv", "svg")}
    assert run("parts", folder, "--runs", "2") == found
    made, tables_there = read_tables(folder / "tables.json")
    assert tables_there == {"parts": found.tables[0]}
    assert made["command"][:3] == ["python", "-m", "deq_fusion.examples.studies.ablation"]
    assert text in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in files} == before and len(before) == 28
    assert {kind: (folder / f"parts.{kind}").read_bytes() for kind in tables} == tables


@pytest.mark.parametrize(
    ("study", "injection", "rows"),
    [("jacobian", "raw", "penalty_0,penalty_10"), ("unrolled", "scale_free", "steps_2,full")],
)
def test_a_study_takes_some_rows_and_one_injection(study, injection, rows, tmp_path):
    arguments = ["--runs", "2", "--epochs", "2", "--injection", injection, "--fusions", rows]
    (table,) = run(study, tmp_path, *arguments).tables
    assert {tuple(line[:2]) for line in table.rows} == {(injection, row) for row in rows.split(",")}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [injection]
    subject = STUDIES[study][0]
    tested = {line["row"]: line["difference"] for line in csv_of(tmp_path / f"{study}.csv")}
    assert tested[subject] == ""
    assert (tmp_path / f"{study}.png").exists()
    found = scores_of(tmp_path / injection)
    assert len({tuple(scores) for scores in found.values()}) == 2  # the option made a difference


@pytest.mark.parametrize("study", STUDIES)
def test_the_rows_of_a_study_are_listed_and_nothing_is_trained(study, tmp_path, capsys):
    assert run(study, tmp_path / "out", "--list") is None
    out = capsys.readouterr().out
    for row, variant in STUDIES[study][1].items():
        assert f"| {row} " in out and variant.summary in out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--injection", "raw,both"], r"unknown ['both']; choose from scale_free, raw"),
        (["--injection", ""], r"unknown ['']; choose from scale_free, raw"),
        (["--study", "depth"], "invalid choice: 'depth'"),
        (["--fusions", "concat"], r"unknown ['concat']; choose from only_weighted_sum"),
        (["--baseline", "concat"], "unknown baseline 'concat'; choose from"),
        (["--study", "jacobian", "--fusions", "full"], r"unknown ['full']; choose from penalty_0"),
    ],
    ids=str,
)
def test_bad_arguments_are_one_clear_line(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        ablation.main([*SMALL, "--output", str(tmp_path / "out"), *arguments])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("old", "new"), OLD.items())
def test_an_old_name_of_a_row_is_refused_and_the_new_one_named(old, new, capsys):
    for asked in (["--fusions", f"full,{old}"], ["--baseline", old], ["--option", f"{old}.tol=1"]):
        with pytest.raises(SystemExit):
            ablation.main([*SMALL, *asked])
        assert f"row {old} has another name now: {new}" in capsys.readouterr().err


def test_what_makes_a_row_is_among_its_settings_and_cannot_be_changed(parts, capsys):
    _, folder = parts
    found = json.loads((folder / "raw" / "runs" / "no_gate-0.json").read_text())
    assert "'equations.gate': False" in found["settings"]["options"]
    assert (
        "'jacobian_weight': 1.0" in found["settings"]["options"]
    )  # as the recipe treats deq_paper
    with pytest.raises(SystemExit):
        ablation.main([*SMALL, "--option", "no_gate.equations.gate=True"])
    assert "--option no_gate.equations.gate is what makes this row" in capsys.readouterr().err


def test_a_run_that_fails_leaves_the_others_their_table(tmp_path, monkeypatch, capsys):
    def failing(build):
        raise RuntimeError("this row diverges")

    broken = replace(STUDIES["parts"][1]["no_equilibrium"], wrap=lambda build: failing)
    monkeypatch.setitem(STUDIES["parts"][1], "no_equilibrium", broken)
    with pytest.raises(SystemExit, match="runs that failed: 2"):
        run(
            "parts",
            tmp_path,
            "--runs",
            "1",
            "--fusions",
            "only_weighted_sum,no_equilibrium",
            "--jobs",
            "1",
        )
    lines = (tmp_path / "parts.md").read_text().splitlines()[4:]
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in lines]
    assert rows == [["scale_free", "only_weighted_sum"], ["raw", "only_weighted_sum"]]
    assert (
        tmp_path / "parts.png"
    ).exists() and "no_equilibrium failed in run 0" in capsys.readouterr().out
