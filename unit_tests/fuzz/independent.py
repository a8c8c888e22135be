"""Files read by other code than the project's, plainly and strictly: nothing doubtful is taken."""

import gzip
import io
import json
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")


class Doubtful(Exception):
    """Something was read that must not be accepted in silence."""


def demand(holds: bool, what: str = "") -> None:
    """Raises Doubtful unless something holds."""
    if not holds:
        raise Doubtful(what)


def number(text: str) -> float:
    """Returns a decimal number written in ASCII."""
    demand(NUMBER.fullmatch(text) is not None, f"{text!r} is no number")
    return float(text)


def text(path: Path) -> str:
    """Returns a file of UTF-8, its lines ending in a line feed."""
    content = path.read_bytes().decode("utf-8-sig")
    return content.replace("\r\n", "\n").replace("\r", "\n")


def json_value(path: Path) -> Any:
    """Returns JSON in which no object has a name twice, with another value each."""
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_object)


def clean(entry: str) -> str:
    """Returns text with U+FFFD in the place of half surrogate pairs, which no file can hold."""
    return "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in entry)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    demand(all(found[key] == value for key, value in pairs), "a name twice")
    return found


class _Unpickler(pickle.Unpickler):
    """Only for streams that the project has accepted: it makes what NumPy makes."""

    KNOWN = re.compile(
        r"numpy(\._?core)?\.(multiarray|numeric)\.(_reconstruct|scalar|_frombuffer)"
        r"|numpy\.(ndarray|dtype)|_codecs\.encode|(__builtin__|builtins)\."
        r"(bytes|bytearray|set|frozenset|complex)"
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        demand(self.KNOWN.fullmatch(f"{module}.{name}") is not None, f"{module}.{name}")
        if name == "_reconstruct":  # its shape and its dtype are of no use to anyone
            return lambda *_: np.ndarray.__new__(np.ndarray, (0,), "b")
        return super().find_class(module, name)


def unpickled(path: Path) -> Any:
    """Returns a pickle's arrays and containers."""
    return _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()


def npz(path: Path) -> dict[str, np.ndarray]:
    """Returns all arrays of a file whose checksums agree, and whose names differ."""
    with zipfile.ZipFile(path) as archive:
        demand(
            archive.testzip() is None and len(set(archive.namelist())) == len(archive.namelist())
        )
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def hdf5(file: h5py.File, name: str) -> np.ndarray:
    """Returns a dataset of the file itself, all of which has been written."""
    found = file[name]
    demand(isinstance(found, h5py.Dataset) and found.file == file, "another file's")
    demand(not found.external and not found.is_virtual, "another file's")
    size = found.size * found.dtype.itemsize
    if found.chunks is None:
        demand(found.id.get_storage_size() >= size, "not written")
    else:
        chunks = np.prod([-(-a // b) for a, b in zip(found.shape, found.chunks, strict=True)])
        demand(found.id.get_num_chunks() >= chunks, "not written")
    return found[()]


def float32(array: Any, *, dims: int | None = None, rows: int | None = None) -> np.ndarray:
    """Returns numbers as float32, all of which it can hold."""
    array = np.asarray(array)
    demand(array.dtype.kind in "iuf", f"{array.dtype} is no number")
    demand(dims in (None, array.ndim) and rows in (None, len(array)), f"{array.shape}")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    demand(bool(np.isfinite(array).all()), "not finite")
    return array


def unique(entries: list) -> list:
    """Returns entries that all differ."""
    demand(len(set(entries)) == len(entries), "twice")
    return entries
