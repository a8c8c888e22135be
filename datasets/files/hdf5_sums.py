"""Checksums of the rows of HDF5 files that we write: what is read later is what was written.

A dataset `features` of n rows has (n,) uint32 CRC-32 beside it, as `row_crc32/features`.
"""

import zlib
from pathlib import Path

import h5py
import numpy as np

GROUP = "row_crc32"
BLOCK = 1 << 24  # bytes that are read at once


def make_sums(file: h5py.File) -> None:
    """Makes room for the checksums of the datasets at a file's top that have rows of numbers."""
    items = [(name, item) for name, item in file.items() if isinstance(item, h5py.Dataset)]
    for name, item in items:
        if item.shape and item.size and not item.dtype.hasobject:
            file.create_dataset(f"{GROUP}/{name}", (len(item),), np.uint32)


def sum_items(file: h5py.File, total: int, start: int, stop: int) -> None:
    """Writes the checksums of the rows `start` to `stop - 1` of what has a row an item."""
    for name in file.get(GROUP, ()):
        if len(file[name]) == total:
            _sum(file, name, start, stop)


def sum_rest(file: h5py.File, total: int) -> None:
    """Writes the checksums of what has other rows."""
    for name in file.get(GROUP, ()):
        if len(file[name]) != total:
            _sum(file, name, 0, len(file[name]))


def _sum(file: h5py.File, name: str, start: int, stop: int) -> None:
    dataset = file[name]
    step = max(1, BLOCK * len(dataset) // dataset.nbytes)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        file[f"{GROUP}/{name}"][first:last] = row_sums(dataset[first:last])


def row_sums(rows: np.ndarray) -> np.ndarray:
    """Returns the CRC-32 of every row, (rows,) uint32."""
    if not len(rows):
        return np.zeros(0, np.uint32)
    width = rows.nbytes // len(rows)
    content = memoryview(np.ascontiguousarray(rows).reshape(-1).view(np.uint8))
    sums = [zlib.crc32(content[at : at + width]) for at in range(0, rows.nbytes, width)]
    return np.array(sums, dtype=np.uint32)


def check_sums(
    path: str | Path, name: str, rows: np.ndarray, values: np.ndarray, sums: np.ndarray
) -> None:
    """Raises ValueError unless the values of some rows, as stored, have their checksums."""
    wrong = row_sums(values) != sums[rows]
    if wrong.any():
        raise ValueError(
            f"row {int(rows[wrong.argmax()])} of {name} in {path} is not what was written there: "
            "the file is damaged, or was changed; delete it, and make it again"
        )
