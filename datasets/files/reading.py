"""Whole files into memory, once it is certain that they are files, and no larger than agreed."""

import os
import re
from pathlib import Path
from typing import Any, BinaryIO

LIMIT = 1 << 30  # bytes that are read into memory where a reader names no other bound
SHOWN = 80  # characters of a foreign value that an error message repeats


def check_file(path: str | Path, *, advice: str = "check the path") -> Path:
    """Returns the path of a regular file: a pipe or a device could be read for ever.

    Args:
        path: the file.
        advice: what to do if it is not there.

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if it is a folder, a pipe or a device.
    """
    path = Path(path)
    try:
        if path.is_file():
            return path
        there = path.exists()
    except ValueError as error:  # a zero byte in a name
        raise FileNotFoundError(f"no file {shown(str(path))} ({error}); {advice}") from error
    if there:
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise ValueError(f"{path} must be a file, but is {kind}; {advice}")
    raise FileNotFoundError(f"no file {path}; {advice}")


def open_regular(path: str | Path, *, advice: str = "get it again") -> BinaryIO:
    """Opens a file for reading bytes; see `check_file`, but it cannot be exchanged in between."""
    path = check_file(path, advice=advice)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    return os.fdopen(descriptor, "rb")


def read_bytes(path: str | Path, *, limit: int = LIMIT, advice: str = "get it again") -> bytes:
    """Returns a file's contents.

    Raises:
        FileNotFoundError, ValueError: see `check_file`; or if it has more than `limit` bytes.
    """
    path = check_file(path, advice=advice)
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{path} must have at most {limit:,} bytes, but has more; {advice}")
    return content


def read_text(path: str | Path, *, limit: int = LIMIT, advice: str = "get it again") -> str:
    """Returns a file's text, UTF-8, a byte order mark left out.

    Raises:
        FileNotFoundError, ValueError: see `read_bytes`; or if it is not UTF-8.
    """
    try:
        return read_bytes(path, limit=limit, advice=advice).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text, but {error}; {advice}") from error


def clean_text(text: str) -> str:
    """Returns the text with U+FFFD for every lone surrogate, so that it can be written as UTF-8.

    JSON and pickles can hold half of a pair (`\\ud83d`), which is no character. All other text
    comes back as it is.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", "\ufffd", text)
    return text


def shown(value: Any, length: int = SHOWN) -> str:
    """Returns a foreign value as an error message may repeat it: escaped, and not whole.

    Characters that a terminal obeys, lone surrogates and all else that is not printable come
    escaped; of containers only the type and the size is told.
    """
    if isinstance(value, bytes | bytearray | str):
        cut = value[:length]
        text = ascii(cut) if isinstance(cut, str) and not cut.isprintable() else repr(cut)
        return text if len(value) <= length else f"{text[:-1]}...{text[-1]}"
    if isinstance(value, bool | int | float | complex | None):
        large = isinstance(value, int) and value.bit_length() > 256
        return f"an integer of {value.bit_length()} bits" if large else repr(value)
    size = f" of {len(value)}" if hasattr(value, "__len__") else ""
    return f"a {type(value).__name__}{size}"
