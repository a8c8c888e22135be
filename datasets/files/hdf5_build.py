"""HDF5 files built so that they appear whole or not at all, and so that a kill loses a batch."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from .hdf5 import open_file, read_attribute
from .hdf5_stored import make_sums, sum_items, sum_rest
from .reading import read_text, shown

SETTINGS = "build_settings"  # attribute of a built file


def build_file(
    path: str | Path,
    total: int,
    create: Callable[[h5py.File], None],
    fill: Callable[[h5py.File, int, int], None],
    *,
    settings: Mapping[str, str],
    batch_size: int = 64,
    progress: bool = True,
    desc: str | None = None,
) -> Path:
    """Writes an HDF5 file that appears complete or not at all; a later call resumes.

    Works in `<path>.part` and notes in `<path>.part.json` how far it came. A kill loses a batch at
    most. What `create` makes must be contiguous (no chunks, no compression): its place in the file
    is then fixed before the first batch, and an interrupted write cannot harm the rest. Checksums
    of all rows are kept in the file, which `Rows` and `read_whole` compare (see `hdf5_stored`).

    Args:
        path: file to write; if it is there, with these settings, nothing is done.
        total: number of items.
        create: makes the datasets, at full size, and the attributes.
        fill: writes the items `start` to `stop - 1`; may be called again for the same ones.
        settings: what the content depends on; kept in the file, as the attribute `SETTINGS`.
        batch_size: items a call of `fill`.
        progress: whether to show a bar, labelled `desc`.

    Returns:
        The path.

    Raises:
        ValueError: if the file, or the unfinished one, was made with other settings, or its note
            is damaged, or is a symbolic link; or if `batch_size` is less than 1.
        OSError: if the disk has no room for it.
    """
    if batch_size < 1:  # no batch would be written, and the file look complete
        raise ValueError(f"batch_size must be at least 1, got {batch_size}; try 64")
    path = Path(path)
    part, note = (path.with_name(path.name + suffix) for suffix in (".part", ".part.json"))
    wanted = {"total": str(total), **settings}
    if path.exists():
        with open_file(path) as file:
            _check_settings(path, _read_settings(file), wanted)
        note.unlink(missing_ok=True)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _begin(part, note, create, wanted)
    bar = tqdm(total=total, initial=done, desc=desc or path.name, disable=not progress)
    with bar, open_file(part, "r+") as file:
        for start in range(done, total, batch_size):
            stop = min(start + batch_size, total)
            fill(file, start, stop)
            sum_items(file, total, start, stop)
            file.flush()
            _sync(part)  # the note must never be ahead of the disk
            _write_note(note, wanted, stop)
            bar.update(stop - start)
        sum_rest(file, total)
    _sync(part)
    os.replace(part, path)
    note.unlink()
    return path


def _check_room(part: Path) -> None:
    """Raises OSError if the disk cannot hold what has its place in the file, but is not there."""
    there = part.stat()
    lacking = there.st_size - 512 * getattr(there, "st_blocks", there.st_size // 512)
    free = shutil.disk_usage(part.parent).free
    if lacking > free:
        raise OSError(
            f"{part} needs {lacking:,} bytes more, the disk has {free:,}; make room, or choose "
            "another folder, and run this again"
        )


def _refuse_links(*paths: Path) -> None:
    for path in paths:
        if path.is_symlink():
            raise ValueError(
                f"{path} must be a file of an earlier build, or not be there, but is a symbolic "
                "link, which is not written through; move it away"
            )


def _begin(
    part: Path, note: Path, create: Callable[[h5py.File], None], wanted: dict[str, str]
) -> int:
    """Returns how many items are there, once the file has its place."""
    _refuse_links(part, note)
    if not (part.exists() and note.exists()):
        _start(part, create, wanted)
        _write_note(note, wanted, 0)
    _check_room(part)
    return _read_note(note, wanted)


def _start(part: Path, create: Callable[[h5py.File], None], wanted: dict[str, str]) -> None:
    with h5py.File(part, "w", libver="earliest") as file:
        create(file)
        file.attrs[SETTINGS] = json.dumps(wanted)
        make_sums(file)
        file.visititems(_allocate)
    _sync(part)


def _allocate(name: str, item: h5py.Dataset | h5py.Group) -> None:
    """Gives a dataset its place in the file, which HDF5 otherwise does at the first write."""
    if not isinstance(item, h5py.Dataset) or not item.size:
        return
    if item.chunks is not None:
        raise ValueError(
            f"dataset {name} must be contiguous for an interrupted build to be resumed, but it "
            f"has chunks {item.chunks}; create it without chunks, compression and maxshape"
        )
    if not item.id.get_storage_size() and not item.dtype.hasobject:
        item[tuple(size - 1 for size in item.shape)] = np.zeros((), item.dtype)


def _sync(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _read_settings(file: h5py.File) -> object:
    text = read_attribute(file, SETTINGS)
    try:
        return json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):  # damaged, and thus no settings of ours
        return {}


def _read_note(note: Path, wanted: dict[str, str]) -> int:
    total = int(wanted["total"])
    try:
        noted = json.loads(read_text(note, limit=1 << 20))
        settings, done = noted["settings"], noted["done"]
        if type(done) is not int or not 0 <= done <= total and settings == wanted:
            raise ValueError(f"it says that {shown(done)} of {total} are done")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{note} is damaged ({error}); delete it to start again") from error
    _check_settings(note, settings, wanted)
    return done


def _write_note(note: Path, wanted: dict[str, str], done: int) -> None:
    temporary = note.with_name(note.name + ".tmp")
    temporary.unlink(missing_ok=True)  # a link in its place is not written through
    with temporary.open("x", encoding="utf-8") as file:
        json.dump({"settings": wanted, "done": done}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, note)


def _check_settings(path: Path, found: object, wanted: dict[str, str]) -> None:
    if found != wanted:
        raise ValueError(
            f"{path} was made with the settings {_told(found)}, now asked for are {wanted}; ask "
            "for the same again, choose another name, or move the old file (and its .part) away"
        )


def _told(settings: object) -> str:
    """Returns settings as a message repeats them: each escaped and cut."""
    if not isinstance(settings, dict):
        return shown(settings)
    pairs = [f"{shown(key)}: {shown(value)}" for key, value in list(settings.items())[:20]]
    return "{" + ", ".join(pairs) + "}"
