"""Checksums of the rows of HDF5 files that we write: what is read later is what was written.

A dataset `features` of n rows has (n,) uint32 CRC-32 beside it, as `row_crc32/features`.
"""

import zlib
from pathlib import Path

import h5py
import numpy as np

GROUP = "row_crc32"
BLOCK = 1 << 24  # bytes that are read at once


def has_sums(dataset: h5py.Dataset) -> bool:
    """Says whether checksums are kept of a dataset: of rows of plain values."""
    return bool(dataset.shape) and bool(dataset.size) and not dataset.dtype.hasobject


def add_sums(file: h5py.File, name: str, start: int = 0, stop: int | None = None) -> None:
    """Writes the checksums of the rows `start` to `stop - 1`, from what is in the file."""
    dataset = file[name]
    stop = len(dataset) if stop is None else stop
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
