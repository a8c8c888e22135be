"""Rows of HDF5 files, read whole batches at once."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .reading import check_file, shown

LARGE = 1 << 18  # bytes of a row that costs less to read than to map page by page
MEMORY = 1 << 30  # bytes of a chunked or compressed dataset that are read whole
HOPS = 16  # soft links that may follow each other


def open_file(path: str | Path, mode: str = "r") -> h5py.File:
    """Opens an HDF5 file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: names the file that is truncated, no HDF5, or no file but a folder or a pipe.
    """
    check_file(path, advice="the README of its dataset says how to get it")
    try:
        return h5py.File(path, mode)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} must be a complete HDF5 file, but it cannot be opened ({error}); get it again"
        ) from error


@contextmanager
def whole(file: h5py.File | h5py.Group | str | Path, what: str) -> Iterator[None]:
    """Around calls of h5py: what it raises of a damaged file becomes a ValueError that names it."""
    name = file.file.filename if isinstance(file, h5py.Group) else os.fspath(file)
    try:
        yield
    except (
        OSError,
        RuntimeError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        AttributeError,
        MemoryError,
    ) as error:
        raise ValueError(
            f"{what} of {name} cannot be read: the file is damaged, or made with what this HDF5 "
            f"does not know ({shown(str(error), 200)}); get it again"
        ) from error


def find_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Returns a dataset of an open file, if it holds plain values that are all there.

    Raises:
        ValueError: lists what is there if there is no such dataset; or if its values lie in
            another file (external and virtual datasets, external links, which are not followed),
            are no numbers or texts, or were never written, which HDF5 reads as zeros.
    """
    found = _follow(file, name)
    if found is None:
        raise ValueError(
            f"{file.filename} must hold a dataset {name!r}, it has {_list_datasets(file)}"
        )
    with whole(file, name):
        outside = found.external or found.is_virtual
        dtype, shape = found.dtype, found.shape
    if outside:
        raise _elsewhere(file, name)
    text = h5py.check_string_dtype(dtype) is not None
    if shape is None or not (text or (dtype.kind in "iufcbS" and not dtype.shape)):
        raise ValueError(
            f"{name} in {file.filename} must be plain numbers or texts, but is of the type "
            f"{shown(str(dtype))}; write it anew as one of these"
        )
    _check_written(file, name, found)
    return found


def read_whole(file: h5py.File, name: str, *, limit: int = 1 << 28) -> np.ndarray:
    """Returns all values of a dataset, checked as by `find_dataset`; texts come as bytes.

    Args:
        file: the open file.
        name: the dataset.
        limit: bytes of the values, checked before they are read.

    Raises:
        ValueError: see `find_dataset`; or if there are more bytes than that, or they are damaged.
    """
    dataset = find_dataset(file, name)
    with whole(file, name):
        size = dataset.size * dataset.dtype.itemsize
    if size > limit:
        raise ValueError(
            f"{name} in {file.filename} must have at most {limit:,} bytes, but is declared to have "
            f"{size:,} ({dataset.dtype} {dataset.shape}); get the file again"
        )
    with whole(file, name):
        return np.asarray(dataset[()])


def read_attribute(file: h5py.File, name: str, limit: int = 1 << 20) -> Any:
    """Returns an attribute of the file, or of a dataset ("genres/@target_names"); None if absent.

    Texts, numbers and arrays of them come as h5py reads them; Fuel's records do too.

    Raises:
        ValueError: if it has more than `limit` bytes, holds references, or is damaged.
    """
    place, _, key = name.rpartition("/@")
    item = find_dataset(file, place) if place else file
    with whole(file, f"the attribute {name}"):
        if key not in item.attrs:
            return None
        attribute = item.attrs.get_id(key)
        size = math.prod(attribute.shape) * attribute.get_type().get_size()
        dtype = attribute.dtype
    if size > limit or not _is_plain(dtype):
        raise ValueError(
            f"the attribute {name} of {file.filename} must be texts or numbers, of at most "
            f"{limit:,} bytes, but is {shown(str(dtype))} with {size:,}; get the file again"
        )
    with whole(file, f"the attribute {name}"):
        return item.attrs[key]


def _is_plain(dtype: np.dtype) -> bool:
    """Says whether values are texts or numbers, or records and blocks of them.

    A record may hold a reference (Fuel's does), which is not followed.
    """
    if dtype.fields:
        return all(field[0].kind == "O" or _is_plain(field[0]) for field in dtype.fields.values())
    if dtype.subdtype:
        return _is_plain(dtype.subdtype[0])
    return dtype.kind in "iufcbSU" or h5py.check_string_dtype(dtype) is not None


def _elsewhere(file: h5py.File, name: str) -> ValueError:
    return ValueError(
        f"{name} in {file.filename} must be in that file itself, but it is a link to another "
        "file's numbers, whatever these are; copy them into it"
    )


def _follow(file: h5py.File, name: str) -> h5py.Dataset | None:
    """Walks to a dataset over links inside of the file; those out of it are not opened."""
    parts, group, hops = name.split("/"), file, 0
    while parts:
        part = parts.pop(0)
        if part in ("", "."):
            continue
        with whole(file, name):
            link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
            if isinstance(link, h5py.HardLink):
                group = group[part]
        if link is None:
            return None
        if isinstance(link, h5py.SoftLink) and hops < HOPS:
            hops += 1
            group = file if link.path.startswith("/") else group
            parts = [*link.path.split("/"), *parts]
        elif not isinstance(link, h5py.HardLink):
            raise _elsewhere(file, name)
    return group if isinstance(group, h5py.Dataset) else None


def _list_datasets(file: h5py.File) -> list[str]:
    there: list[str] = []

    def note(name: str, item: h5py.Dataset | h5py.Group) -> bool | None:
        if isinstance(item, h5py.Dataset):
            there.append(name)
        return True if len(there) == 20 else None  # enough to see what file it is

    with whole(file, "the list of datasets"):
        file.visititems(note)
    return sorted(there)


def _check_written(file: h5py.File, name: str, dataset: h5py.Dataset) -> None:
    """HDF5 reads values that were declared and never written as zeros, and says nothing."""
    with whole(file, name):
        if not dataset.size:
            return
        stored, chunks, needed, there = dataset.id.get_storage_size(), dataset.chunks, 1, 1
        if chunks:
            needed = math.prod(-(-a // b) for a, b in zip(dataset.shape, chunks, strict=True))
            there = dataset.id.get_num_chunks()
    if not stored or there < needed:
        lacking = f"{there:,} of {needed:,} chunks are there" if chunks else "nothing was written"
        raise ValueError(
            f"{name} in {file.filename} must be written to its end, but {lacking}; make the file "
            "anew, or get it again"
        )


class Rows:
    """The rows of one dataset of an HDF5 file: `rows[[3, 1, 3]]` is a (3, ...) array.

    Contiguous datasets are mapped into memory, so that the system's page cache serves them to any
    number of processes. Others are read whole when first asked for, if they have at most `memory`
    bytes, else chunk by chunk, each at most once a call. May be pickled and carried into worker
    processes; every process opens the file for itself.

    Args:
        path: the file.
        name: the dataset, of one dimension or more.
        memory: bytes, see above.

    Raises:
        FileNotFoundError, ValueError: see `open_file` and `find_dataset`; or if the dataset is a
            single value, or reaches beyond the end of the file.
    """

    def __init__(self, path: str | Path, name: str, *, memory: int = MEMORY):
        self.path, self.name, self.memory = Path(path), name, memory
        with open_file(path) as file:
            dataset = find_dataset(file, name)
            self.shape, self.dtype = dataset.shape, dataset.dtype
            self._offset = _find_offset(dataset)
        if not self.shape:
            raise ValueError(f"{name} in {path} must have rows, but it is a single value")
        if self._offset is not None and self._offset + self.nbytes > self.path.stat().st_size:
            raise ValueError(f"{path} ends before its dataset {name}; get it again")
        self._source: np.ndarray | h5py.Dataset | None = None
        self._owner = 0

    @property
    def nbytes(self) -> int:
        """The bytes of all rows."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns the rows in the order asked for, (rows, ...), in the machine's byte order.

        Raises:
            IndexError: if a row number is negative, too large or no integer.
        """
        rows = np.asarray(rows)
        if not rows.size:
            rows = rows.astype(np.intp)
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise IndexError(f"rows must be a list of integers, got {rows.dtype} {rows.shape}")
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(
                f"rows of {self.name} in {self.path} must lie in 0..{len(self) - 1}, got "
                f"{rows.min()} to {rows.max()}"
            )
        if self._offset is not None and self.nbytes >= LARGE * len(self) and hasattr(os, "preadv"):
            return self._read(rows).astype(self.dtype.newbyteorder("="), copy=False)
        source = self._open()
        taken = _read_chunks(source, rows) if isinstance(source, h5py.Dataset) else source[rows]
        return taken.astype(self.dtype.newbyteorder("="), copy=False)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        size = self.nbytes // len(self)
        with self.path.open("rb") as file:
            for place, row in enumerate(rows.tolist()):
                buffer = found[place : place + 1].view(np.uint8).reshape(-1)
                if os.preadv(file.fileno(), [buffer], self._offset + row * size) < size:
                    raise ValueError(f"{self.path} ended within {self.name}; get it again")
        return found

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_source": None}

    def _open(self) -> np.ndarray | h5py.Dataset:
        # An open HDF5 file must not be shared with a forked process; arrays may.
        inherited = isinstance(self._source, h5py.Dataset) and self._owner != os.getpid()
        if self._source is None or inherited:
            self._owner = os.getpid()
            self._source = self._find_source()
        return self._source

    def _find_source(self) -> np.ndarray | h5py.Dataset:
        if self._offset is not None:
            options = {"mode": "r", "offset": self._offset, "shape": self.shape}
            return np.asarray(np.memmap(self.path, self.dtype, **options))
        dataset = find_dataset(open_file(self.path), self.name)
        return dataset if self.nbytes > self.memory else dataset[()]


def _find_offset(dataset: h5py.Dataset) -> int | None:
    """Returns where in the file a plain array of numbers starts, None if it is not one."""
    plain = dataset.chunks is None and not dataset.dtype.hasobject
    written = dataset.id.get_storage_size() > 0  # else it has no place yet, and reads as zeros
    return dataset.id.get_offset() if plain and written else None


def _read_chunks(dataset: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Reads each chunk that holds some of the rows once, whatever their order."""
    unique, places = np.unique(rows, return_inverse=True)
    height = dataset.chunks[0] if dataset.chunks else 1
    ends = np.flatnonzero(np.diff(unique // height)) + 1
    found = np.empty((len(unique), *dataset.shape[1:]), dataset.dtype)
    for group in np.split(np.arange(len(unique)), ends) if len(unique) else ():
        first, last = unique[group[0]], unique[group[-1]]
        found[group] = dataset[first : last + 1][unique[group] - first]
    return found[places]
