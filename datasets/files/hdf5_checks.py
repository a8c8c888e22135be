"""What of an HDF5 file may be read: plain values, in the file itself, all of them written."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from .reading import shown

HOPS = 16  # soft links that may follow each other
LISTED = 20  # datasets that an error names
RAW = (  # what h5py raises of damaged files
    OSError,
    RuntimeError,
    KeyError,
    TypeError,
    ValueError,
    OverflowError,
    AttributeError,
    MemoryError,
)


@contextmanager
def whole(file: h5py.File | str | Path, what: str) -> Iterator[None]:
    """Around calls of h5py: what it raises of a damaged file becomes a ValueError that names it."""
    try:
        yield
    except RAW as error:
        name = os.fspath(file) if isinstance(file, str | Path) else file.filename
        raise ValueError(
            f"{what} of {name} cannot be read: the file is damaged, or made with what this HDF5 "
            f"does not know ({shown(str(error), 200)}); get it again"
        ) from error


def find_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Returns a dataset of an open file, if it holds plain values that are all there.

    Raises:
        ValueError: lists what is there if there is no such dataset; or if its values lie in
            another file (external and virtual datasets, external links, which are not followed),
            are no numbers or texts, or were never written, which HDF5 reads as zeros.
    """
    found = follow(file, name)
    if found is None:
        there = sorted(_list_datasets(file, file))
        raise ValueError(f"{file.filename} must hold a dataset {name!r}, it has {there}")
    with whole(file, name):
        outside = found.external or found.is_virtual
        dtype, shape = found.dtype, found.shape
        # a damaged type makes numbers of a layout that no program writes, and HDF5 reads them
        odd = dtype.kind in "iufc" and not lies_as_numpy(found)
    if outside:
        raise _elsewhere(file, name)
    if shape is None or dtype.fields or dtype.subdtype or odd or not is_plain(dtype):
        raise ValueError(
            f"{name} in {file.filename} must be plain numbers or texts, but is of the type "
            f"{shown(str(dtype))}; write it anew as one of these"
        )
    _check_written(file, name, found)
    return found


def lies_as_numpy(dataset: h5py.Dataset) -> bool:
    """Says whether values lie in the file, bit by bit, as NumPy has them."""
    return h5py.h5t.py_create(dataset.dtype, logical=True) == dataset.id.get_type()


def is_plain(dtype: np.dtype) -> bool:
    """Says whether values are texts or numbers, or records and blocks of them.

    A record may hold a reference (Fuel's does), which is not followed.
    """
    if dtype.fields:
        fields = [field[0] for field in dtype.fields.values()]
        return all(h5py.check_ref_dtype(field) or is_plain(field) for field in fields)
    if dtype.subdtype:
        return is_plain(dtype.subdtype[0])
    return dtype.kind in "iufcbSU" or h5py.check_string_dtype(dtype) is not None


def _elsewhere(file: h5py.File, name: str) -> ValueError:
    return ValueError(
        f"{name} in {file.filename} must be in that file itself, but it is a link to another "
        "file's numbers, whatever these are; copy them into it"
    )


def follow(file: h5py.File, name: str) -> h5py.Dataset | None:
    """Walks to a dataset over links inside of the file; None if it is not there.

    Raises:
        ValueError: if a link leads out of the file, which is not opened.
    """
    parts, group, hops = name.split("/"), file, 0
    while parts:
        part = parts.pop(0)
        if part in ("", "."):
            continue
        with whole(file, name):
            link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
            if isinstance(link, h5py.HardLink):
                group = group[part]
        if link is None:
            return None
        if isinstance(link, h5py.SoftLink) and hops < HOPS:
            hops += 1
            group = file if link.path.startswith("/") else group
            parts = [*link.path.split("/"), *parts]
        elif not isinstance(link, h5py.HardLink):
            raise _elsewhere(file, name)
    return group if isinstance(group, h5py.Dataset) else None


def _list_datasets(file: h5py.File, group: h5py.Group, depth: int = 3) -> list[str]:
    """Names some datasets. (`visititems` looks deeper, and crashes on some damaged files.)"""
    there: list[str] = []
    with whole(file, "the list of datasets"):
        for name in group:
            if len(there) >= LISTED:
                break
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            item = group[name]
            if isinstance(item, h5py.Dataset):
                there.append(str(name))
            elif isinstance(item, h5py.Group) and depth:
                inner = _list_datasets(file, item, depth - 1)
                there += [f"{name}/{below}" for below in inner]
    return there[:LISTED]


def _check_written(file: h5py.File, name: str, dataset: h5py.Dataset) -> None:
    """HDF5 reads values that were declared and never written as zeros, and says nothing."""
    with whole(file, name):
        if not dataset.size:
            return
        stored, chunks, needed, there = dataset.id.get_storage_size(), dataset.chunks, 1, 1
        if chunks:
            needed = math.prod(-(-a // b) for a, b in zip(dataset.shape, chunks, strict=True))
            there = dataset.id.get_num_chunks()
    if not stored or there < needed:
        lacking = f"{there:,} of {needed:,} chunks are there" if chunks else "nothing was written"
        raise ValueError(
            f"{name} in {file.filename} must be written to its end, but {lacking}; make the file "
            "anew, or get it again"
        )
