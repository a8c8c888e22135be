"""A format that is fuzzed: tiny files, how the project reads them, and how we do."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Format:
    """A way of keeping data, of which tiny files are made, damaged and read twice.

    Attributes:
        name: its name in tables.
        files: makes the files, by their paths inside of a folder; the same ones every time.
        read: what the project reads from the folder, through its public readers: nested dicts and
            lists of arrays, texts and numbers.
        independent: the same, read by other code; raises whatever it likes of what must be
            refused, or read as if it were not damaged. None: all of the damage is like that.
        targets: ends of the names of the files that are damaged.
        finite: whether what is read must be finite.
        change: (rng, name, content) -> a whole file of other contents; None goes by its ending.
        signed: whether `change` makes files with a right checksum, which may well be accepted.
    """

    name: str
    files: Callable[[], dict[str, bytes]]
    read: Callable[[Path], Any]
    independent: Callable[[Path], Any] | None
    targets: tuple[str, ...] = ("",)
    finite: bool = True
    change: Callable | None = None
    signed: bool = False


class Unchecked(list):
    """A list of values that must be finite, and are not compared."""


def drained(loaders) -> dict[str, Any]:
    """Returns how many samples the loaders serve, and their batches."""
    batches = [list(loader) for loader in loaders]
    rows = sum(len(_first(batch[-1])) for loader in batches for batch in loader)
    return {"rows": rows, "batches": Unchecked(batches)}


def _first(truth: Any) -> Any:
    return next(iter(truth.values())) if isinstance(truth, dict) else truth
