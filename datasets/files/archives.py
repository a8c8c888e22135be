"""Unpacks zip and tar archives: inside of their folder only, and whole or not at all."""

import gzip
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,  # a zip file that asks for a password, or is compressed in an unknown way
)


def check_archive(path: Path) -> None:
    """Raises ValueError unless a file begins as a tar archive, or ends as a zip archive."""
    if not (zipfile.is_zipfile(path) or tarfile.is_tarfile(path)):
        raise ValueError("it is neither a zip nor a tar archive")


def unpack(
    archive: str | Path, folder: str | Path, *, wanted: Sequence[str], progress: bool = True
) -> list[Path]:
    """Puts the wanted members of a zip or tar archive into a folder, and returns their paths.

    A member is a file or a folder at the archive's top, or in one of the folders there, whatever
    they are called. It comes whole or not at all; one that is there already is left alone, and
    if all are, the archive is not opened.

    Raises:
        ValueError: if the archive is damaged, lacks a member, or has one that is a link or device,
            or would lie outside of the folder. Nothing of it is kept.
    """
    archive, folder = Path(archive), Path(folder)
    paths = [folder / name for name in wanted]
    if missing := [path for path in paths if not path.exists()]:
        scratch = folder / f"{archive.name}.unpacking"
        shutil.rmtree(scratch, ignore_errors=True)  # what an interrupted call left
        scratch.mkdir(parents=True)
        try:
            _extract(archive, scratch, progress)
            for source, path in [(_find(scratch, path.name, archive), path) for path in missing]:
                os.replace(source, path)
        except BROKEN as error:
            raise ValueError(
                f"{archive} could not be unpacked: {error}; nothing of it was kept. Move it away "
                "and run this again to fetch it afresh"
            ) from error
        finally:
            shutil.rmtree(scratch)
    return paths


def _extract(archive: Path, folder: Path, progress: bool) -> None:
    options = {"desc": archive.name, "unit": " files", "disable": not progress}
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for member in tqdm(file.infolist(), **options):
                _refuse_outside(archive, member.filename)
                file.extract(member, folder)
        return
    if not hasattr(tarfile, "data_filter"):
        raise ValueError(f"unpacking {archive} safely needs Python 3.10.12, 3.11.4 or newer")
    with tarfile.open(archive) as file:
        for member in tqdm(file, **options):
            _refuse_outside(archive, member.name)
            if not (member.isfile() or member.isdir()):
                raise ValueError(
                    f"{archive} must hold files and folders only, but {member.name!r} is a link or "
                    "device; nothing of it was kept: fetch it from another address"
                )
            file.extract(member, folder, filter="data")


def _refuse_outside(archive: Path, name: str) -> None:
    first, *rest = name.replace("\\", "/").split("/")
    if first == "" or ":" in first or ".." in (first, *rest):
        raise ValueError(
            f"{archive} must not reach outside the folder it is unpacked in, but has the member "
            f"{name!r}; nothing of it was kept: do not trust it, fetch it from another address"
        )


def _find(folder: Path, name: str, archive: Path) -> Path:
    tops = sorted(folder.iterdir())
    for path in (folder / name, *(top / name for top in tops)):
        if path.exists():
            return path
    raise ValueError(
        f"{archive} must hold {name}, at its top or one folder below, but has "
        f"{[top.name for top in tops[:5]]} there; it is another archive, or its layout changed"
    )
