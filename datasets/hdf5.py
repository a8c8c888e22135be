"""Rows of HDF5 files, read whole batches at once; and files built so that a kill loses a batch."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tqdm import tqdm

MEMORY = 1 << 30  # bytes of a chunked or compressed dataset that are read whole
SETTINGS = "build_settings"  # attribute of a built file


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
        source = self._open()
        taken = _read_chunks(source, rows) if isinstance(source, h5py.Dataset) else source[rows]
        return taken.astype(self.dtype.newbyteorder("="), copy=False)

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


def build_file(
    path: str | Path,
    total: int,
    create: Callable[[h5py.File], None],
    fill: Callable[[h5py.File, int, int], None],
    *,
    settings: Mapping[str, str],
    batch_size: int = 64,
    progress: bool = True,
    desc: str | None = None,
) -> Path:
    """Writes an HDF5 file that appears complete or not at all; a later call resumes.

    Works in `<path>.part` and notes in `<path>.part.json` how far it came. A kill loses a batch at
    most. What `create` makes must be contiguous (no chunks, no compression): its place in the file
    is then fixed before the first batch, and an interrupted write cannot harm the rest.

    Args:
        path: file to write; if it is there, with these settings, nothing is done.
        total: number of items.
        create: makes the datasets, at full size, and the attributes.
        fill: writes the items `start` to `stop - 1`; may be called again for the same ones.
        settings: what the content depends on; kept in the file, as the attribute `SETTINGS`.
        batch_size: items a call of `fill`.
        progress: whether to show a bar, labelled `desc`.

    Returns:
        The path.

    Raises:
        ValueError: if the file, or the unfinished one, was made with other settings, or its note
            is damaged; or if `batch_size` is less than 1.
    """
    if batch_size < 1:  # no batch would be written, and the file look complete
        raise ValueError(f"batch_size must be at least 1, got {batch_size}; try 64")
    path = Path(path)
    part, note = (path.with_name(path.name + suffix) for suffix in (".part", ".part.json"))
    wanted = {"total": str(total), **settings}
    if path.exists():
        with open_file(path) as file:
            _check_settings(path, json.loads(file.attrs.get(SETTINGS, "{}")), wanted)
        note.unlink(missing_ok=True)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    if not (part.exists() and note.exists()):
        _start(part, create, wanted)
        _write_note(note, wanted, 0)
    done = _read_note(note, wanted)
    bar = tqdm(total=total, initial=done, desc=desc or path.name, disable=not progress)
    with bar, open_file(part, "r+") as file:
        for start in range(done, total, batch_size):
            stop = min(start + batch_size, total)
            fill(file, start, stop)
            file.flush()
            _sync(part)  # the note must never be ahead of the disk
            _write_note(note, wanted, stop)
            bar.update(stop - start)
    os.replace(part, path)
    note.unlink()
    return path


def _find_offset(dataset: h5py.Dataset) -> int | None:
    """Returns where in the file a plain array of numbers starts, None if it is not one."""
    plain = dataset.chunks is None and not dataset.is_virtual and dataset.external is None
    written = dataset.id.get_storage_size() > 0  # else it has no place yet, and reads as zeros
    return dataset.id.get_offset() if plain and written and not dataset.dtype.hasobject else None


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


def _start(part: Path, create: Callable[[h5py.File], None], wanted: dict[str, str]) -> None:
    with h5py.File(part, "w", libver="earliest") as file:
        create(file)
        file.attrs[SETTINGS] = json.dumps(wanted)
        file.visititems(_allocate)
    _sync(part)


def _allocate(name: str, item: h5py.Dataset | h5py.Group) -> None:
    """Gives a dataset its place in the file, which HDF5 otherwise does at the first write."""
    if not isinstance(item, h5py.Dataset) or not item.size:
        return
    if item.chunks is not None:
        raise ValueError(
            f"dataset {name} must be contiguous for an interrupted build to be resumed, but it "
            f"has chunks {item.chunks}; create it without chunks, compression and maxshape"
        )
    if not item.id.get_storage_size() and not item.dtype.hasobject:
        item[tuple(size - 1 for size in item.shape)] = np.zeros((), item.dtype)


def _sync(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _read_note(note: Path, wanted: dict[str, str]) -> int:
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{note} is damaged ({error}); delete it to start again") from error
    _check_settings(note, noted["settings"], wanted)
    return noted["done"]


def _write_note(note: Path, wanted: dict[str, str], done: int) -> None:
    temporary = note.with_name(note.name + ".tmp")
    temporary.write_text(json.dumps({"settings": wanted, "done": done}), encoding="utf-8")
    _sync(temporary)
    os.replace(temporary, note)


def _check_settings(path: Path, found: dict[str, str], wanted: dict[str, str]) -> None:
    if found != wanted:
        raise ValueError(
            f"{path} was made with the settings {found}, now asked for are {wanted}; ask for the "
            "same again, choose another name, or move the old file (and its .part) away"
        )
