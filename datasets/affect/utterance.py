"""CMU-MOSI at utterance level: sentiment from text, audio and vision, a vector for each.

93 videos of people reviewing films, cut into 2,199 utterances, each with a sentiment in [-3, 3]
(Zadeh et al., 2016). Reads one file of plain arrays, a row an utterance, which
`utterance_sources.py` makes:

- `text`, `audio`, `vision`: (utterances, features_m),
- `labels`: (utterances,), `id`: unique, `video_id`, `split`: "train" or "test", by video.

No validation part is given: one is cut from train, by video. Nearly every video has a speaker of
its own, so parts that shared videos would reward knowing the speaker.

The text and vision vectors come from networks that were trained on train's sentiment. A ridge
regression on vision alone correlates at about 0.7 with sentiment in held-out videos of train, and
at less than 0.1 in test: validation scores flatter, and training teaches more trust in vision
than test repays.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import DataLoader

from ..files.npz import read_npz
from ..files.numbers import as_float32
from ..files.reading import shown
from ..loaders import Part, cut_parts, grouped_split, make_loaders, naming
from .checks import choose, listed, read_labels, to_list

FILE = "mosi_utterance.npz"
MODALITIES = ("text", "audio", "vision")
NAMES = ("id", "video_id", "split")
SOURCE = (
    "features from github.com/declare-lab/multimodal-deep-learning, joined by transcript with "
    "the sentiment scores of github.com/thuiar/Cross-Modal-BERT, as deq-fusion prepare mosi --help "
    "says"
)


class Utterances(NamedTuple):
    """All utterances of a file, in its order.

    Attributes:
        views: one (utterances, features_m) float32 array a modality, as read.
        labels: (utterances, 1) float32.
        videos: (utterances,) names.
        is_test: (utterances,) bool, the file's own split.
    """

    views: list[np.ndarray]
    labels: np.ndarray
    videos: np.ndarray
    is_test: np.ndarray


def read_utterances(path: str | Path, *, modalities: Sequence[str] = MODALITIES) -> Utterances:
    """Reads the chosen modalities, in the order wanted, of all utterances.

    Args:
        path: the file, or the folder of `mosi_utterance.npz`.
        modalities: different names out of "text", "audio" and "vision".

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the modalities make no sense, or names the array that is missing, has
            another shape, is not finite, repeats an id or shares a video between the parts, and
            the row whose label is not in [-3, 3].
    """
    modalities = choose(modalities, MODALITIES)
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    arrays = _read_arrays(path, (*modalities, "labels", "id", "video_id", "split"))
    ids, repeats = np.unique(arrays["id"], return_counts=True)
    if (repeats > 1).any():
        raise ValueError(
            f"every id in {path} must occur once, {shown(ids[repeats > 1].tolist()[0])} occurs "
            f"{repeats.max()} times; leave the copies out"
        )
    videos, split = arrays["video_id"], arrays["split"]
    if (there := set(split.tolist())) != {"train", "test"}:
        raise ValueError(
            f"split in {path} must be 'train' or 'test', with rows of both, got {listed(there)}"
        )
    is_test = split == "test"
    if len(shared := np.intersect1d(videos[is_test], videos[~is_test])):
        raise ValueError(
            f"no video in {path} may be in train and in test, but {shown(shared.tolist()[0])} is; "
            "split by video"
        )
    views = [_read_numbers(path, name, arrays[name], 2) for name in modalities]
    labels = _read_numbers(path, "labels", arrays["labels"], 1)
    read_labels(arrays["labels"], f"labels in {path}", bound=3)
    return Utterances(views, labels[:, None], videos, is_test)


def split_rows(
    videos: np.ndarray, is_test: np.ndarray, *, valid_share: float = 0.2, split_seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the row numbers of (train, valid, test), each sorted; arguments: `split_arrays`.

    Raises:
        ValueError: if `valid_share` is not in (0, 1), or leaves train or validation no video.
    """
    rest = np.flatnonzero(~is_test)
    kept, held = grouped_split(videos[rest], share=valid_share, seed=split_seed)
    return rest[kept], rest[held], np.flatnonzero(is_test)


def split_arrays(
    path: str | Path,
    *,
    modalities: Sequence[str] = MODALITIES,
    valid_share: float = 0.2,
    split_seed: int = 0,
) -> tuple[Part, Part, Part]:
    """Returns (train, valid, test) as numpy arrays, each (views, labels); no two share a video.

    A part's views are (utterances, features_m) float32, standardised: train has mean 0 and
    standard deviation 1 in every feature, and the other parts follow train's. What is constant
    in train becomes 0. Labels are (utterances, 1) float32.

    Args:
        path: the file, or the folder of `mosi_utterance.npz`.
        modalities: different names out of "text", "audio" and "vision", in the order wanted.
        valid_share: validation's share of the videos that do not belong to test, in (0, 1).
        split_seed: chooses the videos; the same seed gives the same split.

    Raises:
        FileNotFoundError: see `read_utterances`.
        ValueError: see `read_utterances`, `split_rows` and `loaders.cut_parts`.
    """
    views, labels, videos, is_test = read_utterances(path, modalities=modalities)
    with naming(path):
        parts = split_rows(videos, is_test, valid_share=valid_share, split_seed=split_seed)
        views = [_standardised(view, parts[0]) for view in views]
        return cut_parts(views, labels, parts, source=path)


def get_dataloader(
    path: str | Path,
    *,
    modalities: Sequence[str] = MODALITIES,
    batch_size: int | None = 64,
    valid_share: float = 0.2,
    split_seed: int = 0,
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Returns the loaders of (train, valid, test); a batch is the views and then the labels.

    Args:
        path: the file, or the folder of `mosi_utterance.npz`.
        modalities: see `split_arrays`.
        batch_size: utterances a batch; None puts a whole part into one.
        valid_share: see `split_arrays`.
        split_seed: see `split_arrays`.
    """
    parts = split_arrays(
        path, modalities=modalities, valid_share=valid_share, split_seed=split_seed
    )
    return make_loaders(parts, batch_size=batch_size)


def _read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the named arrays, each with a row for every id."""
    arrays = read_npz(path, names, advice=f"get it again: it has {SOURCE}")
    rows = arrays["id"].shape[:1]
    for name, array in arrays.items():
        named = name in NAMES
        if array.shape[:1] != rows or (named and array.ndim != 1):
            raise ValueError(
                f"{name} in {path} must have a row, or one name, for each of the "
                f"{arrays['id'].size} ids, got shape {array.shape}"
            )
        if named and array.dtype.kind not in "USiu":
            raise ValueError(f"{name} in {path} must be text or whole numbers, got {array.dtype}")
        if named:
            to_list(array, f"{name} in {path}")
    return arrays


def _read_numbers(path: Path, name: str, array: np.ndarray, dims: int) -> np.ndarray:
    if array.ndim != dims or array.dtype.kind not in "fiu" or 0 in array.shape:
        shape = "(utterances, features)" if dims == 2 else "(utterances,)"
        raise ValueError(
            f"{name} in {path} must be numbers of shape {shape}, "
            f"got {array.dtype} of shape {array.shape}"
        )
    return as_float32(array, f"{name} in {path}")


def _standardised(view: np.ndarray, train: np.ndarray) -> np.ndarray:
    known = view[train].astype(np.float64)  # audio's sums are large
    varies = known.max(axis=0) > known.min(axis=0)  # a rounded deviation need not be 0
    scale = np.where(varies, known.std(axis=0), np.inf)
    with np.errstate(over="ignore"):  # see `cut_parts`
        return ((view - known.mean(axis=0)) / scale).astype(np.float32)
