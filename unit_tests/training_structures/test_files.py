"""Files of ours: what was damaged is noticed, what cannot be written leaves what was there."""

import errno
import hashlib
import json
import os
import pickle
import random
import subprocess
import sys
import tracemalloc

import pytest
import torch

from deq_fusion.training_structures import files
from deq_fusion.training_structures.checkpoint import load_checkpoint, save_checkpoint
from deq_fusion.training_structures.files import (
    CannotWrite,
    Damaged,
    Unsigned,
    is_alive,
    read_json,
    save_atomically,
    set_aside,
    shown,
    write_json,
)

CONTENT = {"numbers": [1, 2.5, float("nan"), None], "text": "ä\ud800", "deep": {"a": {"b": []}}}


@pytest.fixture
def stored(tmp_path):
    write_json(tmp_path / "run.json", CONTENT)
    return tmp_path / "run.json"


def flips(content, number, seed=0):
    """The content with one bit changed, at different places."""
    for bit in random.Random(seed).sample(range(8 * len(content)), number):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def test_what_is_written_is_read_and_its_checksum_is_that_of_all_before_it(stored):
    assert repr(read_json(stored)) == repr(CONTENT)
    body, seal = stored.read_bytes().rsplit(b',\n "sha256": "', 1)
    assert seal == hashlib.sha256(body).hexdigest().encode() + b'"\n}'
    plain = json.loads(stored.read_text(encoding="utf-8"))
    assert list(plain)[-1] == "sha256" and plain["deep"] == CONTENT["deep"]


def test_400_of_400_flipped_bits_of_json_are_noticed(stored):
    for changed in flips(stored.read_bytes(), 400):
        stored.write_bytes(changed)
        with pytest.raises(Damaged, match="run.json"):
            read_json(stored)


def test_400_of_400_flipped_bits_of_a_checkpoint_are_noticed(tmp_path):
    path = tmp_path / "run.ckpt"
    save_checkpoint(path, {"weights": torch.arange(9.0), "epoch": 3})
    for changed in flips(path.read_bytes(), 400):
        path.write_bytes(changed)
        with pytest.raises(Damaged, match="run.ckpt"):
            load_checkpoint(path)


@pytest.mark.parametrize("mmap", [False, True])
def test_a_checkpoint_is_a_file_of_torch_and_its_checksum_that_of_all_before_it(tmp_path, mmap):
    path = tmp_path / "run.ckpt"
    save_checkpoint(path, {"weights": torch.arange(1000.0)})
    found = torch.load(path, weights_only=True, mmap=mmap)
    torch.testing.assert_close(found["weights"], torch.arange(1000.0), rtol=0, atol=0)
    content = path.read_bytes()
    assert content[-71:] == b"sha256=" + hashlib.sha256(content[:-71]).hexdigest().encode()


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"", Damaged, "must end with its checksum"),
        (b'{"a": 1', Damaged, "must end with its checksum"),
        (b'{"a": 1}', Unsigned, "has no checksum: it is of an earlier version"),
        (b"[1]", Damaged, "must end with its checksum"),
        (b"\xff\xfe{}", Damaged, "must end with its checksum"),
        (b"[" * 100_000 + b"]" * 100_000, Damaged, "must end with its checksum"),
        (b'{"a": 1,\n "sha256": "' + b"0" * 64 + b'"\n}', Damaged, "its checksum differs"),
    ],
)
def test_other_json_is_refused(tmp_path, content, kind, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(Damaged, match=message) as caught:
        read_json(tmp_path / "a.json")
    assert type(caught.value) is kind
    assert caught.value.suffix == ("old" if kind is Unsigned else "damaged")
    assert type(pickle.loads(pickle.dumps(caught.value))) is kind


@pytest.mark.parametrize("body", [b"[1, 2", b'{"a": ' + b"[" * 100_000, b'{"a": \xff'])
def test_a_right_checksum_makes_nothing_json(tmp_path, body):
    seal = f',\n "sha256": "{hashlib.sha256(body).hexdigest()}"\n}}'.encode()
    (tmp_path / "a.json").write_bytes(body + seal)
    with pytest.raises(Damaged, match="must hold a JSON object"):
        read_json(tmp_path / "a.json")


def test_a_file_that_is_too_large_is_not_read(stored, monkeypatch):
    monkeypatch.setattr(files, "LIMIT", 50)
    with pytest.raises(Damaged, match="at most 50 bytes, but has more"):
        read_json(stored)


@pytest.mark.parametrize("read", [read_json, load_checkpoint])
def test_what_is_no_file_is_refused_at_once(tmp_path, read):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Damaged, match="folder must be a file, but is a folder"):
        read(tmp_path / "folder")
    with pytest.raises(Damaged, match="pipe must be a file, but is a pipe"):
        read(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError, match="there is no .*gone"):
        read(tmp_path / "gone")


def test_what_is_set_aside_is_kept_under_names_of_its_own(tmp_path):
    for text in ("first", "second"):
        (tmp_path / "a").write_text(text, encoding="utf-8")
        set_aside(tmp_path / "a", "old")
    kept = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert kept == {"a.old": "first", "a.old2": "second"}
    with pytest.raises(CannotWrite, match="could not write .*gone: it cannot be renamed"):
        set_aside(tmp_path / "gone", "old")


def test_a_folder_in_the_way_is_named(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(CannotWrite, match=r"could not write .*/a: Is a directory; see to"):
        save_atomically(tmp_path / "a", lambda file: file.write(b"x"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_disk_that_torch_finds_full_is_named(tmp_path):
    class Full:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left on device"):
        files._write_sealed(lambda file: torch.save([torch.ones(9)], file), Full())


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    gone = int(gone.stdout)
    assert not is_alive(gone) and is_alive(os.getpid())
    for name in (f".a.{gone}.tmp", f".a.{os.getppid()}.tmp", f".b.{gone}.tmp", f"a.{gone}.tmp"):
        (tmp_path / name).touch()
    save_atomically(tmp_path / "a", lambda file: file.write(b"x"))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a", f".a.{os.getppid()}.tmp", f".b.{gone}.tmp", f"a.{gone}.tmp"}
    files.remove_leftovers(tmp_path)
    assert left - {path.name for path in tmp_path.iterdir()} == {f".b.{gone}.tmp"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a" * 100, "a" * 80 + "..."),
        ("\x1b[31m\n", r"\x1b[31m\n"),
        ([list(range(100))], "[[0, 1, 2, 3, 4, 5, ...]]"),
    ],
)
def test_foreign_values_are_shown_cut_and_escaped(value, expected):
    assert shown(value) == expected


def test_what_shares_its_parts_is_not_shown_whole():
    value = ()
    for _ in range(60):
        value = (value, value)
    assert len(shown(value)) < 1000


def test_a_small_file_takes_no_more_memory_than_it_has(stored):
    tracemalloc.start()
    try:
        assert read_json(stored)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
