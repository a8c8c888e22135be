"""Arrays of npz files: no objects, whole by their checksum, and as large as their files say."""

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .reading import LIMIT, check_file, shown


def read_npz(
    path: str | Path, names: Sequence[str], *, limit: int = LIMIT, advice: str = "get it again"
) -> dict[str, np.ndarray]:
    """Returns arrays of an npz file by name.

    Args:
        path: the file.
        names: those to read; the others are left alone.
        limit: bytes that they may take together, uncompressed.
        advice: what to do with a file that is no good.

    Raises:
        FileNotFoundError, ValueError: see `check_file`; or names the array that is missing, holds
            Python objects, is damaged (its checksum, or its size, is not as the file says), or
            goes beyond the limit. No memory is taken before its size is known to be right.
    """
    path = check_file(path, advice=advice)
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            there = [info.filename.removesuffix(".npy") for info in archive.infolist()]
            if missing := [name for name in names if there.count(name) != 1]:
                raise ValueError(
                    f"it must hold the array {missing[0]!r} once, it has {shown(sorted(there))}"
                )
            for name in names:
                arrays[name] = _read_array(archive, name, limit)
                limit -= arrays[name].nbytes
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} must be a whole npz file, but {error}; {advice}") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}; {advice}") from error
    return arrays


def _read_array(archive: zipfile.ZipFile, name: str, limit: int) -> np.ndarray:
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects, which are not read")
        size = math.prod(shape) * dtype.itemsize
        if size > limit:
            raise ValueError(f"{name} has {size:,} bytes, more than the {limit:,} that are read")
        content = bytearray(size)
        view, done = memoryview(content), 0
        if size > info.file_size:
            raise ValueError(f"{name} says {size:,} bytes and has {info.file_size:,}")
        while done < size and (count := file.readinto(view[done:])):
            done += count
        if done < size or file.read(1):  # reading to the end checks the checksum
            raise ValueError(f"{name} must have {size:,} bytes, as it says, and does not")
    flat = np.frombuffer(content, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")
