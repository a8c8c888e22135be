"""One mutated file: made, read by the project, read independently, and judged."""

import os
import shutil
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from deq_fusion import datasets

from .containers import mutate_file
from .formats import Format, Unchecked
from .harness import Verdict
from .independent import clean
from .mutate import flip_bit, mutate_bytes

ROOT = Path(datasets.__file__).resolve().parents[1]
LONGEST = 1000  # characters of a message
PLACES = ("gone", "a folder", "a pipe", "empty")


@dataclass
class Fuzzed:
    """A format, the files that are made of it, and what is read from them undamaged.

    Args:
        shape: the format.
        seed: the same seed gives the same files.
        flips: whether a file has one bit flipped, and must be noticed or read as if it had not.
        keep: folder for the files of findings; None keeps none.
    """

    shape: Format
    seed: int = 0
    flips: bool = False
    keep: Path | None = None
    files: dict[str, bytes] = field(init=False)
    healthy: Any = field(init=False)

    def __post_init__(self) -> None:
        self.files = self.shape.files()
        with _Folder(self.files) as folder:
            self.healthy = self.shape.read(folder)
            if self.shape.independent is not None:
                problem = difference(self.healthy, self.shape.independent(folder))
                assert problem is None, f"{self.shape.name}: {problem}"

    def mutated(self, index: int) -> tuple[dict[str, bytes | None], str, str]:
        """Returns all files with one of them damaged (None: removed), its name, and how."""
        rng = Random(f"{self.seed}/{self.shape.name}/{index}")
        names = [name for name in self.files if name.endswith(self.shape.targets)]
        while True:
            name = rng.choice(names)
            content, how = self._damaged(rng, name, self.files[name])
            if content != self.files[name]:
                return {**self.files, name: content}, name, how

    def _damaged(self, rng: Random, name: str, content: bytes) -> tuple[Any, str]:
        if self.flips:
            return flip_bit(content, place := rng.randrange(8 * len(content))), f"bit {place}"
        chance = rng.random()
        if chance < 0.4:
            change = self.shape.change or mutate_file
            if (changed := change(rng, name, content)) is not None:
                return changed
        if chance < 0.42:
            place = rng.choice(PLACES[self.shape.independent is None :])
            return {"gone": None, "empty": b""}.get(place, place), place
        if chance < 0.46 and len(self.files) > 1:
            other = rng.choice(sorted(self.files))
            return self.files[other], f"another file, {other}"
        return mutate_bytes(rng, content, [*self.files.values()])

    def examine(self, index: int) -> Verdict:
        """Makes file number `index`, reads it, and judges what came of it."""
        files, name, how = self.mutated(index)
        with _Folder(files) as folder:
            kind, detail = self._judge(folder, how)
        return Verdict(index, kind, f"{name}: {how}", detail)

    def _judge(self, folder: Path, how: str) -> tuple[str, str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = self.shape.read(folder)
            except Exception as error:
                return _judge_error(error, folder)
        for warning in caught:
            if warning.category is not UserWarning or (why := _bad_text(warning.message, folder)):
                why = "it is the library's" if warning.category is not UserWarning else why
                return "raw error", f"{why}: {warnings.formatwarning(*_parts(warning))}"
        if self.shape.finite and (where := _not_finite(found)):
            return "silent non-finite", where
        if problem := self._misread(folder, found, how):
            said = "; ".join(str(warning.message) for warning in caught)
            return ("warned", said) if caught else ("misread", problem)
        return ("warned" if caught else "same"), ""

    def _misread(self, folder: Path, found: Any, how: str) -> str | None:
        """Returns what was read otherwise than by the independent reader, None if nothing was."""
        if self.shape.signed and how.startswith("right checksum"):
            return None
        doubt = ""
        if self.shape.independent is not None and not self.flips:
            try:
                return difference(found, self.shape.independent(folder))
            except Exception as error:  # whatever it is, the file is not to be trusted
                doubt = f" ({type(error).__name__}: {error} in {_line(error)})"
        problem = difference(found, self.healthy)
        return problem and f"accepted, and not as if undamaged: {problem}{doubt}"


class _Folder:
    """A fresh folder of files, for as long as the context lasts."""

    def __init__(self, files: Mapping[str, Any]) -> None:
        self.files = files

    def __enter__(self) -> Path:
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        write_files(self.folder, self.files)
        return self.folder

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder)


def write_files(folder: Path, files: Mapping[str, bytes | str | None]) -> None:
    """Writes files; of those that are none, a folder or a pipe is made, or nothing."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content == "a folder":
            path.mkdir()
        elif content == "a pipe":
            os.mkfifo(path)
        elif content is not None:
            path.write_bytes(content)


def _judge_error(error: Exception, folder: Path) -> tuple[str, str]:
    text = "".join(traceback.format_exception(error))
    chain, cause = [], error
    while cause is not None and len(chain) < 20:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(cause, MemoryError) for cause in chain):
        return "memory", text
    why = _not_ours(error) or _bad_text(error, folder)
    return ("raw error", f"{why}\n{text}") if why else ("refused", str(error))


def _not_ours(error: Exception) -> str | None:
    """Returns why an error is not one that the project has thought of."""
    kind, innermost = type(error), _line(error)
    own = kind in (ValueError, FileNotFoundError, OSError) or not kind.__module__.startswith(
        ("builtins", "json", "zipfile", "tarfile", "pickle", "h5py", "torch", "numpy")
    )
    if not own or not isinstance(error, (ValueError, OSError)):
        return f"its type is {kind.__name__}"
    inside = innermost.startswith(str(ROOT)) and "site-packages" not in innermost
    if not inside or "/unit_tests/" in innermost:
        return f"it was raised in {innermost}"
    if isinstance(error, OSError) and error.errno is not None:
        return "it is the system's"
    return None


def _line(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"


def _bad_text(error: Any, folder: Path) -> str | None:
    """Returns what is wrong with a message, None if it names the file and can be shown."""
    text = str(error)
    if str(folder) not in text:
        return "it names no file"
    if not text.replace("\n", " ").isprintable():
        return "it is not printable"
    if len(text) > LONGEST:
        return f"it has {len(text):,} characters"
    return None


def _parts(warning: warnings.WarningMessage) -> tuple:
    return warning.message, warning.category, warning.filename, warning.lineno


def _children(value: Any):
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, (list, tuple)) else ()


def _array(value: Any) -> np.ndarray | None:
    if isinstance(value, (str, bytes)) or value is None:
        return None
    try:
        return np.asarray(value)
    except (ValueError, TypeError):
        return None


def _not_finite(value: Any, where: str = "") -> str | None:
    """Returns where numbers are not finite, None if all are."""
    if hasattr(value, "dtype") or isinstance(value, float):
        array = np.asarray(value)
        return None if array.dtype.kind != "f" or np.isfinite(array).all() else f"in {where}"
    found = (_not_finite(entry, f"{where}/{key}") for key, entry in _children(value))
    return next(filter(None, found), None)


def difference(found: Any, expected: Any, where: str = "") -> str | None:
    """Returns where what was read differs from what is expected; more may have been read."""
    if isinstance(found, Unchecked):
        return None
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        if missing := expected.keys() - found.keys():
            return f"{where} lacks {sorted(missing, key=str)[:3]}"
        pairs = ((found[key], expected[key], f"{where}/{key}") for key in expected)
        return next(filter(None, (difference(*pair) for pair in pairs)), None)
    if isinstance(expected, (list, tuple)) and not hasattr(found, "dtype"):
        if not isinstance(found, (list, tuple)) or len(found) != len(expected):
            return f"{where} is {found!r:.80}, not {expected!r:.80}"
        pairs = zip(found, expected, (f"{where}/{i}" for i in range(len(found))), strict=True)
        return next(filter(None, (difference(*pair) for pair in pairs)), None)
    return None if _equal(found, expected) else f"{where} is {found!r:.80}, not {expected!r:.80}"


def _clean(value: Any) -> Any:
    return clean(value) if isinstance(value, str) else value


def _equal(found: Any, expected: Any) -> bool:
    one, other = _array(found), _array(expected)
    if one is None or other is None:
        return type(found) is type(expected) and _clean(found) == _clean(expected)
    if one.shape != other.shape:
        return False
    if one.dtype.kind in "biufc" and other.dtype.kind in "biufc":
        return np.allclose(one, other, rtol=1e-6, atol=1e-37, equal_nan=True)
    return one.dtype.kind == other.dtype.kind and bool(np.all(one == other))
