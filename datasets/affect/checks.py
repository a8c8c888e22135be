"""What the adapters of sequences check of a file, with one error that names what is wrong."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files.restricted_pickle import load
from .sequences import PARTS, Part


def read_pickle(path: str | Path, keys: Sequence[str], *, source: str) -> dict[str, dict]:
    """Returns a pickle's parts "train", "valid" and "test", each with the keys, by name.

    Raises:
        FileNotFoundError: if there is no such file; says where it comes from.
        ValueError: if the file is damaged, would run code, or lacks a part or a key.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; it comes from {source}")
    content = load(path, encoding="latin1")
    if not isinstance(content, dict) or any(not isinstance(content.get(p), dict) for p in PARTS):
        there = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} must be a dict of dicts {list(PARTS)}, got {there}; see {source}")
    for name in PARTS:
        if missing := [key for key in keys if key not in content[name]]:
            raise ValueError(
                f"{name} in {path} must have {list(keys)}, but {missing} are missing; "
                f"there are {sorted(map(str, content[name]))}"
            )
    return {name: content[name] for name in PARTS}


def read_features(array: Any, where: str, *, rows: int) -> np.ndarray:
    """Returns (rows, steps, features) float32, a copy; `where` names it in errors.

    Raises:
        ValueError: if the shape is another, or a row is not finite.
    """
    array = np.asarray(array)
    fits = array.ndim == 3 and len(array) == rows and 0 not in array.shape
    if not fits or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{where} must be numbers of shape ({rows}, steps, features), a row for each label, "
            f"got {array.dtype} of shape {array.shape}; get the file again"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, see below
        array = array.astype(np.float32)
    check_finite(array, where)
    return array


def without_log_of_zero(audio: Any) -> np.ndarray:
    """Returns a copy in which -inf, the logarithm of silence in acoustic features, is 0."""
    audio = np.asarray(audio)
    return np.where(audio == -np.inf, 0, audio) if audio.dtype.kind == "f" else audio


def read_labels(array: Any, where: str, *, bound: float | None) -> np.ndarray:
    """Returns labels as (samples, 1) float32; finite, and within [-bound, bound] if that is given.

    Raises:
        ValueError: names the first row that is not, or the shape if it is no number a sample.
    """
    array = np.asarray(array)
    fits = array.ndim >= 1 and array.size == len(array) > 0
    if not fits or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{where} must be a number for each sample, got {array.dtype} of shape {array.shape}; "
            "get the file again"
        )
    labels = array.reshape(-1, 1).astype(np.float32)
    check_finite(labels, where)
    if bound is not None and len(bad := np.flatnonzero(abs(labels) > bound)):
        raise ValueError(
            f"{where} must lie in [-{bound}, {bound}], but row {bad[0]} is {labels[bad[0], 0]}; "
            "is this another set?"
        )
    return labels


def check_finite(array: np.ndarray, where: str) -> None:
    """Raises a ValueError that names the first row with an entry that is not finite."""
    bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{where} must be finite, but {len(bad)} rows are not, the first is row {bad[0]}; "
            "fill in or leave out what is missing first"
        )


def check_ids(parts: Mapping[str, Part], path: Path) -> None:
    """Raises a ValueError if an id occurs twice, in one part or in two; parts may have no ids."""
    seen: dict[str, str] = {}
    for name, part in parts.items():
        for row, sample in enumerate(part.ids or ()):
            if sample in seen:
                raise ValueError(
                    f"every id in {path} must occur once, but row {row} of {name} has {sample!r}, "
                    f"which is also in {seen[sample]}; leave the copies out"
                )
            seen[sample] = name


def read_ids(ids: Any, where: str, *, rows: int) -> list[str]:
    """Returns one name a sample; of several columns (video, start, end) all count."""
    ids = np.asarray(ids)
    if ids.shape[:1] != (rows,):
        raise ValueError(
            f"{where} must have a row for each of the {rows} labels, got shape {ids.shape}; "
            "get the file again"
        )
    decoded = ([_text(entry) for entry in row] for row in ids.reshape(rows, -1).tolist())
    return [" ".join(row) for row in decoded]


def choose(wanted: Sequence[str] | None, there: Sequence[str]) -> list[str]:
    """Returns the wanted modalities, all if None; an error unless they are different and there."""
    chosen = list(there if wanted is None else wanted)
    if not chosen or set(chosen) - set(there) or len(set(chosen)) < len(chosen):
        raise ValueError(f"modalities must be different names out of {list(there)}, got {chosen}")
    return chosen


def _text(entry: Any) -> str:
    return entry.decode("utf-8", "replace") if isinstance(entry, bytes) else str(entry)
