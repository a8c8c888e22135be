"""MOSI, MOSEI, UR-FUNNY and MUStARD as MultiBench pickles them (Liang et al., 2021).

A file, `mosi_raw.pkl` or `mosi_data.pkl` for CMU-MOSI, is a dict of "train", "valid" and "test",
each a dict of arrays with a row a sample:

- `vision`, `audio`, `text`: (samples, steps, features), aligned to words, zeros in front,
- `labels`: (samples, 1, 1), a sentiment in [-3, 3], or of UR-FUNNY and MUStARD -1, 0 or 1,
- `id`: the names of the samples, may be absent.

Options, defaults and batches are MultiBench's. Its results differ in four points: the arrays
of the file are left as they are, no sample is dropped unless `drop_empty` says so, a feature
that is constant in a sample becomes exactly 0 under `z_norm`, and the noise of `robust_test` runs
along the steps of each sample (there along the samples). A sample without text starts where
another of the chosen modalities does.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from ..noise import Noise
from .checks import (
    check_parts,
    check_steps,
    choose,
    read_features,
    read_ids,
    read_labels,
    read_pickle,
)
from .noisy import noisy_loaders
from .sequences import (
    Layout,
    Part,
    Sequences,
    cut_after,
    from_starts,
    make_part_loaders,
    standardise,
)
from .words import may_slip, read_words

MODALITIES = ("vision", "audio", "text")
DATA_TYPES = ("mosi", "mosei", "humor", "sarcasm")
TASKS = (None, "regression", "classification")
TEXT_NOISES = ("words", "features")
BOUNDS = {"mosi": 3, "mosei": 3, "humor": 1, "sarcasm": 1}  # of the labels
SOURCE = "the drive linked in the README of github.com/pliang279/MultiBench"


def read_parts(
    path: str | Path,
    *,
    modalities: Sequence[str] | None = None,
    data_type: str = "mosi",
    task: str | None = None,
    drop_empty: bool = False,
) -> dict[str, Part]:
    """Reads the parts "train", "valid" and "test".

    -inf in audio, the logarithm of silence, becomes 0.

    Args:
        path: the file.
        modalities: different names out of "vision", "audio", "text", in the order wanted; None
            takes all. Text must be in the file: it says where a sample begins.
        data_type: "mosi", "mosei", "humor" or "sarcasm".
        task: "classification" makes labels int64: of humor as they are, else whether they are
            positive. None and "regression" make them float32: of mosi and mosei as they are,
            else 1 where they are at least 1, and -1.
        drop_empty: whether the samples without text are left out, as MultiBench does, also of
            test. If not, their text is masked.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or would run code, an array is missing, has other rows
            or is not finite, an id occurs twice, or arguments make no sense.
    """
    if data_type not in DATA_TYPES:
        raise ValueError(f"unknown data_type {data_type!r}; choose from {list(DATA_TYPES)}")
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; choose from {list(TASKS)}")
    chosen = choose(modalities, MODALITIES)
    keys = [*dict.fromkeys([*chosen, "text"]), "labels"]
    parts = {}
    for name, arrays in read_pickle(path, keys, source=SOURCE).items():
        where = f"of {name} in {path}"
        part, has_text = _read_part(arrays, where, chosen, data_type)
        if data_type in ("humor", "sarcasm"):
            _check_classes(part.labels, where, data_type, task)
        if drop_empty:
            part = _rows(part, has_text, where)
        parts[name] = part._replace(labels=_targets(part.labels, data_type, task))
    check_parts(parts, path)
    return parts


def get_dataloader(
    filepath: str | Path,
    batch_size: int | None = 32,
    max_seq_len: int = 50,
    max_pad: bool = False,
    train_shuffle: bool = True,
    num_workers: int = 2,
    flatten_time_series: bool = False,
    task: str | None = None,
    robust_test: bool = False,
    data_type: str = "mosi",
    raw_path: str | Path | None = None,
    z_norm: bool = False,
    *,
    masks: bool = False,
    modalities: Sequence[str] | None = None,
    drop_empty: bool = False,
    scale: bool = False,
    text_noise: str = "words",
    noise: Noise | None = None,
    seed: int = 0,
) -> tuple[DataLoader, DataLoader, DataLoader | Mapping[str, list[DataLoader]]]:
    """Returns the loaders of (train, valid, test).

    A batch is [views, lengths, row numbers (batch, 1), labels (batch, 1)], where each view is
    (batch, steps, features), padded to the longest, and each lengths (batch,). With `max_pad` it
    is [*views, labels], the views (batch, max_seq_len, features). With `masks` it is [views,
    masks, labels], each mask (batch, steps), True where there is a step of a present modality.

    Args:
        filepath: the file.
        batch_size: samples a batch; None puts a whole part into one.
        max_seq_len: the steps that `max_pad` keeps, the first ones.
        max_pad: whether all batches have `max_seq_len` steps.
        train_shuffle: whether train has a new order in each pass.
        num_workers: processes that read ahead.
        flatten_time_series: whether a view is (batch, steps x features), and its lengths too.
        task: see `read_parts`.
        robust_test: whether test is a dict of noisy test parts instead: "text", "audio", "image"
            (of vision) and "multimodal" -> a loader for each level 0, 0.1, ... 0.9, of the last
            a third of it. These are the names, and as many levels, as `eval_scripts.robustness`
            has of these sets; MultiBench's own, `robust_vision` and so on, are none that it knows.
            Noise is drawn as batches are read, after `scale` and before `z_norm`.
        data_type: see `read_parts`.
        raw_path: of the words, for noise in them, see `words.read_words`.
        z_norm: whether each sample has mean 0 and deviation 1 (unbiased) in every feature.
        masks: whether batches have masks, of what is neither padding nor absent.
        modalities: see `read_parts`.
        drop_empty: see `read_parts`.
        scale: whether features are standardised by train's unpadded steps.
        text_noise: of `robust_test`, the noise in text alone: "words", for which raw_path must
            name the raw words: with the level as its probability, a word of five letters or more
            is misspelt, and so has no vector (zeros, as MultiBench's GloVe has for what it does
            not know; that a slip may make another word of the vocabulary is left out). Or
            "features", the noise that the others have.
        noise: of `robust_test`, (steps (steps, features) of a sample, level, generator) -> the
            same noised; None: Gaussian noise of that deviation, and steps lost with the level as
            their probability (`noise.disturb_steps`).
        seed: of the noise.

    Raises:
        FileNotFoundError: see `read_parts`.
        ValueError: see `read_parts` and `words.read_words`; or if options do not go together.
    """
    if flatten_time_series and max_pad:
        raise ValueError("flatten_time_series needs max_pad=False: flat views have no steps to pad")
    if z_norm and scale:
        raise ValueError("z_norm and scale exclude each other: z_norm undoes scale; choose one")
    options = {"data_type": data_type, "task": task, "drop_empty": drop_empty}
    parts = read_parts(filepath, modalities=modalities, **options)
    if scale:
        parts = standardise(parts, filepath)
    finish = partial(_finished, z_norm=z_norm, flat=flatten_time_series)
    layout = Layout(max_seq_len if max_pad else None, masks=masks, lengths=not max_pad)
    ready = {name: finish(part) for name, part in parts.items()}
    train, valid, test = make_part_loaders(
        ready, layout, batch_size=batch_size, shuffle=train_shuffle, workers=num_workers
    )
    if not robust_test:
        return train, valid, test
    slips = _slips(parts["test"], text_noise, raw_path)
    how: dict[str, Any] = {"finish": finish, "slips": slips, "noise": noise, "seed": seed}
    return train, valid, noisy_loaders(parts["test"], layout, batch_size=batch_size, **how)


def _finished(part: Part, *, z_norm: bool, flat: bool) -> Part:
    """Returns a part as it is served."""
    views = part.views
    if z_norm:
        views = {key: _normalised(view) for key, view in views.items()}
    if flat:
        views = {key: _flat(view) for key, view in views.items()}
    return part._replace(views=views)


def _slips(test: Part, text_noise: str, raw_path: str | Path | None) -> np.ndarray | None:
    """Returns where words of test may be misspelt; None if its text has noise as the others do.

    Raises:
        ValueError: for another `text_noise`, or words that are not there.
    """
    if text_noise not in TEXT_NOISES:
        raise ValueError(f"text_noise must be one of {list(TEXT_NOISES)}, got {text_noise!r}")
    if text_noise == "features" or "text" not in test.views:
        return None
    if raw_path is None or test.ids is None:
        lack = "raw_path names none" if raw_path is None else "the file has no id to find them by"
        raise ValueError(
            f"robust_test=True spoils the words of text, and {lack}; name CMU's file of words, or "
            'a pickle id -> words, as raw_path, or use text_noise="features"'
        )
    text = test.views["text"]
    return may_slip(text, read_words(raw_path, test.ids), text.values.shape[1])


def _read_part(
    arrays: dict, where: str, modalities: list[str], data_type: str
) -> tuple[Part, np.ndarray]:
    """Returns the part, and for each sample whether it has text."""
    labels = read_labels(arrays["labels"], f"labels {where}", bound=BOUNDS[data_type])
    views = {
        key: read_features(arrays[key], f"{key} {where}", rows=len(labels), silence=key == "audio")
        for key in dict.fromkeys([*modalities, "text"])
    }
    _check_steps_agree(views, where)
    for key, view in views.items():
        check_steps(view, f"{key} {where}")
    starts = _starts(views)
    lengths = views["text"].shape[1] - starts
    sequences = {key: cut_after(from_starts(views[key], starts), lengths) for key in modalities}
    ids = arrays.get("id")
    if ids is not None:
        ids = read_ids(ids, f"id {where}", rows=len(labels))
    return Part(sequences, labels, ids), views["text"].any(axis=(1, 2))


def _check_steps_agree(views: dict[str, np.ndarray], where: str) -> None:
    steps = {key: view.shape[1] for key, view in views.items()}
    if len(set(steps.values())) == 1:
        return
    rule = f"the modalities {where} must have equally many steps, got {steps}"
    if len({view.shape[2] for view in views.values()}) == 1:
        raise ValueError(f"{rule}: steps seem to come last; exchange the last two axes of each")
    raise ValueError(
        f"{rule}: files that are not aligned to words (noalign) are not read here; take "
        "MultiBench's mosi_raw.pkl or mosi_data.pkl, or MMSA's unaligned_50.pkl with "
        "datasets.affect.mmsa"
    )


def _check_classes(labels: np.ndarray, where: str, data_type: str, task: str | None) -> None:
    """Raises a ValueError, unless labels are classes: of humor, where they are kept, 0 and 1."""
    kept = data_type == "humor" and task == "classification"
    allowed = [0, 1] if kept else [-1, 0, 1]
    if len(bad := np.flatnonzero(~np.isin(labels, allowed))):
        raise ValueError(
            f"labels {where} must be out of {allowed} for data_type {data_type!r}, but row "
            f"{bad[0]} is {labels[bad[0], 0]}; is this another set?"
        )


def _starts(views: dict[str, np.ndarray]) -> np.ndarray:
    """Returns where each sample begins: with text, else with anything, else in the last step."""
    spoken = views["text"].any(axis=2)
    anything = np.any([view.any(axis=2) for view in views.values()], axis=0)
    steps = np.where(spoken.any(axis=1, keepdims=True), spoken, anything)
    return np.where(steps.any(axis=1), steps.argmax(axis=1), steps.shape[1] - 1)


def _rows(part: Part, kept: np.ndarray, where: str) -> Part:
    if not kept.any():
        raise ValueError(f"no sample {where} has text; use drop_empty=False")
    views = {key: Sequences(*(a[kept] for a in view)) for key, view in part.views.items()}
    ids = part.ids and [sample for sample, keep in zip(part.ids, kept, strict=True) if keep]
    return part._replace(views=views, labels=part.labels[kept], ids=ids)


def _targets(labels: np.ndarray, data_type: str, task: str | None) -> np.ndarray:
    if task == "classification":
        return (labels if data_type == "humor" else labels > 0).astype(np.int64)
    if data_type in ("humor", "sarcasm"):
        return np.where(labels < 1, -1, 1).astype(np.float32)
    return labels


def _normalised(view: Sequences) -> Sequences:
    values = np.zeros_like(view.values)
    for row, length in enumerate(view.lengths):
        steps = view.values[row, :length].astype(np.float64)
        varies = steps.max(axis=0) > steps.min(axis=0)  # a single step does not
        if varies.any():
            spread = np.where(varies, steps.std(axis=0, ddof=1), np.inf)
            values[row, :length] = (steps - steps.mean(axis=0)) / spread
    return view._replace(values=values)


def _flat(view: Sequences) -> Sequences:
    rows, steps, features = view.values.shape
    return view._replace(
        values=view.values.reshape(rows, steps * features), lengths=view.lengths * features
    )
