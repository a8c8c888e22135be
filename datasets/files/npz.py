"""Arrays of npz files: no objects, whole by their checksum, and as large as their files say."""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .numbers import count_bytes
from .reading import listed, open_regular, shown

LIMIT = 1 << 29  # bytes that the arrays may take together, uncompressed
HEADER = 10_000  # bytes of an array's own description, as NumPy bounds it
CHUNK = 1 << 20  # bytes that are read at once; the list of members may be as long: 20,000 of them
FIELDS = {
    "descr": re.compile(r"'descr'\s*:\s*'([<>|=]?[biufcSU?]\d{0,9})'"),
    "fortran_order": re.compile(r"'fortran_order'\s*:\s*(True|False)"),
    "shape": re.compile(r"'shape'\s*:\s*\(((?:\s*\d{1,19}L?\s*,?)*)\s*\)"),
}
OBJECTS = re.compile(r"'[<>|=]?O\d*'")
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OverflowError, struct.error)


def read_npz(
    path: str | Path, names: Sequence[str], *, limit: int = LIMIT, advice: str = "get it again"
) -> dict[str, np.ndarray]:
    """Returns arrays of numbers or text of an npz file, by name.

    Nothing of NumPy's own reading of files is used, and so nothing unpickled.

    Args:
        path: the file.
        names: those to read; the others are left alone.
        limit: bytes that they may take together, uncompressed.
        advice: what to do with a file that is no good.

    Raises:
        FileNotFoundError: see `check_file`.
        ValueError: see `check_file`; or names the array that is missing, there twice, of Python
            objects or records, damaged (its checksum, or its size, is not as the file says), or
            beyond the limit. No memory is taken before its size is known to be right.
    """
    arrays = {}
    with open_regular(path, advice=advice) as raw:
        try:
            with zipfile.ZipFile(_Bounded(raw)) as archive:
                members = _find(archive, names)
                for name, member in members.items():
                    arrays[name] = _read_array(archive, member, limit)
                    limit -= arrays[name].nbytes
        except DAMAGED as error:
            why = shown(str(error), 200)[1:-1]  # zipfile repeats names of any length
            raise ValueError(f"{path} must be a whole npz file, but {why}; {advice}") from error
        except ValueError as error:
            raise ValueError(f"{path} cannot be read: {error}; {advice}") from error
    return arrays


class _Bounded(io.RawIOBase):
    """A file of which no large piece is asked for at once, and nothing before its start.

    The one large thing that `zipfile` reads is the list of members, which the file itself gives
    the size of; a million of them take a gigabyte.
    """

    def __init__(self, file: io.BufferedIOBase):
        self._file = file

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0 and not 0 <= offset < 1 << 62:
            raise zipfile.BadZipFile("it points to before its start")
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        if size > CHUNK:
            raise zipfile.BadZipFile(f"its list of members has {size:,} bytes")
        return self._file.read(size)


def _find(archive: zipfile.ZipFile, names: Sequence[str]) -> dict[str, zipfile.ZipInfo]:
    """Returns the members that are the arrays, whose names may lack the ending .npy."""
    there: dict[str, list[zipfile.ZipInfo]] = {}
    for member in archive.infolist():
        there.setdefault(member.filename.removesuffix(".npy"), []).append(member)
    for name in names:
        if (count := len(there.get(name, ()))) != 1:
            raise ValueError(
                f"it must hold the array {shown(name)} once, but holds it {count} times; it has "
                f"{listed(sorted(there))}"
            )
    return {name: there[name][0] for name in names}


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> np.ndarray:
    name = shown(member.filename.removesuffix(".npy"))[1:-1]
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in an unknown way, {member.compress_type}")
    with archive.open(member) as file:
        shape, fortran, dtype = _read_header(file, name)
        size = count_bytes(shape, dtype.itemsize)
        if size > limit:
            raise ValueError(f"{name} has {size:,} bytes, more than the {limit:,} that are read")
        if size + file.tell() != member.file_size:
            raise ValueError(
                f"{name} says {size:,} bytes of numbers, but there are "
                f"{member.file_size - file.tell():,}"
            )
        flat = np.empty(size, np.uint8)
        view, done = memoryview(flat), 0
        while done < size and (count := file.readinto(view[done : done + CHUNK])):
            done += count
        if done < size or file.read(1):  # reading to the end checks the checksum
            raise ValueError(f"{name} must have {size:,} bytes, as it says, and does not")
    if not size:
        return np.zeros(shape, dtype)
    return flat.view(dtype).reshape(shape, order="F" if fortran else "C")


def _read_header(file: io.BufferedIOBase, name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Returns shape, order and dtype. The header is written as Python; none of it is evaluated."""
    magic = file.read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise ValueError(f"{name} is no array of NumPy's")
    width = 2 if magic[6:] == b"\1\0" else 4
    length = int.from_bytes(file.read(width), "little")
    if length > HEADER:
        raise ValueError(f"{name} has a header of {length:,} bytes")
    header = file.read(length).decode("latin1").strip()
    left, found = header, {}
    for field, pattern in FIELDS.items():
        if match := pattern.search(left):
            found[field] = match[1]
            left = left[: match.start()] + left[match.end() :]
    if OBJECTS.search(header):
        raise ValueError(f"{name} holds Python objects, which are not read")
    if len(found) < len(FIELDS) or not re.fullmatch(r"\{[\s,]*\}", left):
        raise ValueError(
            f"{name} must hold numbers or text, and no records, but says {shown(header)}"
        )
    sizes = [int(size) for size in re.findall(r"\d+", found["shape"])]
    try:
        dtype = np.dtype(found["descr"])
    except TypeError as error:
        raise ValueError(f"{name} has the unknown dtype {shown(found['descr'])}") from error
    if not dtype.itemsize:
        raise ValueError(f"{name} holds text of no length")
    return tuple(sizes), found["fortran_order"] == "True", dtype
