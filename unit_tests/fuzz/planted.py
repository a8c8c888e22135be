"""Readers with planted faults, each of which the harness must see; run as a module, prints how."""

import ctypes
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deq_fusion.datasets.files.reading import check_file, read_bytes, read_text

from .formats import Format
from .harness import Limits, examine_all
from .judge import Fuzzed

FILE, HEALTHY = "a.txt", b"healthy"
# little memory: pages that are new to a machine may take a second for 150 MB
LIMITS = Limits(seconds=1.0, waiting=3.0, resident=16 << 20)


def _raise(error: Exception):
    raise error


def _warn(path: Path, message: str, kind: type[Warning] = UserWarning) -> str:
    warnings.warn(message, kind, stacklevel=2)
    return "healthy"


def _loop():
    while True:
        pass


FAULTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "as it is": ("same", lambda path: "healthy"),
    "no text": ("refused", lambda path: read_text(path.with_name("b.bin"))),
    "said": ("warned", lambda path: _warn(path, f"{path} may be another")),
    "said and other": ("warned", lambda path: _warn(path, f"{path} is another") and "other"),
    "other": ("misread", lambda path: "other"),
    "not a number": ("silent non-finite", lambda path: np.array([1, np.nan])),
    "key": ("raw error", lambda path: {}[path]),
    "of the harness": ("raw error", lambda path: _raise(ValueError(f"{path} is wrong"))),
    "no file": ("raw error", lambda path: _raise(ValueError("wrong"))),
    "system": ("raw error", lambda path: open(path.with_name("c"))),
    "long": ("raw error", lambda path: check_file(path.parent, advice="x" * 2000)),
    "escape": ("raw error", lambda path: check_file(path.parent, advice="\x1b[31m")),
    "library": ("raw error", lambda path: _warn(path, f"{path}", RuntimeWarning)),
    "segment": ("crash", lambda path: ctypes.string_at(0)),
    "abort": ("crash", lambda path: ctypes.CDLL(None).abort()),
    "loop": ("hang", lambda path: _loop()),
    "wait": ("hang", lambda path: time.sleep(60)),
    "large": ("memory", lambda path: np.ones(5 << 20).sum()),
    "refused too late": (
        "memory",
        lambda path: (np.ones(5 << 20), read_text(path.with_name("b.bin"))),
    ),
    "huge": ("memory", lambda path: bytearray(1 << 40)),
    "after them": ("same", lambda path: "healthy"),
}
"""Fault of a reader -> (what the harness must call it, the reader)."""


class Planted(Fuzzed):
    """Files whose contents name the fault of their reader."""

    def mutated(self, index: int) -> tuple[dict[str, bytes | None], str, str]:
        name = list(FAULTS)[index]
        return {FILE: name.encode(), "b.bin": b"\xff"}, FILE, name


def _read(folder: Path) -> object:
    content = read_bytes(folder / FILE)
    return "healthy" if content == HEALTHY else FAULTS[content.decode()][1](folder / FILE)


def main() -> None:
    """Prints the kind of every planted fault, as the harness finds it."""
    planted = Planted(Format("planted", lambda: {FILE: HEALTHY}, _read, None))
    found = examine_all(planted.examine, range(len(FAULTS)), limits=LIMITS)
    kinds = {name: verdict.kind for name, verdict in zip(FAULTS, found, strict=True)}
    sys.stdout.write(json.dumps(kinds))


if __name__ == "__main__":
    main()
