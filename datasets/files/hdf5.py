"""Datasets, attributes and rows of HDF5 files: plain values, all of them written, or refused."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .hdf5_stored import (
    GROUP,
    REFERENCE,
    check_chunks,
    check_sums,
    is_plain,
    lies_as_numpy,
    open_guarded,
    read_references,
    read_rows,
    stored_dtype,
)
from .reading import check_file, shown

MEMORY = 1 << 30  # bytes of a chunked or compressed dataset that are read whole
BATCH = 1 << 30  # bytes of such a dataset that are read at once, if it is larger
SMALL = 1 << 28  # bytes of a dataset for `read_whole`
HEAP = 1 << 16  # bytes of a heap that holds an attribute's texts
HOPS = 16  # soft links that may follow each other
LISTED = 20  # datasets that an error names
RAW = (  # what h5py raises of damaged files
    OSError,
    RuntimeError,
    KeyError,
    TypeError,
    ValueError,
    OverflowError,
    AttributeError,
    MemoryError,
)


def open_file(path: str | Path, mode: str = "r") -> h5py.File:
    """Opens an HDF5 file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: names the file that is truncated, no HDF5, or no file but a folder or a pipe.
    """
    check_file(path, advice="the README of its dataset says how to get it")
    try:
        return h5py.File(path, mode)
    except RAW as error:
        raise ValueError(
            f"{path} must be a complete HDF5 file, but it cannot be opened ({error}); get it again"
        ) from error


@contextmanager
def whole(file: h5py.File | str | Path, what: str) -> Iterator[None]:
    """Around calls of h5py: what it raises of a damaged file becomes a ValueError that names it."""
    try:
        yield
    except RAW as error:
        name = os.fspath(file) if isinstance(file, str | Path) else file.filename
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
    found = follow(file, name)
    if found is None:
        there = sorted(_list_datasets(file, file))
        raise ValueError(f"{file.filename} must hold a dataset {name!r}, it has {there}")
    with whole(file, name):
        outside = found.external or found.is_virtual
        dtype, shape = found.dtype, found.shape
        # a damaged type makes numbers of a layout that no program writes, and HDF5 reads them
        odd = dtype.kind in "iufc" and not lies_as_numpy(found)
    if outside:
        raise _elsewhere(file, name)
    if shape is None or dtype.fields or dtype.subdtype or odd or not is_plain(dtype):
        raise ValueError(
            f"{name} in {file.filename} must be plain numbers or texts, but is of the type "
            f"{shown(str(dtype))}; write it anew as one of these"
        )
    _check_written(file, name, found)
    return found


def _elsewhere(file: h5py.File, name: str) -> ValueError:
    return ValueError(
        f"{name} in {file.filename} must be in that file itself, but it is a link to another "
        "file's numbers, whatever these are; copy them into it"
    )


def follow(file: h5py.File, name: str) -> h5py.Dataset | None:
    """Walks to a dataset over links inside of the file; None if it is not there.

    Raises:
        ValueError: if a link leads out of the file, which is not opened.
    """
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


def _list_datasets(file: h5py.File, group: h5py.Group, depth: int = 3) -> list[str]:
    """Names some datasets. (`visititems` looks deeper, and crashes on some damaged files.)"""
    there: list[str] = []
    with whole(file, "the list of datasets"):
        for name in group:
            if len(there) >= LISTED:
                break
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            item = group[name]
            if isinstance(item, h5py.Dataset):
                there.append(str(name))
            elif isinstance(item, h5py.Group) and depth:
                inner = _list_datasets(file, item, depth - 1)
                there += [f"{name}/{below}" for below in inner]
    return there[:LISTED]


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


def read_whole(file: h5py.File, name: str, *, limit: int = SMALL) -> np.ndarray:
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
        text = dataset.dtype.hasobject
        size = dataset.size * (REFERENCE.itemsize if text else dataset.dtype.itemsize)
    _check_size(file, name, dataset, size, limit)
    with whole(file, name):
        if dataset.chunks and dataset.shape and dataset.size:
            check_chunks(dataset)
            values = read_rows(dataset, np.arange(len(dataset)))
        elif text:
            values = read_references(dataset)
        else:
            values = np.asarray(dataset[()])
    if not text:
        if (sums := _read_sums(file, name, dataset)) is not None:
            check_sums(file.filename, name, np.arange(len(values)), values, sums)
        return values
    _check_size(file, name, dataset, size + int(values["length"].sum(dtype=np.int64)), limit)
    largest = limit if values.size else HEAP  # where the lengths are not known in advance
    with whole(file, name), open_guarded(file.filename, largest=largest) as guarded:
        return np.asarray(guarded[dataset.name][()])


def read_attribute(file: h5py.File, name: str, limit: int = 1 << 20) -> Any:
    """Returns an attribute of the file, or of a dataset ("genres/@target_names"); None if absent.

    Texts, numbers and arrays of them come as h5py reads them; Fuel's records do too.

    Args:
        file: the open file.
        name: the attribute.
        limit: bytes of the attribute, of which a text counts 16 and must have under 65,536.

    Raises:
        ValueError: if it has more bytes, holds references, or is damaged.
    """
    place, _, key = name.rpartition("/@")
    item = find_dataset(file, place) if place else file
    with whole(file, f"the attribute {name}"):
        if key not in item.attrs:
            return None
        attribute = item.attrs.get_id(key)
        shape, dtype = attribute.shape, attribute.dtype
        size = math.prod(shape or ()) * max(16, attribute.get_type().get_size())
    if size > limit or shape is None or not is_plain(dtype):
        raise ValueError(
            f"the attribute {name} of {file.filename} must be texts or numbers, of at most "
            f"{limit:,} bytes, but is {shown(str(dtype))} with {size:,}; get the file again"
        )
    with whole(file, f"the attribute {name}"):
        if not dtype.hasobject:
            return item.attrs[key]
        with open_guarded(file.filename, largest=HEAP) as guarded:
            return guarded[item.name].attrs[key]


class Rows:
    """The rows of one dataset of an HDF5 file: `rows[[3, 1, 3]]` is a (3, ...) array.

    Contiguous datasets are read from where they lie, so that the system's page cache serves them
    to any number of processes. Others are read whole when first asked for, if they have at most
    `memory` bytes, else chunk by chunk, each at most once a call. May be pickled and carried into
    worker processes; every process opens the file for itself. Rows whose checksums are in the file,
    as `hdf5_build.build_file` leaves them, are compared with these.

    Args:
        path: the file, by its path or opened.
        name: the dataset, of one dimension or more. Texts of any length are always read whole.
        memory: bytes, see above.

    Raises:
        FileNotFoundError: see `open_file`.
        ValueError: see `open_file` and `find_dataset`; or if the dataset is a single value, reaches
            beyond the end of the file, or has chunks of more than 256 MiB (16 MiB if packed by
            other than gzip, shuffle and fletcher32).
    """

    def __init__(self, path: str | Path | h5py.File, name: str, *, memory: int = MEMORY):
        self.name, self.memory = name, memory
        with nullcontext(path) if isinstance(path, h5py.File) else open_file(path) as file:
            self.path = Path(file.filename)
            dataset = find_dataset(file, name)
            with whole(file, name):
                self.shape, self.dtype = dataset.shape, dataset.dtype
                if dataset.chunks and dataset.size:
                    check_chunks(dataset)
                self._offset = _find_offset(dataset)
            self._sums = _read_sums(file, name, dataset)
        if not self.shape:
            raise ValueError(f"{name} in {self.path} must have rows, but it is a single value")
        self._size = self.path.stat().st_size
        if self._offset is not None and self._offset + self.nbytes > self._size:
            raise ValueError(f"{self.path} ends before its dataset {name}; get it again")
        self._source: np.ndarray | h5py.Dataset | None = None
        self._owner = 0

    @property
    def nbytes(self) -> int:
        """The bytes of all rows."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns the rows in the order asked for, (rows, ...), in the machine's byte order.

        Raises:
            IndexError: if a row number is negative, too large or no integer.
            ValueError: if the file is damaged there, or is no longer the one that was opened; or
                if rows of chunks are asked for that have more than 1 GiB, and are not in memory.
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
        taken = self._read(rows) if self._offset is not None else self._take(rows)
        return taken.astype(self.dtype.newbyteorder("="), copy=False)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Reads rows that lie one after the other; in the order of the file, a run at once."""
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if not found.size:
            return found
        size, buffer = self.nbytes // len(self), memoryview(found.reshape(-1).view(np.uint8))
        order = np.argsort(rows, kind="stable")
        ranked = rows[order].astype(np.int64)
        breaks = (np.diff(ranked) != 1) | (np.diff(order) != 1)
        starts = np.concatenate(([0], np.flatnonzero(breaks) + 1))
        runs = (ranked[starts], order[starts], np.diff(starts, append=len(rows)))
        with self.path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != self._size:
                raise ValueError(f"{self.path} has changed since it was opened; start again")
            for row, place, count in zip(*(run.tolist() for run in runs), strict=True):
                file.seek(self._offset + row * size)
                _fill(file, buffer[place * size : (place + count) * size], self)
        if self._sums is not None:
            check_sums(self.path, self.name, rows, found, self._sums)
        return found

    def _take(self, rows: np.ndarray) -> np.ndarray:
        source = self._open()
        if isinstance(source, np.ndarray):
            return source[rows]
        size = len(rows) * self.nbytes // max(1, len(self))
        if size > BATCH:
            raise ValueError(
                f"{len(rows)} rows of {self.name} in {self.path} have {size:,} bytes, at most "
                f"{BATCH:,} are read at once; ask for fewer rows"
            )
        with whole(self.path, self.name):
            return read_rows(source, rows)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_source": None, "_owner": 0}  # what is of this process alone

    def _open(self) -> np.ndarray | h5py.Dataset:
        # An open HDF5 file must not be shared with a forked process; arrays may.
        inherited = isinstance(self._source, h5py.Dataset) and self._owner != os.getpid()
        if self._source is None or inherited:
            self._owner = os.getpid()
            self._source = self._find_source()
        return self._source

    def _find_source(self) -> np.ndarray | h5py.Dataset:
        file = open_file(self.path)
        dataset = find_dataset(file, self.name)
        if (dataset.shape, dataset.dtype) != (self.shape, self.dtype):
            raise ValueError(f"{self.path} has changed since it was opened; start again")
        if dataset.chunks and self.nbytes > self.memory and not self.dtype.hasobject:
            return dataset
        with file:
            return read_whole(file, self.name, limit=max(self.memory, SMALL))


def _fill(file, buffer: memoryview, rows: Rows) -> None:
    while buffer:
        count = file.readinto(buffer)
        if not count:
            raise ValueError(f"{rows.path} ended within {rows.name}; get it again")
        buffer = buffer[count:]


def _read_sums(file: h5py.File, name: str, dataset: h5py.Dataset) -> np.ndarray | None:
    """Returns the checksums of a dataset's rows, None where none are kept."""
    place = f"{GROUP}/{name}"
    if dataset.chunks or not dataset.size or follow(file, place) is None:
        return None
    sums = read_whole(file, place)
    if sums.shape != dataset.shape[:1] or sums.dtype != np.uint32:
        raise ValueError(
            f"{place} in {file.filename} must be the checksums of the {len(dataset)} rows, got "
            f"{sums.dtype} {sums.shape}; the file is damaged: make it again"
        )
    return sums


def _find_offset(dataset: h5py.Dataset) -> int | None:
    """Returns where in the file a plain array of numbers starts, None if it is not one."""
    dtype = stored_dtype(dataset)
    plain = dtype is not None and dtype != REFERENCE and dataset.chunks is None
    return dataset.id.get_offset() if plain else None


def _check_size(file: h5py.File, name: str, dataset: h5py.Dataset, size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(
            f"{name} in {file.filename} must have at most {limit:,} bytes, but is declared to have "
            f"{size:,} ({dataset.dtype} {dataset.shape}); get the file again"
        )
