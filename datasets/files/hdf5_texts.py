"""Texts of any length in HDF5 files, read within bounds.

A text's place is a reference to a heap, a block of the file; many references may name the same
text, and HDF5 hangs on some damaged heaps. So lengths are added up before texts are read, and a
heap is looked through before HDF5 sees it.
"""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

HEAP = b"GCOL"  # what a heap begins with
HEADER = 16  # bytes before the first object of a heap, and before an object's content


@contextmanager
def open_guarded(path: str | Path, *, largest: int) -> Iterator[h5py.File]:
    """Opens an HDF5 file whose heaps are looked through as they are read.

    Args:
        path: the file.
        largest: bytes of a heap.

    Raises:
        OSError: h5py's, in reading a heap that is damaged or larger.
    """
    with _Guarded(path, largest) as guarded, h5py.File(guarded, "r") as file:
        if file.id.get_create_plist().get_sizes() != (8, 8):
            raise ValueError("its addresses and lengths must have 8 bytes")
        yield file


class _Guarded(io.FileIO):
    """A file of which h5py gets no heap that is damaged."""

    def __init__(self, path: str | Path, largest: int) -> None:
        super().__init__(path)
        self._largest = largest

    def readinto(self, buffer) -> int:
        start = self.tell()
        count = super().readinto(buffer)
        for found in re.finditer(HEAP, bytes(memoryview(buffer)[:count])):
            self._check(start + found.start())
        return count

    def _check(self, start: int) -> None:
        """Walks from object to object of a heap, as HDF5 does, which may walk in place for ever."""
        self.seek(start)
        head = self.read(HEADER)
        size = struct.unpack_from("<Q", head, 8)[0] if len(head) == HEADER else 0
        if not HEADER <= size <= self._largest:
            raise OSError(f"a heap of texts has {size:,} bytes")
        heap, place = head + self.read(size - HEADER), HEADER
        while place + HEADER <= len(heap):
            number, length = struct.unpack_from("<H6xQ", heap, place)
            step = HEADER + (length + 7) // 8 * 8 if number else length  # 0: the rest is free
            if step < HEADER or place + step > size:
                raise OSError(f"a heap of texts is damaged at {start + place:,}")
            place += step
