"""A checkpoint is written whole or not at all, and one that does not fit is refused and kept."""

import errno
import os
import pickle
import random

import numpy as np
import pytest
import torch
from torch import nn

from deq_fusion.training_structures import checkpoint, files
from deq_fusion.training_structures.checkpoint import (
    load_checkpoint,
    rng_state,
    save_checkpoint,
    seeded,
    set_rng_state,
)
from deq_fusion.training_structures.files import save_atomically


def draws():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random(), random.gauss(0, 1)


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "new" / "run.ckpt"
    save_checkpoint(path, {"weights": {"w": torch.randn(2, 3)}, "numbers": [1, 2.5, None, "a"]})
    loaded = load_checkpoint(path)
    assert loaded["numbers"] == [1, 2.5, None, "a"]
    assert loaded["weights"]["w"].shape == (2, 3)
    assert os.listdir(path.parent) == ["run.ckpt"]


def test_a_link_keeps_pointing_at_the_file(tmp_path):
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    save_atomically(tmp_path / "link", lambda file: file.write(b"new"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


class FullDisk:
    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        self.file.write(bytes(data)[:100])
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch, where):
    path = tmp_path / "run.ckpt"
    save_checkpoint(path, {"epoch": 1})
    before = path.read_bytes()

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if where == "write":
            patch.setattr(files, "open", lambda *a: FullDisk(open(*a)), raising=False)
        else:
            patch.setattr(os, where, fail)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(path, {"epoch": 2})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.ckpt"]


def test_torchs_word_for_a_failed_write_is_translated(tmp_path):
    def write(file):
        raise RuntimeError("unexpected pos 704 vs 598")

    with pytest.raises(OSError, match="could not write .*is the disk full"):
        save_atomically(tmp_path / "run.ckpt", write)
    assert os.listdir(tmp_path) == []


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "pickle", "module", "evil"])
def test_another_file_is_refused_and_left_as_it_was(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file"
    save_checkpoint(path, {"weights": torch.randn(100)})
    if kind == "module":
        torch.save(nn.Linear(2, 2), path)
    elif kind == "evil":
        torch.save({"format": checkpoint.FORMAT, "x": Evil()}, path)
    else:
        contents = {
            "empty": b"",
            "text": b"not a checkpoint",
            "truncated": path.read_bytes()[:-200],
            "pickle": pickle.dumps({"a": 1}),
        }
        path.write_bytes(contents[kind])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not a checkpoint of this library.*was left as it is"):
        load_checkpoint(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["file"]


def test_plain_tensors_of_another_program_are_refused(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="not a checkpoint of this library"):
        load_checkpoint(tmp_path / "weights.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint .*gone.ckpt"):
        load_checkpoint(tmp_path / "gone.ckpt")


def test_random_states_survive_a_file(tmp_path):
    random.gauss(0, 1)  # the other half of the pair is part of the state
    save_checkpoint(tmp_path / "rng", {"rng": rng_state()})
    expected = draws()
    draws()
    set_rng_state(load_checkpoint(tmp_path / "rng")["rng"])
    assert draws() == expected


def test_seeding_ends_with_its_block_even_after_an_error():
    start = rng_state()
    expected = draws()
    set_rng_state(start)
    seen = []
    for _ in range(2):
        with pytest.raises(KeyError), seeded(3):
            seen.append(draws())
            raise KeyError
    assert seen[0] == seen[1] != expected
    assert draws() == expected
