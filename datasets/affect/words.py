"""The words of CMU-MOSI's samples, as MultiBench reads them for its noise in text."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..files.hdf5 import follow, open_file, read_whole
from ..files.reading import shown
from ..files.restricted_pickle import load
from .sequences import Sequences

PAUSE = "sp"  # of CMU's SDK: no word
SHORTEST = 5  # letters and digits of a word in which MultiBench's noise slips


def read_words(path: str | Path, ids: Sequence[str]) -> list[list[str] | None]:
    """Returns the words of each sample, None of one that the file does not have.

    Args:
        path: an HDF5 file of CMU's SDK, with a dataset `words/<id>/features` a sample; or a
            pickle of a dict, id -> words. Pauses ("sp") are left out.
        ids: of the samples.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or has something else than words.

    Warns:
        UserWarning: if it lacks some of the samples.
    """
    is_hdf5 = Path(path).suffix in (".hdf5", ".h5", ".csd")
    found = _of_hdf5(path, ids) if is_hdf5 else _of_pickle(path, ids)
    missing = [name for name, words in zip(ids, found, strict=True) if words is None]
    if len(missing) == len(ids):
        raise ValueError(
            f"{path} must have the words of the samples, such as {shown(ids[0])}, and has those "
            "of none; is it another set?"
        )
    if missing:
        warnings.warn(
            f"{path} has no words for {len(missing)} of {len(ids)} samples, the first "
            f"{shown(missing[0])}: their text stays clean at every level of noise",
            UserWarning,
            stacklevel=3,
        )
    return found


def may_slip(text: Sequences, words: Sequence[list[str] | None], most: int) -> np.ndarray:
    """Returns (samples, steps) bool, the steps of which a slip may spoil the word.

    Steps are the last ones of a sample's words, of which the first `most` are in the file: those
    in front may be cut, as they have no vector.

    Raises:
        ValueError: if a sample has more steps than words.
    """
    slips = np.zeros(text.values.shape[:2], dtype=bool)
    for row, (length, own) in enumerate(zip(text.lengths.tolist(), words, strict=True)):
        if own is None or not text.present[row]:
            continue
        own = own[:most]
        if length > len(own):
            raise ValueError(
                f"each step must be a word to have noise in its letters, but sample {row} of test "
                f'has {length} steps and {len(own)} words; use text_noise="features"'
            )
        slips[row, :length] = [_long(word) for word in own[len(own) - length :]]
    return slips


def _long(word: str) -> bool:
    ends = [place for place, letter in enumerate(word, start=1) if letter.isalnum()]
    return bool(ends) and ends[-1] >= SHORTEST


def _of_hdf5(path: str | Path, ids: Sequence[str]) -> list[list[str] | None]:
    found: list[list[str] | None] = []
    with open_file(path) as file:
        for name in ids:
            where = f"words/{name}/features"
            there = follow(file, where) is not None
            found.append(_cleaned(read_whole(file, where).ravel(), path, name) if there else None)
    return found


def _of_pickle(path: str | Path, ids: Sequence[str]) -> list[list[str] | None]:
    content = load(path, encoding="latin1")
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a dict, id -> words, got {shown(content)}")
    return [_cleaned(content[name], path, name) if name in content else None for name in ids]


def _cleaned(words: Sequence | np.ndarray, path: str | Path, name: str) -> list[str]:
    texts = [word.decode("utf-8", "replace") if isinstance(word, bytes) else word for word in words]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{path} must have words for {shown(name)}, got {shown(words)}")
    return [str(text) for text in texts if text != PAUSE]
