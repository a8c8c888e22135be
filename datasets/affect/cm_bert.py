"""CMU-MOSI as CM-BERT reads it (Yang et al., 2020): transcripts, and audio of every word.

- `train.tsv`, `dev.tsv`, `test.tsv`: columns `text` and `label`, a sentiment in [-3, 3],
- one pickle of audio: a tuple of (train, valid, test), each (samples, 50, 5), a row of zeros for
  BERT's first token, then one a word, zeros behind; its rows follow those of the tables.

Tokens are pieces of words, so that step t of the audio is only about where token t is.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from ..files.reading import check_file, clean_text, read_text, shown
from ..files.restricted_pickle import load
from ..files.tables import to_number
from ..loaders import make_loader
from .checks import check_parts, check_steps, choose, listed, read_features, read_labels
from .sequences import PARTS, Part, check_steps_wanted, cut_after, standardise

FILES = {"train": "train.tsv", "valid": "dev.tsv", "test": "test.tsv"}
MODALITIES = ("text", "audio")
MOST_BYTES = 1 << 22  # of a table; CM-BERT's have 0.1 million
SOURCE = "data/text and data/audio of github.com/thuiar/Cross-Modal-BERT"


class Tokeniser(Protocol):
    """A tokeniser from transcripts to BERT's tokens, such as `datasets.files.text.WordPieces`."""

    def encode(self, texts: Sequence[str], *, length: int) -> np.ndarray:
        """Returns (texts, at most length) int64, 0 is padding."""


def read_parts(text_dir: str | Path, audio_path: str | Path | None) -> dict[str, Part]:
    """Reads the parts "train", "valid" and "test": `texts`, labels, and the view "audio".

    Args:
        text_dir: folder of the tables.
        audio_path: the pickle; None reads the tables alone.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if one is damaged or would run code, rows do not agree, or a number is not
            finite or no sentiment.
    """
    parts = {}
    for name, file in FILES.items():
        texts, labels = _read_table(Path(text_dir) / file)
        parts[name] = Part({}, labels, texts=texts)
    if audio_path is None:
        return parts
    for (name, part), array in zip(parts.items(), _read_audio(Path(audio_path)), strict=True):
        where = f"audio of {name} in {audio_path}, for {Path(text_dir) / FILES[name]}"
        audio = read_features(array, where, rows=len(part.labels), silence=True)
        check_steps(audio, where)
        steps = np.arange(1, audio.shape[1] + 1)
        ends = (audio.any(axis=2) * steps).max(axis=1)
        parts[name] = part._replace(views={"audio": cut_after(audio, ends)})
    check_parts(parts, audio_path)
    return parts


def get_dataloader(
    text_dir: str | Path,
    audio_path: str | Path | None,
    tokeniser: Tokeniser,
    *,
    modalities: Sequence[str] = MODALITIES,
    length: int = 50,
    batch_size: int | None = 24,
    scale: bool = False,
    workers: int = 0,
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Returns the loaders of (train, valid, test).

    A batch is [tokens (batch, length) int64, audio (batch, length, features) float32, labels
    (batch, 1) float32]; token 0 is padding, and so are audio's zeros.

    Args:
        text_dir: folder of the tables.
        audio_path: the pickle; may be None if audio is not wanted.
        tokeniser: has `encode(texts, length=...)`; one that is fitted must have seen train only,
            `read_parts(...)["train"].texts`.
        modalities: different names out of "text" and "audio", in the order wanted.
        length: tokens and steps of a sample, what is longer is cut.
        batch_size: samples a batch; None puts a whole part into one.
        scale: whether audio is standardised by train's unpadded steps.
        workers: processes that read ahead.

    Raises:
        FileNotFoundError: see `read_parts`.
        ValueError: see `read_parts`; or audio is wanted and has no path.
    """
    chosen = choose(modalities, MODALITIES)
    if "audio" in chosen and audio_path is None:
        raise ValueError("audio needs audio_path; give it, or leave audio out of modalities")
    parts = read_parts(text_dir, audio_path if "audio" in chosen else None)
    parts = standardise(parts, audio_path or text_dir) if scale else parts
    loaders = []
    for name in PARTS:
        part, views = parts[name], {}
        if "text" in chosen:
            views["text"] = encode(tokeniser, part.texts or [], length)
        if "audio" in chosen:
            views["audio"] = part.views["audio"].resized(length).values
        arrays = (*(views[key] for key in chosen), part.labels)
        dataset = TensorDataset(*map(torch.from_numpy, arrays))
        options = {"batch_size": batch_size, "workers": workers}
        loaders.append(make_loader(dataset, shuffle=name == "train", **options))
    return tuple(loaders)


def encode(tokeniser: Tokeniser, texts: Sequence[str], length: int) -> np.ndarray:
    """Returns the texts' tokens, (texts, length) int64, 0 is padding.

    Raises:
        ValueError: if `length` is below 1, or the tokeniser returns anything else than it should.
    """
    check_steps_wanted(length, "length")
    tokens = np.asarray(tokeniser.encode(texts, length=length))
    fits = tokens.ndim == 2 and len(tokens) == len(texts) and tokens.shape[1] <= length
    if not fits or tokens.dtype.kind not in "iu" or (tokens < 0).any():
        raise ValueError(
            f"the tokeniser must return whole numbers >= 0 of shape ({len(texts)}, at most "
            f"{length}), got {tokens.dtype} of shape {tokens.shape}; mend its encode"
        )
    return np.pad(tokens.astype(np.int64), ((0, 0), (0, length - tokens.shape[1])))


def _read_table(path: Path) -> tuple[list[str], np.ndarray]:
    """Reads the transcripts and labels (samples, 1); quotes have no meaning.

    Warns of texts in quotes: a program that quotes them doubles those inside.
    """
    written = read_text(path, limit=MOST_BYTES, advice=f"it comes from {SOURCE}")
    # on any system, and at no other sign that may lie in a text
    lines = written.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    header, *rows = [line.split("\t") for line in lines if line] or [[]]
    if (
        sorted(name for name in header if name in ("text", "label")) != ["label", "text"]
        or not rows
    ):
        raise ValueError(
            f"{path} must begin with the columns text and label, once each, without quotes and "
            f"tab-separated, and have a line a sample; got {listed(header)} and {len(rows)} lines"
        )
    texts, labels = [], []
    for number, row in enumerate(rows, start=1):
        try:
            cells = dict(zip(header, row, strict=True))
            labels.append(to_number(cells["label"]))
        except ValueError as error:
            raise ValueError(
                f"sample {number} in {path} must have {len(header)} columns and a number as its "
                f"label, got {shown(chr(9).join(row))} ({error}); get the file again"
            ) from error
        texts.append(clean_text(cells["text"]))
    _warn_of_quotes(texts, path)
    return texts, read_labels(labels, f"label in {path}", bound=3)


def _warn_of_quotes(texts: Sequence[str], path: Path) -> None:
    quoted = sum(len(text) > 1 and text[0] == text[-1] == '"' for text in texts)
    if quoted:
        warnings.warn(
            f"{quoted} of the {len(texts)} texts in {path} stand in quotes, which are taken for a "
            "part of them; if a program put them there, write the file without quoting",
            UserWarning,
            stacklevel=4,
        )


def _read_audio(path: Path) -> Sequence:
    content = load(check_file(path, advice=f"it comes from {SOURCE}"), encoding="latin1")
    if not isinstance(content, tuple | list) or len(content) != len(PARTS):
        raise ValueError(
            f"{path} must be a tuple of three arrays, of train, valid and test, "
            f"got {shown(content)}; get it from {SOURCE}"
        )
    return content
