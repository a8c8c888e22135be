"""Whole files into memory, once it is certain that they are files, and no larger than agreed."""

import errno
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

LIMIT = 1 << 30  # bytes that are read into memory where a reader names no other bound
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
LONG = 200  # characters of a path too long to be one
SIZED = (list, tuple, dict, set, frozenset)
SHOWN = 80  # characters of a foreign value that an error message repeats


def check_file(path: str | Path, *, advice: str = "check the path") -> Path:
    """Returns the path of a regular file: a pipe or a device could be read for ever.

    Args:
        path: the file.
        advice: what to do if it is not there.

    Raises:
        FileNotFoundError: if nothing is there, or its name can be none.
        ValueError: if it is a folder, a pipe or a device.
        OSError: if the system does not let it be looked at.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a zero byte in the name
        raise FileNotFoundError(f"no file {shown(str(path))} ({error}); {advice}") from error
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        name = shown(str(path), LONG) if error.errno == errno.ENAMETOOLONG else path
        raise FileNotFoundError(f"no file {name}; {advice}") from error
    _check_regular(path, mode, advice)
    return path


def open_regular(path: str | Path, *, advice: str = "get it again") -> BinaryIO:
    """Opens a file for reading bytes; see `check_file`.

    What was opened is looked at once more: it may have been exchanged since.
    """
    path = check_file(path, advice=advice)
    # A pipe would keep one waiting already while it is opened.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _check_regular(path, os.fstat(file.fileno()).st_mode, advice)
    except ValueError:
        file.close()
        raise
    return file


def _check_regular(path: Path, mode: int, advice: str) -> None:
    if stat.S_ISREG(mode):
        return
    kind = "a socket" if stat.S_ISSOCK(mode) else "a pipe or a device"
    kind = "a folder" if stat.S_ISDIR(mode) else kind
    raise ValueError(f"{path} must be a file, but is {kind}; {advice}")


def read_bytes(path: str | Path, *, limit: int = LIMIT, advice: str = "get it again") -> bytes:
    """Returns a file's contents.

    Raises:
        FileNotFoundError: see `check_file`.
        ValueError: see `check_file`; or if it has more than `limit` bytes.
    """
    with open_regular(path, advice=advice) as file:
        if (size := os.fstat(file.fileno()).st_size) > limit:
            raise ValueError(
                f"{path} must have at most {limit:,} bytes, but has {size:,}; {advice}"
            )
        content = file.read(size + 1)  # more at once would take the memory of all that is allowed
    if len(content) > size:
        raise ValueError(f"{path} must stay as it is while it is read, but has grown; {advice}")
    return content


def read_text(path: str | Path, *, limit: int = LIMIT, advice: str = "get it again") -> str:
    """Returns a file's text, UTF-8, a byte order mark left out.

    Raises:
        FileNotFoundError: see `read_bytes`.
        ValueError: see `read_bytes`; or if it is not UTF-8.
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
    escaped; of text at most `length` characters; of containers and arrays only the type and the
    size is told, and nothing in them is looked at.
    """
    if isinstance(value, np.generic):
        item = value.item()
        value = item if not isinstance(item, np.generic) else float(value)  # a long double
    if isinstance(value, bytes | bytearray | str):
        return _shown_text(value, length)
    if isinstance(value, bool | int | float | complex | None):
        large = isinstance(value, int) and value.bit_length() > 256
        return f"an integer of {value.bit_length()} bits" if large else repr(value)
    name = type(value).__name__
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"[: 2 * length]
    article = "an" if name[:1].lower() in "aeiou" else "a"
    return f"{article} {name}" + (f" of {len(value)}" if isinstance(value, SIZED) else "")


def listed(names: Iterable[Any], most: int = 8) -> str:
    """Returns foreign names as an error message may list them: the first few, and how many more."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return "[" + ", ".join(map(shown, names[:most])) + "]" + more


def _shown_text(value: bytes | bytearray | str, length: int) -> str:
    text = "x" * (3 * length)
    taken = 2 * length
    while len(text) > 2 * length:  # what is mostly escaped is cut earlier
        taken //= 2
        # As text of its own: a subclass may say anything of itself.
        cut = "".join(value[:taken]) if isinstance(value, str) else bytes(value[:taken])
        text = ascii(cut) if isinstance(cut, str) and not cut.isprintable() else repr(cut)
    return text if len(cut) == len(value) else f"{text[:-1]}...{text[-1]}"
