"""Rows of HDF5 files, read whole batches at once."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

LARGE = 1 << 18  # bytes of a row that costs less to read than to map page by page
MEMORY = 1 << 30  # bytes of a chunked or compressed dataset that are read whole


def open_file(path: str | Path, mode: str = "r") -> h5py.File:
    """Opens an HDF5 file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: names the file that is truncated or no HDF5.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}; the README of its dataset says how to get it")
    try:
        return h5py.File(path, mode)
    except OSError as error:
        raise ValueError(
            f"{path} must be a complete HDF5 file, but it cannot be opened ({error}); get it again"
        ) from error


def find_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Returns a dataset of an open file; ValueError lists what is there if it is not."""
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        there: list[str] = []
        file.visititems(lambda n, item: there.append(n) if isinstance(item, h5py.Dataset) else None)
        raise ValueError(f"{file.filename} must hold a dataset {name!r}, it has {sorted(there)}")
    if found.file.filename != file.filename or found.external or found.is_virtual:
        raise ValueError(
            f"{name} in {file.filename} must be in that file itself, but it is a link to another "
            "file's numbers, whatever these are; copy them into it"
        )
    return found


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
