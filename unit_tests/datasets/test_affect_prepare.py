"""CMU-MOSI's files: listed with where each is from, verified where it can be, never touched."""

import hashlib

import numpy as np
import pytest

from deq_fusion.datasets.affect.prepare import FILES, Known, check, main
from deq_fusion.datasets.files.download import Expected
from unit_tests.real_data import real


def run(folder):
    main(["--data-dir", str(folder)])


@pytest.fixture
def published(monkeypatch):
    """A stand-in for a file whose checksum is published."""
    expected = Expected(sha256=hashlib.sha256(b"as published").hexdigest())
    monkeypatch.setitem(FILES, "aligned_50.pkl", Known(expected, "MMSA's", "MMSA's drive"))
    return b"as published"


def write_utterances(folder, **changes):
    rows = {name: np.zeros((4, 2), np.float32) for name in ("text", "audio", "vision")}
    names = np.array(list("abcd"))
    rows |= {"labels": np.zeros(4, np.float32), "id": names, "video_id": names}
    np.savez(folder / "mosi_utterance.npz", **rows, split=["train"] * 3 + ["test"], **changes)


def test_every_file_is_listed_with_its_source_and_checksum(tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        run(tmp_path)
    output = capsys.readouterr()
    for name, known in FILES.items():
        assert f"{name}: {known.content}\n    not there; it is in {known.source}" in output.out
    assert output.out.count("SHA-256 ") == 2  # MMSA's
    assert "none of the files" in output.err and "get one of them" in output.err


def test_a_file_with_its_checksum_is_told_from_one_that_has_none(tmp_path, capsys, published):
    (tmp_path / "aligned_50.pkl").write_bytes(published)
    (tmp_path / "train.tsv").write_bytes(b"anything")
    write_utterances(tmp_path)
    assert check(tmp_path) == {
        "aligned_50.pkl": "has its published SHA-256",
        "train.tsv": "no checksum is known, not verified",
        "mosi_utterance.npz": "reads as it should",
    }
    run(tmp_path)
    output = capsys.readouterr().out
    assert "aligned_50.pkl: MMSA's\n    there\n" in output
    assert "aligned_50.pkl: has its published SHA-256\n" in output


def test_every_wrong_file_is_named_and_left_where_it_is(tmp_path, capsys, published):
    wrong = {
        "aligned_50.pkl": b"another",
        "mosi_raw.pkl": b"cos\nsystem\n(S'true'\ntR.",
        "mosi_utterance.npz": b"no archive",
    }
    for name, content in wrong.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit, match="1"):
        run(tmp_path)
    output = capsys.readouterr()
    found = hashlib.sha256(b"another").hexdigest()
    assert (
        f"aligned_50.pkl is there, but is not the published file: its SHA-256 is {found}, not"
        in (output.err)
    )
    assert "mosi_raw.pkl may hold NumPy arrays and plain containers only" in output.err
    assert "mosi_utterance.npz must be a whole npz file" in output.err
    assert "mosi_raw.pkl: MultiBench's" in output.out  # the list comes all the same
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == wrong


def test_the_help_says_what_the_command_does(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "no stable public address" in text and "exit status is 1" in text


@pytest.mark.slow
def test_the_real_file_reads_as_it_should(capsys):
    run(real("mosi/mosi_utterance.npz").parent)
    assert "mosi_utterance.npz: reads as it should" in capsys.readouterr().out
