"""Checkpoints: plain tensors and numbers, written whole or not at all; loading runs no code."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from .checked_pickle import BYTES, check_pickle
from .files import Damaged, check_regular, check_zip, read_member, write_zip

FORMAT = "deq-fusion checkpoint 1"
PLAIN = "tensors, numbers and text, in dicts, lists and tuples"
LEFT_ALONE = "the file was left as it is: name another one, or remove it to start anew"


def save_checkpoint(path: str | Path, contents: Mapping[str, Any]) -> None:
    """Writes `contents`, nested dicts, lists and tuples of tensors, numbers and strings.

    The file is torch's, for `torch.load(path, weights_only=True)`; a comment at its end holds
    the SHA-256 of all before it.

    Raises:
        CannotWrite: if the file could not be written; what was there stays.
    """
    write_zip(path, partial(torch.save, {"format": FORMAT, **contents}))


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Returns what `save_checkpoint` wrote, its tensors on the CPU.

    A file of any size is refused in a single pass, in little memory: what torch would read is
    looked through before it is, see `checked_pickle` for the bounds (some 40,000 tensors).

    Raises:
        FileNotFoundError: if there is no such file.
        Damaged: a ValueError, if it is not as it was written, or of another kind; `Unsigned`
            if it has no checksum, as those of before there were any.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        check_regular(path)
        with open(path, "rb") as file:
            check_zip(file, path)
            contents = _loaded(file, path)
    except Damaged as error:
        raise type(error)(f"{error}; {LEFT_ALONE}") from error
    return contents


def _loaded(file: BinaryIO, path: Path) -> dict[str, Any]:
    try:
        check_pickle(read_member(file, path, "data.pkl", BYTES))
    except Damaged:
        raise
    except ValueError as error:
        raise Damaged(f"{path} must hold {PLAIN}, but {error}") from error
    try:
        contents = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch.load fails on foreign contents in a dozen ways
        raise Damaged(f"{path} must hold {PLAIN}, which torch denies") from error
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise Damaged(f"{path} is not a checkpoint of this library")
    return contents


def rng_state() -> dict[str, Any]:
    """Returns the state of every global random generator: torch, CUDA if in use, numpy, Python."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Sets the global random generators to what `rng_state` returned."""
    torch.set_rng_state(state["torch"])
    for device, cuda in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
        torch.cuda.set_rng_state(cuda, device)
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Seeds the global random generators, and puts them back afterwards; None leaves them alone."""
    if seed is None:
        yield
        return
    before = rng_state()
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        set_rng_state(before)
