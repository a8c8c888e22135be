"""Published files: whole, sealed, and what the stored runs of a comparison or a study say."""

import json
import math
from dataclasses import replace
from statistics import fmean, stdev

import pytest
from scipy import stats

from deq_fusion.examples.studies.publish import add, main, publish, with_rows_of
from deq_fusion.examples.studies.published_tables import read_all, read_published
from deq_fusion.examples.studies.score_tables import of_rows
from deq_fusion.examples.studies.tables import write_tables
from deq_fusion.training_structures.comparison import compare
from deq_fusion.training_structures.files import Damaged, Unsigned, write_json
from unit_tests.examples.sample_tables import COMMIT, published, small
from unit_tests.training_structures.comparison import toy

RUNS = 6


def test_a_published_table_is_read_as_it_was_written(tmp_path):
    other = {"raw, none": ("f" * 40, "2025-12-24")}
    table = published(rows=other, tests="paired t-test", older="it is old", measured=False)
    assert read_published(table.save(tmp_path)) == table
    assert table.marks() == {"raw, none": "†"}
    assert table.origin() == (
        "Published at `0123456`, 2026-01-31; torch 2.13; one thread of a CPU. **Not measured again "
        "since: it is old.** †: at `fffffff`, 2025-12-24."
    )
    assert published(commit=f"{COMMIT}+").origin().startswith("Measured at `0123456+`, 2026-01-31;")
    assert published(source="A, 2023").origin() == "Published by others: A, 2023."


@pytest.mark.parametrize(
    "damage, error, message",
    [
        (lambda text: text.replace("0.774", "0.974"), Damaged, "its checksum differs"),
        (lambda text: text[:-40], Damaged, "must end with its checksum"),
        (lambda text: json.dumps({"name": "small"}), Unsigned, "has no checksum"),
        (lambda text: text, Damaged, "must be a published table named 'other'"),
    ],
)
def test_a_damaged_published_file_is_refused(tmp_path, damage, error, message):
    path = published().save(tmp_path)
    other = path.with_name("other.json") if "'other'" in message else path
    other.write_text(damage(path.read_text()))
    with pytest.raises(error, match=message):
        read_published(other)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"commit": None}, "must say its commit, as text"),
        ({"versions": "torch", "rows": {"raw, no": ("a", "b")}}, "rows come from that it does not"),
        ({"rows": {"raw, full": "2026"}}, "must be a published table, but is not"),
    ],
)
def test_a_published_file_that_does_not_tell_all_is_refused(tmp_path, changes, message):
    path = replace(published(), **changes).save(tmp_path)
    with pytest.raises(Damaged, match=message):
        read_published(path)


def test_without_published_tables_it_is_said_where_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="they are in a checkout of the project"):
        read_all(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The results folder of a tiny comparison."""
    path = tmp_path_factory.mktemp("results")
    recipe = toy.recipe(resplit=True, epochs=1)
    compare(recipe, toy.FUSIONS, RUNS, output=path, progress=False).write(path)
    return path


def with_runs(folder, target, change):
    """Writes results.json with other runs to a folder."""
    content = json.loads((folder / "results.json").read_text())
    del content["sha256"]
    change(content)
    write_json(target / "results.json", content)
    return target


def test_what_is_published_is_what_the_stored_runs_say(folder, tmp_path):
    (found,) = publish(folder, "toy", command=["deq-fusion compare"], there=tmp_path)
    runs = [json.loads(path.read_text()) for path in (folder / "runs").glob("*.json")]
    scores = {}
    for run in runs:
        scores.setdefault(run["method"], {})[run["run"]] = run["scores"]["accuracy"]
    assert set(scores) == set(found.table.row_names)
    tests = {}
    for method, own in scores.items():
        cell = found.table.cell(method, "accuracy")
        assert (cell.mean, cell.sd) == pytest.approx((fmean(own.values()), stdev(own.values())))
        assert found.table.cell(method, "runs") == RUNS
        if method == "concat":
            assert found.table.cell(method, "minus concat") is None
            continue
        gains = [own[run] - scores["concat"][run] for run in range(RUNS)]
        # Nadeau and Bengio (2003): 1 / runs + test / train in place of 1 / runs
        error = stdev(gains) * math.sqrt(1 / RUNS + toy.SIZES[2] / toy.SIZES[0])
        half = stats.t.ppf(0.975, RUNS - 1) * error
        cell, mean = found.table.cell(method, "minus concat"), fmean(gains)
        assert (cell.value, cell.low, cell.high) == pytest.approx((mean, mean - half, mean + half))
        tests[method] = 2 * stats.t.sf(abs(mean / error), RUNS - 1) if error else float(mean == 0)
    largest = 0
    for at, method in enumerate(sorted(tests, key=tests.get)):  # Holm (1979)
        largest = max(largest, min(1, tests[method] * (len(tests) - at)))
        assert found.table.cell(method, "p") == pytest.approx(largest)
    assert "resampling (Nadeau and Bengio, 2003)" in found.tests and found.measured
    assert found.commit == runs[0]["made_by"]["commit"] and found.date == runs[0]["date"]


def test_a_comparisons_robustness_is_published_where_asked(folder, tmp_path):
    test = {"difference": 0.5, "low": 0.25, "high": 0.75, "p": 0.03125}
    own = {"kind": "noise", "where": "all", "curve": [0.5, 0.25], "relative": {"mean": 1, "sd": 2}}
    rows = [{**own, "method": "concat"}, {**own, "method": "mine", "difference": test}]
    missing = {"kind": "missing", "where": "any", "relative": {"mean": 3, "sd": 4}}
    rows += [{**own, **missing, "method": "mine", "effective": test, "present_minus_zeros": test}]
    rows += [{**own, "method": "mine", "where": "a"}]  # of one modality: not in this table
    target = with_runs(folder, tmp_path, lambda content: content.update(robustness=rows))
    asked = {"command": ["it"], "there": tmp_path, "only": ["robustness"]}
    (found,) = publish(target, "robust", **asked)
    shown = {column.name: found.table.text("mine", column.name) for column in found.table.columns}
    assert found.name == "robust" and found.table.row_names == ["concat", "mine"]
    assert shown == {
        "method": "mine",
        "clean": "50.0",
        "noise": "100.0 ± 200.0",
        "noise, minus concat": "+50.0 [+25.0, +75.0]",
        "noise, p": "0.031",
        "missing": "300.0 ± 400.0",
        "missing, effective": "+50.0 [+25.0, +75.0]",
        "missing, effective p": "0.031",
        "present minus zeros": "+50.0 [+25.0, +75.0]",
    }
    with pytest.raises(KeyError, match="there is no table 'robustness' in .*: scores"):
        list(publish(folder, "robust", **asked))


def test_a_comparisons_diagnoses_are_published_where_asked(folder, tmp_path):
    value = {"mean": 0.5, "sd": 0.125, "low": 0.25, "high": 0.75}
    rows = [{"method": "mine", "brought": {"a": value, "b": value}, "interaction": value}]
    calibration = {name: value for name in ("surplus", "ece", "brier", "temperature")}
    rows.append({"method": "late", "calibration": calibration, "reliability": []})
    target = with_runs(folder, tmp_path, lambda content: content.update(diagnoses=rows))
    asked = {"command": ["it"], "there": tmp_path, "only": ["diagnoses"]}
    (found,) = publish(target, "told", **asked)
    around = {"from a": "+50.0 [+25.0, +75.0]", "from b": "+50.0 [+25.0, +75.0]"}
    sure = {"too sure by": "+50.0 [+25.0, +75.0]", "ECE": "50.0 [25.0, 75.0]"}
    for method, expected in (
        ("mine", {**around, "interaction": "50.0 [25.0, 75.0]"}),
        ("late", {**sure, "Brier": "0.500", "temperature": "0.50"}),
    ):
        shown = {
            column.name: found.table.text(method, column.name) for column in found.table.columns
        }
        assert {k: v for k, v in shown.items() if v} == {"method": method, **expected}


def test_what_is_of_no_commit_or_failed_is_refused(folder, tmp_path):
    def made_at(commit):
        def change(content):
            for run in content["runs"]:
                run["made_by"]["commit"] = commit

        return with_runs(folder, tmp_path, change)

    asked = {"command": ["make"], "there": tmp_path}
    with pytest.raises(ValueError, match="was made of code that is in no commit"):
        add(made_at(f"{COMMIT}+"), "toy", **asked)
    (path,) = add(tmp_path, "toy", dirty=True, machine="a laptop", **asked)
    assert read_published(path).commit == f"{COMMIT}+"
    assert read_published(path).machine == "a laptop"
    with pytest.raises(ValueError, match="must be made in a checkout"):
        add(made_at(None), "toy", **asked)
    with pytest.raises(ValueError, match="--command must say what makes new, which is new"):
        add(made_at(COMMIT), "new", there=tmp_path)
    with pytest.raises(ValueError, match="1 runs of .* failed; run it again"):
        add(with_runs(folder, tmp_path, lambda c: c["failures"].append({})), "toy", **asked)
    with pytest.raises(ValueError, match="is of an earlier version; run its command again"):
        add(with_runs(folder, tmp_path, lambda c: c.pop("scores")), "toy", **asked)


def test_rows_of_older_runs_keep_their_commit_and_date(folder, tmp_path):
    def change(content):
        for run in content["runs"]:
            old = run["method"] == "sum" and run["run"] == 2
            run["made_by"]["commit"], run["date"] = (
                ("a" * 40, "2020-01-31") if old else (COMMIT, "2026-01-31")
            )

    asked = {"command": ["make"], "there": tmp_path}
    (path,) = add(with_runs(folder, tmp_path, change), "toy", title="a toy", **asked)
    found = read_published(path)
    assert (found.commit, found.date) == (COMMIT, "2026-01-31")
    assert found.rows == {"sum": ("a" * 40, "2020-01-31")}
    (again,) = publish(tmp_path, "toy", there=tmp_path)
    assert again == found  # its title and command are kept


def test_rows_that_were_not_run_again_stay_where_asked():
    before = published(rows={"raw, none": ("a" * 40, "2020-01-31")}, commands=["one"])
    fewer = small(rows=small().rows[:1]).part(["accuracy", "runs", "gate"])
    now = published(fewer, commit="b" * 40, date="2026-02-01", commands=["two"])
    both = with_rows_of(now, before)
    assert both.table.row_names == before.table.row_names and both.commands == ["one", "two"]
    assert both.table.cell("raw, none", "accuracy") == "failed"
    assert both.rows == {
        "raw, no|gate": (COMMIT, "2026-01-31"),
        "raw, none": ("a" * 40, "2020-01-31"),
    }


def test_a_studys_tables_are_published(tmp_path, capsys):
    write_tables(tmp_path, [small("shares", title="Shares"), small("noise")], command=["study"])
    asked = {"command": ["study"], "there": tmp_path, "dirty": True}
    names = [path.name for path in add(tmp_path, "gates", **asked)]
    assert names == ["gates_shares.json", "gates_noise.json"]
    (path,) = add(tmp_path, "gates", only=["shares"], **asked)
    found = read_published(path)
    assert path.name == "gates.json" and found.title == "Shares"
    assert found.table == small("gates", title="Shares")
    replace(found, tests="a test", older="it is old").save(tmp_path)
    (again,) = publish(tmp_path, "gates", only=["noise"], there=tmp_path)
    assert (again.title, again.tests, again.older) == ("Shares", "a test", "")
    with pytest.raises(SystemExit, match="publish: there is no table 'steps' in .*: shares, noise"):
        main(["add", str(tmp_path), "--name", "gates", "--command", "x", "--table", "steps"])


def test_a_comparisons_table_is_the_one_that_it_shows(folder):
    recipe = toy.recipe(resplit=True, epochs=1)
    found = compare(recipe, toy.FUSIONS, RUNS, output=folder, progress=False)
    table = of_rows("toy", found.table(), found.scores, found.baseline)
    shown = (folder / "results.md").read_text().split("\n\n")
    lines = next(part for part in shown if part.startswith("| method")).splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    plain = [[cell.removesuffix(" %") for cell in line] for line in cells]
    assert plain == [table.texts(row) for row in table.rows]


def test_rows_do_not_go_unsaid(tmp_path):
    asked = {"command": ["study"], "there": tmp_path / "there", "dirty": True}
    write_tables(tmp_path, [small()], command=["study"])
    (path,) = add(tmp_path, "parts", **asked)
    write_tables(tmp_path, [small(rows=small().rows[:2])], command=["study"])
    with pytest.raises(ValueError, match="lacks rows that parts.json has: raw, none; let them"):
        add(tmp_path, "parts", **asked)
    add(tmp_path, "parts", rows="keep", **asked)
    assert read_published(path).table.rows == small().rows
    add(tmp_path, "parts", rows="drop", **asked)
    assert read_published(path).table.rows == small().rows[:2]


def test_pages_are_written_where_they_differ(tmp_path, capsys, monkeypatch):
    page = tmp_path / "docs" / "page.md"
    monkeypatch.setattr("deq_fusion.examples.studies.publish.rendered", lambda: {page: "± text\n"})
    for expected in (f"{page}\n", ""):
        main(["render"])
        assert capsys.readouterr().out == expected
    assert page.read_text(encoding="utf-8") == "± text\n"
