"""MM-IMDB as it was collected: posters and plots of films, and their genres.

Reads the layout of `mmimdb.tar.gz` (Arevalo et al., 2017): `split.json`, an object of the lists
of ids train, dev and test, and a film's `dataset/<id>.jpeg` and `dataset/<id>.json`, an object
with plot (text, or a list of texts, of which the longest counts) and genres.

Four of MM-IMDB's 27 genres are so rare that none of its 23 labels stands for them; `RARE` names
them. Word pieces and the order of the genres are taken from train alone.

An id is the name of files, and so no path: printable, without slashes. Half a surrogate pair in a
plot or genre is read as U+FFFD. A film's JSON has at most `FILM_BYTES`, a plot `PLOT_LENGTH`.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..files.json_files import read_json
from ..files.reading import check_file, clean_text, shown
from .contents import MOST_LABELS

PARTS = ("train", "dev", "test")
RARE = ("News", "Adult", "Talk-Show", "Reality-TV")
ADVICE = "the data is mmimdb.tar.gz, unpacked, see datasets/imdb/README.md"
FILM_BYTES, SPLIT_BYTES = 1 << 22, 1 << 26
PLOT_LENGTH = 100_000
"""Characters of a plot, of which BERT reads the first 512 words or so."""


class Films(NamedTuple):
    """All films of a folder, in the order of `split.json`: train's, then dev's, then test's.

    Attributes:
        ids: the films' names.
        plots: a text a film, possibly empty.
        posters: the picture files, of any size.
        labels: (films, genres) float32, 1 where a film has the genre.
        genres: the labels' names.
        sizes: the numbers of films of train, dev and test.
    """

    ids: list[str]
    plots: list[str]
    posters: list[Path]
    labels: np.ndarray
    genres: list[str]
    sizes: tuple[int, int, int]


def read_films(folder: str | Path, *, genres: Sequence[str] | None = None) -> Films:
    """Reads all that is known of the films, but for the posters' pixels.

    Args:
        folder: holds `split.json` and `dataset`.
        genres: names of the labels in the order wanted, such as an HDF5 file's `target_names`;
            a film's other genres are left out. None takes all genres of train but the four of
            `RARE`, the most frequent there first (names decide ties).

    Raises:
        FileNotFoundError: if the folder, `split.json`, or files of a film are missing.
        ValueError: if a file does not hold what it must, an id is in two parts, or a genre is
            named twice, or the labels are more than `contents.MOST_LABELS`.
    """
    folder = Path(folder)
    parts = _read_split(folder / "split.json")
    ids = [film for part in parts for film in part]
    _check_files(folder / "dataset", ids)
    records = [_read_film(folder / "dataset" / f"{film}.json") for film in ids]
    if genres is None:
        counts = Counter(name for _, names in records[: len(parts[0])] for name in names)
        genres = sorted(set(counts) - set(RARE), key=lambda name: (-counts[name], name))
    genres = [str(name) for name in genres]
    if not genres or len(set(genres)) < len(genres):
        raise ValueError(
            f"genres of {folder} must be different names, at least one, got {shown(genres)}: "
            f"{', '.join(map(shown, genres[:9]))}"
        )
    if len(ids) * len(genres) > MOST_LABELS:
        raise ValueError(
            f"the films of {folder} must have at most {MOST_LABELS:,} labels, films times genres, "
            f"got {len(ids):,} x {len(genres):,}; pass the genres that are meant"
        )
    columns = {name: column for column, name in enumerate(genres)}
    labels = np.zeros((len(ids), len(genres)), dtype=np.float32)
    for row, (_, names) in enumerate(records):
        labels[row, [columns[name] for name in names if name in columns]] = 1
    return Films(
        ids,
        [plot for plot, _ in records],
        [folder / "dataset" / f"{film}.jpeg" for film in ids],
        labels,
        genres,
        tuple(map(len, parts)),
    )


def _read_split(path: Path) -> list[list[str]]:
    split = _read(path, SPLIT_BYTES)
    parts = [split.get(part) for part in PARTS] if isinstance(split, dict) else [None]
    if not all(isinstance(part, list) and part for part in parts):
        raise ValueError(
            f"{path} must be an object of lists of ids, none empty: {', '.join(PARTS)}; get the "
            "data again"
        )
    for film in (film for part in parts for film in part):
        if not _is_name(film):
            raise ValueError(
                f"{path} must be an object of lists of ids, texts that can name a file, as "
                f"'0000001', but holds {shown(film)}, of type {type(film).__name__}; get the data "
                "again"
            )
    film, count = Counter(film for part in parts for film in part).most_common(1)[0]
    if count > 1:
        raise ValueError(
            f"{path} must name every id once, in one part, but {film!r} is there {count} times; "
            "leave it in one"
        )
    return parts


def _is_name(film: object) -> bool:
    """Says whether an id names a file in a folder, and no path out of it."""
    if not isinstance(film, str) or not film.isprintable():
        return False
    return re.fullmatch(r"[^/\\]{1,200}", film) is not None


def _check_files(folder: Path, ids: Sequence[str]) -> None:
    there = set(os.listdir(folder)) if folder.is_dir() else set()
    for ending in ("json", "jpeg"):
        missing = [f"{film}.{ending}" for film in ids if f"{film}.{ending}" not in there]
        if missing:
            raise FileNotFoundError(
                f"{folder} must have the files of all films of split.json, but {len(missing)} of "
                f"{len(ids)} lack {missing[0]} and the like; unpack the data again"
            )


def _read_film(path: Path) -> tuple[str, list[str]]:
    film = _read(path, FILM_BYTES)
    film = film if isinstance(film, dict) else {}
    plot, genres = film.get("plot"), film.get("genres")
    plots = [plot] if isinstance(plot, str) else plot
    if not _is_texts(plots):
        raise ValueError(
            f"{path} must have a plot, a text or a list of texts, but it is {shown(plot)}; get it "
            "again"
        )
    if not _is_texts(genres):
        raise ValueError(
            f"{path} must have genres, a list of texts, but it is {shown(genres)}; get it again"
        )
    longest = max(plots, key=len, default="")
    if len(longest) > PLOT_LENGTH:
        raise ValueError(
            f"{path} must have a plot of at most {PLOT_LENGTH:,} characters, got "
            f"{len(longest):,}; shorten it"
        )
    named = [clean_text(genre) for genre in genres]
    if odd := [genre for genre in named if not genre.isprintable()]:
        raise ValueError(
            f"{path} must have genres of printable characters, got {shown(odd[0])}; rename it"
        )
    return clean_text(longest), named


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _read(path: Path, limit: int) -> object:
    size = check_file(path, advice=ADVICE).stat().st_size
    if size > limit:
        raise ValueError(f"{path} must have at most {limit:,} bytes, got {size:,}; get it again")
    return read_json(path)
