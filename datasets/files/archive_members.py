"""The members of zip and tar archives, one after the other, each read to its end and its checksum.

Nothing here writes. What is wrong with an archive is a `Broken`, which says what.
"""

import lzma
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .archive_tar import Broken, is_tar, read_tar
from .archive_zip import is_zip, read_zip
from .reading import check_file, shown

MEMBERS = 1 << 20
DEPTH, LENGTH = 32, 255  # folders in each other, bytes of a name
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,  # a zip file that asks for a password, or is compressed in an unknown way
    ValueError,
    LookupError,
    OverflowError,
    MemoryError,
)


class Member(NamedTuple):
    """A file or a folder of an archive.

    Attributes:
        parts: its folders and its name.
        size: bytes of the file; None for a folder.
        chunks: its content, which must be read before the next member is asked for.
    """

    parts: tuple[str, ...]
    size: int | None
    chunks: Iterator[bytes]


def find_kind(path: Path) -> str | None:
    """Returns "zip" or "tar" of what a file begins with, None if it is neither.

    Raises:
        FileNotFoundError, ValueError: if it is no regular file.
    """
    with check_file(path).open("rb") as file:
        for kind, is_kind in {"zip": is_zip, "tar": is_tar}.items():
            file.seek(0)
            try:
                if is_kind(file):
                    return kind
            except (Broken, *DAMAGE):
                continue
    return None


def read_members(path: Path, limit: int) -> Iterator[Member]:
    """Yields the members; is done only once the archive was read to its end, and found whole.

    Raises:
        Broken: if the archive is damaged, has more than `limit` bytes or `MEMBERS` members, one
            that is no file or folder, or names that are not safe or occur twice.
    """
    kind, names, total = find_kind(path), _Names(), 0
    if kind is None:
        raise Broken("it is neither a zip nor a tar archive")
    with path.open("rb") as file:
        reader = (read_zip if kind == "zip" else read_tar)(file, limit)
        for name, size, chunks in _protect(reader):
            total += size or 0
            if total > limit:
                raise Broken(f"it unpacks to more than {limit:,} bytes")
            parts = names.add(name, folder=size is None)
            if parts:
                yield Member(parts, size, _exactly(_protect(chunks), size or 0, name))


def _protect(read: Iterator) -> Iterator:
    try:
        yield from read
    except DAMAGE as error:
        raise Broken(shown(str(error) or type(error).__name__, 200)[1:-1]) from error


def _exactly(chunks: Iterator[bytes], size: int, name: str) -> Iterator[bytes]:
    found = 0
    for chunk in chunks:
        found += len(chunk)
        if found > size:
            break
        yield chunk
    if found != size:
        raise Broken(f"{shown(name)} is said to have {size:,} bytes, and has others")


class _Names:
    """The names so far; none may be taken for another, on whatever system."""

    def __init__(self) -> None:
        self._there: dict[tuple[str, ...], tuple[str, bool]] = {}
        self._count = 0

    def add(self, name: str, *, folder: bool) -> tuple[str, ...]:
        """Returns the parts of a member's name; none of the archive's own top."""
        self._count += 1
        if self._count > MEMBERS:
            raise Broken(f"it has more than {MEMBERS:,} members")
        parts = _split(name)
        if not parts and not folder:
            raise Broken("it has a file without a name")
        for length in range(1, len(parts) + 1):
            is_folder = folder or length < len(parts)
            key, entry = tuple(map(_fold, parts[:length])), (parts[length - 1], is_folder)
            if self._there.get(key, entry) != entry or (key in self._there and not is_folder):
                raise Broken(
                    f"{shown(name)} occurs twice, as a file and as a folder, or in other spelling"
                )
            self._there[key] = entry
        return parts


def _fold(part: str) -> str:
    """Returns what a system that knows no case sees."""
    return unicodedata.normalize("NFC", part).casefold().rstrip(" .")


def _split(name: str) -> tuple[str, ...]:
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name[:1] == "/" or "\\" in name or any(":" in part or part == ".." for part in parts):
        raise Broken(
            f"it must not reach outside the folder it is unpacked in, but has the member "
            f"{shown(name)}: do not trust it"
        )
    if not name.isprintable() or len(parts) > DEPTH or any(_too_long(part) for part in parts):
        raise Broken(f"the name {shown(name)} is too long, too deep, or not printable")
    return parts


def _too_long(part: str) -> bool:
    return len(part.encode()) > LENGTH
