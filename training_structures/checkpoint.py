"""Checkpoints: plain tensors and numbers, written whole or not at all; loading runs no code."""

import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

FORMAT = "deq-fusion checkpoint 1"
LEFT_ALONE = "the file was left as it is: name another one, or remove it"


def save_atomically(path: str | Path, write: Callable[[BinaryIO], None]) -> None:
    """Calls `write` with an open file that becomes `path` once everything is on the disk.

    Until then, and if anything fails, what was at `path` stays. Missing folders are made.

    Raises:
        OSError: if the file could not be written.
    """
    path = Path(path).resolve()  # a link keeps pointing at what it points at
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except RuntimeError as error:  # torch's word for a write that failed
        raise OSError(f"could not write {path} ({error}); is the disk full?") from error
    finally:
        temporary.unlink(missing_ok=True)


def save_checkpoint(path: str | Path, contents: Mapping[str, Any]) -> None:
    """Writes `contents`, nested dicts, lists and tuples of tensors, numbers and strings."""
    save_atomically(path, partial(torch.save, {"format": FORMAT, **contents}))


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Returns what `save_checkpoint` wrote, its tensors on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is another kind of file, or cut short.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch.load fails on foreign bytes in a dozen ways
        raise ValueError(f"cannot read {path} as a checkpoint; {LEFT_ALONE}") from error
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this library; {LEFT_ALONE}")
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
