"""Checks of files of sequences, each with one error that names what is wrong.

Layouts are told from their neighbours so: parts and arrays by name, rows by the labels, features
by three axes, of which steps come second (`check_steps`).
"""

import contextlib
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..files.numbers import as_float32
from ..files.reading import LIMIT, check_file, clean_text, shown
from ..files.restricted_pickle import load
from .sequences import PARTS, Part

NAMED = 20  # names that an error message repeats
MOST_COLUMNS = 16  # of an id
MOST_TEXT = 1 << 26  # characters of all ids, or of all transcripts, of a part
NUMPY_NUMBERS = (np.integer, np.floating)


def read_pickle(path: str | Path, keys: Sequence[str], *, source: str) -> dict[str, dict]:
    """Returns a pickle's parts "train", "valid" and "test", each with the keys, by name.

    Raises:
        FileNotFoundError: if there is no such file; says where it comes from.
        ValueError: if the file is damaged, would run code, or lacks a part or a key.
    """
    path = check_file(path, advice=f"it comes from {source}")
    content = load(path, encoding="latin1")
    if not isinstance(content, dict) or any(not isinstance(content.get(p), dict) for p in PARTS):
        there = listed(content) if isinstance(content, dict) else shown(content)
        raise ValueError(f"{path} must be a dict of dicts {list(PARTS)}, got {there}; see {source}")
    for name in PARTS:
        if missing := [key for key in keys if key not in content[name]]:
            raise ValueError(
                f"{name} in {path} must have {list(keys)}, but {missing} are missing; "
                f"there are {listed(content[name])}"
            )
    return {name: content[name] for name in PARTS}


def listed(names: Mapping | Sequence | set) -> str:
    """Returns names of a file as an error message may repeat them: escaped, the first of them."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"[{', '.join(sorted(map(shown, islice(names, NAMED))))}]{more}"


def read_numbers(value: Any, where: str) -> np.ndarray:
    """Returns an array of numbers: the file's, or one made of a list of numbers or of arrays.

    Lists of lists are refused: what they hold twice would be copied, and could fill the memory.

    Raises:
        ValueError: if it is something else, holds truth values, or goes beyond the memory agreed.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        return value
    if isinstance(value, list | tuple) and value:
        kinds, array = set(map(type, value)), None
        if kinds == {np.ndarray}:
            array = _stacked(value, where)
        elif all(kind in (int, float) or issubclass(kind, NUMPY_NUMBERS) for kind in kinds):
            with contextlib.suppress(OverflowError):  # of an integer among fractions
                array = np.array(value)  # of integers beyond 64 bits it makes objects
        if array is not None and array.dtype.kind in "fiu":
            return array
    got = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else shown(value)
    raise ValueError(f"{where} must be an array of numbers, got {got}; get the file again")


def _stacked(arrays: Sequence[np.ndarray], where: str) -> np.ndarray:
    first = arrays[0]
    if any(a.shape != first.shape or a.dtype != first.dtype for a in arrays):
        raise ValueError(
            f"{where} must be one array, or a list of equal shapes, but those of its "
            f"{len(arrays)} arrays differ; pad them"
        )
    if len(arrays) * first.nbytes > LIMIT:
        raise ValueError(
            f"{where} must have at most {LIMIT:,} bytes, has more; save it as an array"
        )
    return np.stack(arrays)


def read_features(value: Any, where: str, *, rows: int, silence: bool = False) -> np.ndarray:
    """Returns (rows, steps, features) float32; `where` names it in errors.

    Args:
        silence: whether -inf, the logarithm of silence in acoustic features, becomes 0.

    Raises:
        ValueError: if the shape is another, or a row is not finite, or not in float32.
    """
    array = read_numbers(value, where)
    if array.ndim != 3 or len(array) != rows or 0 in array.shape:
        raise ValueError(
            f"{where} must be numbers of shape ({rows}, steps, features), a row for each label, "
            f"got {array.dtype} of shape {array.shape}; get the file again"
        )
    if silence and array.dtype.kind == "f" and (silent := array == -np.inf).any():
        array = np.where(silent, 0, array)
    return as_float32(array, where)


def check_steps(values: np.ndarray, where: str) -> None:
    """Warns if steps seem to come last, (samples, features, steps): padding is zeros in steps.

    That is so if no sample has zeros only at either end of the second axis, while half of them or
    more have on the third, beyond those that all have: features may always be zero.
    """
    ends = values[:, [0, -1]].any(axis=2).all(axis=1)
    if any(values[row].any() for row in np.flatnonzero(~ends)):
        return
    used = values[ends].any(axis=1)  # (samples, features)
    padding = used.argmax(axis=1) + used[:, ::-1].argmax(axis=1)
    more = np.count_nonzero(padding > padding.min(initial=values.shape[2]))
    if more and 2 * more >= len(used):
        warnings.warn(
            f"{where}, of shape {values.shape}, has zeros at the ends of its last axis, as padding "
            "is, and none of its second: if steps come last, exchange the two",
            UserWarning,
            stacklevel=2,
        )


def read_labels(value: Any, where: str, *, bound: float | None) -> np.ndarray:
    """Returns labels as (samples, 1) float32; finite, and within [-bound, bound] if that is given.

    Raises:
        ValueError: names the first row that is not, or the shape if it is no number a sample.
    """
    array = read_numbers(value, where)
    if array.ndim < 1 or not array.size == len(array) > 0:
        raise ValueError(
            f"{where} must be a number for each sample, got {array.dtype} of shape {array.shape}; "
            "get the file again"
        )
    array = array.reshape(-1, 1)
    labels = as_float32(array, where)
    if bound is not None and len(bad := np.flatnonzero((array < -bound) | (array > bound))):
        raise ValueError(
            f"{where} must lie in [-{bound}, {bound}], but row {bad[0]} is {array[bad[0], 0]}; "
            "is this another set?"
        )
    return labels


def check_parts(parts: Mapping[str, Part], path: str | Path) -> None:
    """Checks what only all parts together show; parts may have no ids.

    Warns if no sample of train has a modality.

    Raises:
        ValueError: if a modality has other features in another part, or an id occurs twice, in
            one part or in two.
    """
    for key, view in parts["train"].views.items():
        widths = {name: part.views[key].values.shape[2] for name, part in parts.items()}
        if len(set(widths.values())) > 1:
            raise ValueError(
                f"{key} in {path} must have the same features in all parts, got {widths}; get the "
                "file again"
            )
        if not view.present.any():
            warnings.warn(
                f"{key} of train in {path} is zero in every sample: nothing can be learnt from it",
                UserWarning,
                stacklevel=3,
            )
    seen: dict[str, str] = {}
    for name, part in parts.items():
        for row, sample in enumerate(part.ids or ()):
            if sample in seen:
                raise ValueError(
                    f"every id in {path} must occur once, but row {row} of {name} has "
                    f"{shown(sample)}, which is also in {seen[sample]}; leave the copies out"
                )
            seen[sample] = name


def read_ids(value: Any, where: str, *, rows: int) -> list[str]:
    """Returns one name a sample; of several columns (video, start, end) all count.

    Raises:
        ValueError: if there are other rows, or one holds something other than text and numbers.
    """
    return [
        " ".join(to_text(entry, f"{where}, row {row},") for entry in entries)
        for row, entries in enumerate(_read_rows(value, where, rows))
    ]


def read_texts(value: Any, where: str, *, rows: int) -> list[str]:
    """Returns one text a sample.

    Raises:
        ValueError: if there are other rows, or one is no text: a missing transcript may be NaN.
    """
    texts = []
    for row, entries in enumerate(_read_rows(value, where, rows)):
        if len(entries) != 1 or not isinstance(entries[0], str | bytes):
            raise ValueError(
                f"{where} must be a text for each sample, but row {row} has "
                f"{', '.join(map(shown, entries[:3]))}; fill in or leave out what is missing"
            )
        texts.append(to_text(entries[0], f"{where}, row {row},"))
    return texts


def to_text(entry: Any, where: str) -> str:
    """Returns a name or a text of a file as text that can be written: see `clean_text`.

    Raises:
        ValueError: if it is neither text nor a finite number.
    """
    if isinstance(entry, bytes):
        return entry.decode("utf-8", "backslashreplace")
    if isinstance(entry, str):
        return clean_text(entry)
    if type(entry) is int:
        readable = entry.bit_length() <= 256  # Python writes no integer of thousands of digits
    else:
        readable = isinstance(entry, (float, *NUMPY_NUMBERS)) and bool(np.isfinite(entry))
    if not readable:
        raise ValueError(
            f"{where} must be text or a number, got {shown(entry)}; get the file again"
        )
    return str(entry)


def to_list(array: np.ndarray, where: str) -> list:
    """Returns the array's entries; a ValueError if a text of it holds what is no character."""
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        codes = np.ascontiguousarray(array).view(f"{array.dtype.str[0]}u4")
        if codes.max() > sys.maxunicode:  # the interpreter fails at them
            raise ValueError(f"{where} is damaged: it holds what is no text; get the file again")
    return array.tolist()


def _read_rows(value: Any, where: str, rows: int) -> list[Sequence]:
    """Returns the entries of every row: of an array, or of a list of entries or of short lists."""
    if isinstance(value, np.ndarray):
        shape = f"shape {value.shape}"
        size = math.prod(value.shape[1:])
        fits = value.shape[:1] == (rows,) and size <= MOST_COLUMNS
        value = to_list(value.reshape(rows, size), where) if fits else None
    else:
        shape = shown(value)
        value = value if isinstance(value, list | tuple) and len(value) == rows else None
    if value is None:
        raise ValueError(
            f"{where} must have a row for each of the {rows} labels, got {shape}; get the file "
            "again"
        )
    table = [_entries(row, where) for row in value]
    sizes = [len(e) for row in table for e in row if isinstance(e, str | bytes)]
    if sum(sizes) > MOST_TEXT or any(len(row) > MOST_COLUMNS for row in table):
        raise ValueError(
            f"{where} must have at most {MOST_COLUMNS} columns and {MOST_TEXT:,} characters; get "
            "the file again"
        )
    return table


def _entries(row: Any, where: str) -> Sequence:
    if isinstance(row, np.ndarray):
        return to_list(row.reshape(-1)[: MOST_COLUMNS + 1], where)
    return row[: MOST_COLUMNS + 1] if isinstance(row, list | tuple) else [row]


def choose(wanted: Sequence[str] | None, there: Sequence[str]) -> list[str]:
    """Returns the wanted modalities, all if None; an error unless they are different and there."""
    chosen = list(there if wanted is None else wanted)
    if not chosen or set(chosen) - set(there) or len(set(chosen)) < len(chosen):
        raise ValueError(f"modalities must be different names out of {list(there)}, got {chosen}")
    return chosen
