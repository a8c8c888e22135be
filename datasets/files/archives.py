"""Unpacks zip and tar archives: inside of their folder only, and whole or not at all."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from .archive_members import Member, find_kind, read_members
from .archive_tar import Broken
from .download import make_folder
from .reading import check_file, shown

RATIO, LEAST = 100, 1 << 24  # times an archive's own size, bytes: what it may unpack to


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
