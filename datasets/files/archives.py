"""Zip and tar archives: read to their ends and checksums, and unpacked whole or not at all.

Members go inside of their folder only. A fault of an archive is a `Broken`, which says what it is.
"""

import lzma
import os
import shutil
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from .archive_formats import Broken, is_tar, is_zip, read_tar, read_zip
from .download import make_folder
from .reading import check_file, shown

RATIO, LEAST = 100, 1 << 24  # times an archive's own size, bytes: what it may unpack to
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


def check_archive(path: Path) -> None:
    """Raises ValueError unless a file begins as a tar archive, or as a zip archive and ends so."""
    if find_kind(path) is None:
        raise ValueError("it is neither a zip nor a tar archive")


def unpack(
    archive: str | Path,
    folder: str | Path,
    *,
    wanted: Sequence[str],
    limit: int | None = None,
    progress: bool = True,
) -> list[Path]:
    """Puts the wanted members of a zip or tar archive into a folder, and returns their paths.

    A member is a file or a folder at the archive's top, or in one of the folders there, whatever
    they are called. It comes whole or not at all; one that is there already is left alone, and
    if all are, the archive is not opened. Before anything has its place the whole archive was
    read, to its last checksum; a plain tar archive has none of contents, which may be damaged
    and must be checked in other ways. Permissions and times are not kept.

    Args:
        archive: the file.
        folder: where its members go; made if need be.
        wanted: names of members.
        limit: bytes that the archive may unpack to; None takes a hundred times its own size, and
            16 MiB at least (pictures take about their size, JSON ten to thirty times it).
        progress: whether to show a bar.

    Raises:
        FileNotFoundError: if there is no such archive.
        ValueError: if the archive is damaged, lacks a member, has one that is a link or device,
            would lie outside of the folder, or occurs twice (in whatever spelling), has more than
            a million members, or unpacks to more than `limit`. Nothing of it is kept.
        OSError: if the disk is full, or cannot be written for another reason.
    """
    archive, folder = Path(archive), Path(folder)
    paths = [folder / name for name in wanted]
    if missing := [path for path in paths if not path.exists()]:
        check_file(archive, advice="fetch it first")
        scratch = _make_scratch(folder, archive.name)
        try:
            _extract(archive, scratch, limit, progress)
            for source, path in [(_find(scratch, path.name, archive), path) for path in missing]:
                os.replace(source, path)
        except Broken as error:
            raise ValueError(
                f"{archive} could not be unpacked: {error}; nothing of it was kept. Move it away "
                "and run this again to fetch it afresh, if need be from another address"
            ) from error
        finally:
            shutil.rmtree(scratch)
    return paths


def _make_scratch(folder: Path, name: str) -> Path:
    scratch = folder / f"{name}.unpacking"
    if scratch.is_symlink() or (scratch.exists() and not scratch.is_dir()):
        raise ValueError(
            f"{scratch} must be a folder that an interrupted call left, or not be there, but is a "
            "link or a file, which is left alone; move it away"
        )
    if scratch.is_dir():
        shutil.rmtree(scratch)
    make_folder(scratch)
    return scratch


def _extract(archive: Path, folder: Path, limit: int | None, progress: bool) -> None:
    if limit is None:
        limit = max(LEAST, RATIO * archive.stat().st_size)
    options = {"desc": archive.name, "unit": " files", "disable": not progress}
    for member in tqdm(read_members(archive, limit), **options):
        path = folder.joinpath(*member.parts)
        try:
            _write(member, path)
        except OSError as error:
            raise OSError(
                f"{path} could not be written: {error.strerror or error}; nothing of {archive} was "
                "kept: make room, or choose another folder, and run this again"
            ) from error


def _write(member: Member, path: Path) -> None:
    if member.size is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if member.size > free:
        raise OSError(f"it needs {member.size:,} bytes, the disk has {free:,}")
    with path.open("xb") as file:
        for chunk in member.chunks:
            file.write(chunk)


def _find(folder: Path, name: str, archive: Path) -> Path:
    tops = sorted(folder.iterdir())
    for path in (folder / name, *(top / name for top in tops)):
        if path.exists():
            return path
    raise ValueError(
        f"{archive} must hold {name}, at its top or one folder below, but has "
        f"{[shown(top.name)[1:-1] for top in tops[:5]]} there; it is another archive, or its "
        "layout changed"
    )


def find_kind(path: Path) -> str | None:
    """Returns "zip" or "tar" of what a file begins with, None if it is neither.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no regular file.
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
