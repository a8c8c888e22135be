"""MOSI and its siblings as MMSA publishes them: `aligned_50.pkl` and `unaligned_50.pkl`.

A file (github.com/thuiar/MMSA) is a dict of "train", "valid" and "test", each a dict with a row a
sample:

- `text`: (samples, steps, 768), BERT's last layer; `text_bert`: (samples, 3, steps), its token
  ids, mask and segments,
- `audio`, `vision`: (samples, steps, features), zeros behind; `audio_lengths`, `vision_lengths`:
  how many steps count. The aligned file has a step for each token instead, and no lengths,
- `regression_labels`: (samples,), sentiment in [-3, 3],
- `id`: `video_$_clip`, and `raw_text`, the transcript; both may be absent here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from .checks import (
    check_parts,
    check_steps,
    choose,
    read_features,
    read_ids,
    read_labels,
    read_numbers,
    read_pickle,
    read_texts,
)
from .sequences import Layout, Part, Sequences, cut_after, make_part_loaders, standardise

MODALITIES = ("text", "audio", "vision")
SOURCE = "the drives linked in the README of github.com/thuiar/MMSA"


def read_parts(
    path: str | Path, *, modalities: Sequence[str] | None = None, bound: float | None = 3
) -> dict[str, Part]:
    """Reads the parts "train", "valid" and "test".

    -inf in audio, the logarithm of silence, becomes 0.

    Args:
        path: the file.
        modalities: different names out of "text", "audio", "vision", in the order wanted; None
            takes all.
        bound: labels must lie in [-bound, bound]: 3 for MOSI and MOSEI, 1 for CH-SIMS.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or would run code, an array is missing, has other rows
            or is not finite, an id occurs twice, or arguments make no sense.
    """
    chosen = choose(modalities, MODALITIES)
    parts = {}
    for name, arrays in read_pickle(path, [*chosen, "regression_labels"], source=SOURCE).items():
        where = f"of {name} in {path}"
        labels = read_labels(arrays["regression_labels"], f"regression_labels {where}", bound=bound)
        views = {key: _read_view(arrays, key, where, len(labels)) for key in chosen}
        ids, texts = (
            read(arrays[key], f"{key} {where}", rows=len(labels)) if key in arrays else None
            for key, read in (("id", read_ids), ("raw_text", read_texts))
        )
        parts[name] = Part(views, labels, ids, texts)
    check_parts(parts, path)
    return parts


def get_dataloader(
    path: str | Path,
    *,
    modalities: Sequence[str] | None = None,
    batch_size: int | None = 32,
    steps: int | None = None,
    scale: bool = False,
    bound: float | None = 3,
    workers: int = 0,
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Returns the loaders of (train, valid, test).

    A batch is [views, masks, labels (batch, 1)]: each view (batch, steps, features) float32, each
    mask (batch, steps) bool, True where there is a step of a present modality.

    Args:
        path: the file.
        modalities: see `read_parts`.
        batch_size: samples a batch; None puts a whole part into one.
        steps: cuts or pads every view to so many; None pads each to the longest of the batch.
        scale: whether features are standardised by train's unpadded steps.
        bound: of the labels, see `read_parts`.
        workers: processes that read ahead.

    Raises:
        FileNotFoundError: see `read_parts`.
        ValueError: see `read_parts`.
    """
    parts = read_parts(path, modalities=modalities, bound=bound)
    layout = Layout(steps, masks=True)
    return make_part_loaders(
        standardise(parts, path) if scale else parts, layout, batch_size=batch_size, workers=workers
    )


def _read_view(arrays: dict, key: str, where: str, rows: int) -> Sequences:
    values = read_features(arrays[key], f"{key} {where}", rows=rows, silence=key == "audio")
    if key != "text" and f"{key}_lengths" in arrays:
        lengths = _read_lengths(arrays[f"{key}_lengths"], key, where, values.shape)
    else:
        lengths = _count_tokens(arrays, key, where, values.shape)
    check_steps(values, f"{key} {where}")
    return cut_after(values, lengths)


def _read_lengths(value: Any, key: str, where: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the lengths; those beyond the steps are of sequences that were cut."""
    what, (rows, steps, features) = f"{key}_lengths {where}", shape
    array = read_numbers(value, what)
    if array.shape != (rows,) or array.dtype.kind not in "iu" or (array < 0).any():
        raise ValueError(
            f"{what} must be {rows} whole numbers >= 0, got {array.dtype} of shape {array.shape}; "
            "get the file again"
        )
    longest = int(array.max())
    if longest > steps and longest <= features:
        raise ValueError(
            f"{what} go up to {longest}, but {key} of shape {shape} has {steps} steps; its steps "
            "seem to come last, exchange the last two axes"
        )
    return np.minimum(array, steps)  # unsigned ones may be beyond int64


def _count_tokens(arrays: dict, key: str, where: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns how many tokens each sample has, from BERT's mask."""
    rows, steps, features = shape
    what = f"text_bert {where}"
    tokens = read_numbers(arrays["text_bert"], what) if "text_bert" in arrays else np.empty(0)
    if tokens.shape != (rows, 3, steps):
        last = tokens.shape == (rows, 3, features)
        way = (
            f"steps of {key} seem to come last, exchange its last two axes"
            if last
            else ("get the file again")
        )
        raise ValueError(
            f"{what} must have shape {(rows, 3, steps)}, ids, mask and segments of every step of "
            f"{key}, where the file gives no lengths; got {tokens.shape}; {way}"
        )
    mask = tokens[:, 1]
    lengths = (mask == 1).sum(axis=1)
    uneven = (mask != (np.arange(steps) < lengths[:, None])).any(axis=1)
    if uneven.any():
        raise ValueError(
            f"the mask text_bert[:, 1] {where} must be ones and then zeros, but row "
            f"{np.flatnonzero(uneven)[0]} is not; get the file again"
        )
    return lengths
