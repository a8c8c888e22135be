"""`mosi_utterance.npz`, made of the two public repositories that its rows come from.

- Features: `bc-LSTM/data` of github.com/declare-lab/multimodal-deep-learning. `transcripts.csv` has
  a line an utterance: its id, its transcript and more. The first column of `text_train.csv` and of
  `text_test.csv` says which of these lines are in the part. `text/text_train0.csv`, and so on for
  `audio`, `video` and `test`, have the features of the part's utterances, in the same order, and
  then a class, which is left out here.
- Sentiment: CM-BERT's three tables, `data/text` of github.com/thuiar/Cross-Modal-BERT.

The two are joined by transcript: its letters and digits alone, whatever their case. The few that
come twice are joined in their order, which both sources share.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..files.reading import read_text, shown
from ..files.writing import replaced
from .cm_bert import read_parts
from .utterance import FILE

FOLDERS = {"text": "text", "audio": "audio", "vision": "video"}
PARTS = "train", "test"
ADVICE = "it is in bc-LSTM/data of github.com/declare-lab/multimodal-deep-learning"


def make_arrays(features: str | Path, tables: str | Path) -> dict[str, np.ndarray]:
    """Returns the arrays that `utterance` and `transcripts` read, a row for each utterance.

    Args:
        features: the folder `bc-LSTM/data`.
        tables: the folder of CM-BERT's `train.tsv`, `dev.tsv` and `test.tsv`.

    Raises:
        FileNotFoundError: names the file that is missing.
        ValueError: for a file that is damaged, parts that do not have every utterance once, or a
            transcript without a sentiment.
    """
    folder = Path(features)
    listing = folder / "transcripts.csv"
    lines = _read_lines(listing)
    if any(len(line) < 2 for line in lines):
        raise ValueError(f"{listing} must have an id and a transcript in every line; get it again")
    ids, transcripts = [line[0] for line in lines], [line[1] for line in lines]
    rows = [_part_rows(folder / f"text_{part}.csv", len(lines)) for part in PARTS]
    order = np.concatenate(rows)
    if len(order) != len(lines) or len(np.unique(order)) != len(lines):
        raise ValueError(
            f"text_train.csv and text_test.csv in {folder} must have each of the {len(lines)} "
            f"utterances of {listing.name} once, got {len(order)}; get them again"
        )
    arrays = {}
    for name, inside in FOLDERS.items():
        paths = [folder / inside / f"{inside}_{part}0.csv" for part in PARTS]
        found = [_read_features(p, len(r)) for p, r in zip(paths, rows, strict=True)]
        arrays[name] = np.concatenate(found)[np.argsort(order)]
    is_test = np.isin(np.arange(len(lines)), rows[1])
    return arrays | {
        "labels": _sentiments(transcripts, tables),
        "id": np.array(ids),
        "video_id": np.array([name.rpartition("_")[0] for name in ids]),
        "transcript": np.array(transcripts),
        "split": np.where(is_test, "test", "train"),
    }


def write(folder: str | Path, features: str | Path, tables: str | Path) -> Path:
    """Writes `mosi_utterance.npz` to a folder, whole or not at all, and returns its path.

    Args:
        folder: where it is written, made if it is not there.
        features: see `make_arrays`.
        tables: see `make_arrays`.

    Raises:
        FileNotFoundError: see `make_arrays`.
        ValueError: see `make_arrays`.
        OSError: if it cannot be written.
    """
    arrays = make_arrays(features, tables)
    path = Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as file:
        np.savez_compressed(file, **arrays)
    return path


def _read_lines(path: Path) -> list[list[str]]:
    text = read_text(path, advice=ADVICE)
    try:
        return [line for line in csv.reader(io.StringIO(text)) if line]
    except csv.Error as error:
        raise ValueError(
            f"{path} must be a table with commas between its cells, but {error}; get it again"
        ) from error


def _part_rows(path: Path, count: int) -> np.ndarray:
    """Returns the numbers of a part's lines in `transcripts.csv`."""
    first = [line[0] for line in _read_lines(path)]
    if not all(cell.isdecimal() and int(cell) < count for cell in first):
        raise ValueError(
            f"the first column of {path} must be numbers of lines of transcripts.csv, from 0 to "
            f"{count - 1}; get it again"
        )
    return np.array(first, dtype=np.int64)


def _read_features(path: Path, count: int) -> np.ndarray:
    """Returns the features of a part, (count, d) float32, without the class in the last column."""
    lines = _read_lines(path)
    try:
        table = np.array(lines, dtype=np.float64)
    except ValueError as error:
        raise ValueError(
            f"{path} must hold equally many numbers in every line, but {shown(str(error))}; get "
            "it again"
        ) from error
    if len(table) != count or table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(
            f"{path} must have a line for each of the {count} utterances of its part, got shape "
            f"{table.shape}; get it again"
        )
    if not (np.abs(table) <= np.finfo(np.float32).max).all():
        raise ValueError(f"{path} must hold finite numbers of float32's range; get it again")
    return table[:, :-1].astype(np.float32)


def _sentiments(transcripts: Sequence[str], tables: str | Path) -> np.ndarray:
    """Returns the sentiment of each transcript, (utterances,) float32."""
    known = defaultdict(list)
    for part in read_parts(tables, None).values():
        for text, label in zip(part.texts or [], part.labels[:, 0], strict=True):
            known[_plain(text)].append(label)
    found = []
    for text in transcripts:
        left = known[_plain(text)]
        if not left:
            raise ValueError(
                f"every transcript must have a sentiment in {tables}, but {shown(text)} has none; "
                "get train.tsv, dev.tsv and test.tsv again"
            )
        found.append(left.pop(0))
    return np.array(found, np.float32)


def _plain(text: str) -> str:
    return "".join(filter(str.isalnum, text.upper()))
