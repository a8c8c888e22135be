"""CMU-MOSI's utterances as CM-BERT takes them: tokens of the transcript, audio of every token.

Reads the file of `utterance.py`, which must have one more array: `transcript`, (utterances,) text.

Its audio is a vector an utterance. Standardised and reduced to a few principal components, both
by train alone, that vector stands at each of the utterance's tokens but the first and the last,
[CLS] and [SEP]. This is no word-aligned audio: it says nothing of one word more than of another,
which is what CM-BERT is made to read. `cm_bert.py` reads audio that does.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch.utils.data import DataLoader, TensorDataset

from ..files.npz import read_npz
from ..files.numbers import as_float32
from ..loaders import make_loader
from .checks import choose, read_texts
from .cm_bert import MODALITIES, Tokeniser, encode
from .sequences import PARTS, Part, cut_after
from .utterance import FILE, read_utterances, split_arrays, split_rows


def read_parts(
    path: str | Path, *, audio_dim: int = 5, valid_share: float = 0.2, split_seed: int = 0
) -> dict[str, Part]:
    """Reads the parts "train", "valid" and "test": `texts`, labels, and the view "audio".

    Audio has one step, (utterances, 1, audio_dim): the principal components, by train, of the
    features that are standardised by train.

    Args:
        path: the file, or the folder of `mosi_utterance.npz`.
        audio_dim: number of components; CM-BERT's audio has 5 numbers.
        valid_share: validation's share of train's videos, see `utterance.split_arrays`.
        split_seed: chooses them.

    Raises:
        FileNotFoundError: see `utterance.read_utterances`.
        ValueError: see `utterance.read_utterances`; also if the transcripts are missing, or train
            has fewer audio features or utterances than components.
    """
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    cut = {"valid_share": valid_share, "split_seed": split_seed}
    arrays = split_arrays(path, modalities=["audio"], **cut)
    _, labels, videos, is_test = read_utterances(path, modalities=["audio"])
    texts = _read_texts(path, len(labels))
    most = min(arrays[0][0][0].shape)
    if not 1 <= audio_dim <= most:
        raise ValueError(
            f"audio_dim must be from 1 to {most}, the fewer of train's utterances and of its "
            f"audio features in {path}, got {audio_dim}; choose another"
        )
    train = arrays[0][0][0].astype(np.float64)
    if not np.ptp(train, axis=0).any():
        raise ValueError(
            f"the audio of train's utterances in {path} must differ for it to have components, but "
            "all are the same; get the file again"
        )
    pca = PCA(audio_dim, svd_solver="full").fit(train)
    parts = {}
    rows = split_rows(videos, is_test, **cut)
    for name, chosen, ((audio,), truth) in zip(PARTS, rows, arrays, strict=True):
        steps = as_float32(pca.transform(audio)[:, None], f"the components of {name} in {path}")
        view = cut_after(steps, np.ones(len(steps)))
        parts[name] = Part({"audio": view}, truth, texts=[texts[row] for row in chosen])
    return parts


def get_dataloader(
    path: str | Path,
    tokeniser: Tokeniser,
    *,
    modalities: Sequence[str] = MODALITIES,
    length: int = 50,
    audio_dim: int = 5,
    batch_size: int | None = 24,
    valid_share: float = 0.2,
    split_seed: int = 0,
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Returns the loaders of (train, valid, test), whose batches are those of `cm_bert.py`.

    A batch is [tokens (batch, length) int64, audio (batch, length, audio_dim) float32, labels
    (batch, 1) float32]; token 0 is padding, and audio is zero there, at [CLS] and at [SEP].

    Args:
        path: see `read_parts`.
        tokeniser: has `encode(texts, length=...)`; one that is fitted must have seen train only,
            `read_parts(...)["train"].texts`.
        modalities: different names out of "text" and "audio", in the order wanted.
        length: tokens of a sample, what is longer is cut.
        audio_dim: number of components of the audio.
        batch_size: samples a batch; None puts a whole part into one.
        valid_share: see `read_parts`.
        split_seed: see `read_parts`.

    Raises:
        FileNotFoundError: see `read_parts`.
        ValueError: see `read_parts`.
    """
    chosen = choose(modalities, MODALITIES)
    cut = {"valid_share": valid_share, "split_seed": split_seed}
    parts = read_parts(path, audio_dim=audio_dim, **cut)
    loaders = []
    for name in PARTS:
        part = parts[name]
        tokens = encode(tokeniser, part.texts or [], length)
        views = {"text": tokens, "audio": _spread(part.views["audio"].values, tokens)}
        arrays = (*(views[key] for key in chosen), part.labels)
        dataset = TensorDataset(*map(torch.from_numpy, arrays))
        loaders.append(make_loader(dataset, batch_size=batch_size, shuffle=name == "train"))
    return tuple(loaders)


def _spread(audio: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Returns audio (utterances, 1, features) at all tokens between the first and the last."""
    steps, ends = np.arange(tokens.shape[1]), (tokens != 0).sum(axis=1)
    inside = (steps > 0) & (steps < ends[:, None] - 1)
    return np.where(inside[..., None], audio, np.float32(0))


def _read_texts(path: Path, rows: int) -> list[str]:
    texts = read_npz(
        path, ["transcript"], advice="get it again, with transcript, a text for each utterance"
    )
    return read_texts(texts["transcript"], f"transcript in {path}", rows=rows)
