"""BRCA: breast cancer subtypes (PAM50) from mRNA, DNA methylation and miRNA.

Reads MOGONET's file layout (Wang et al., 2021), and so ROSMAP too; `prepare.py` beside this file
downloads both. A folder holds, comma-separated and without a header, a row a patient:

- `1_tr.csv`, `1_te.csv`, `2_tr.csv`, ...: the views' train and test patients,
- `labels_tr.csv`, `labels_te.csv`: one class a line, 0, 1, ... (also written 0.0 or 0.000e+00).

There may be any number of views and of classes. No validation part is given: one is cut from
train. A header or an index is refused, also one of numbers (`layout.py`). The README beside this
file says more of the data.
"""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import DataLoader

from ..files.tables import read_numbers
from ..loaders import Part, cut_parts, make_loaders, naming, stratified_split
from . import layout


class Patients(NamedTuple):
    """All patients of a folder: first its train rows, then its test rows.

    Attributes:
        views: one (patients, features_m) float32 array a modality, as read.
        labels: (patients,) int64.
        train_count: how many of the rows belong to the official train part.
    """

    views: list[np.ndarray]
    labels: np.ndarray
    train_count: int


def read_table(path: Path) -> np.ndarray:
    """Reads comma-separated numbers, (rows, columns) float32; empty lines are skipped.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: see `files.tables.read_numbers`; also if the first line numbers the columns.
    """
    table = read_numbers(path, advice=layout.advice(Path(path).parent))
    layout.check_header(table, path)
    return table


def read_patients(data_dir: str | Path, *, modalities: Sequence[int] | None = None) -> Patients:
    """Reads the chosen views and the labels of all patients of a folder.

    Warns if patients of test have the rows of a train patient in all views of the folder.

    Args:
        data_dir: folder in MOGONET's layout.
        modalities: numbers of the views, as in the file names, in the order wanted; None takes
            all, in ascending order.

    Raises:
        FileNotFoundError: if the folder or one of its files is missing.
        ValueError: if a file is damaged (see `read_table`), has an index, or files or arguments
            do not fit.
    """
    folder = Path(data_dir)
    there = layout.find_views(folder)
    chosen = _choose_modalities(folder, there, modalities)
    labels = {part: _read_labels(folder / f"labels_{part}.csv") for part in ("tr", "te")}
    views = []
    for modality in chosen:
        tables = []
        for part, classes in labels.items():
            path = folder / f"{modality}_{part}.csv"
            tables.append(read_table(path))
            if len(tables[-1]) != len(classes):
                raise ValueError(
                    f"{path} must have a row for each of the {len(classes)} lines of "
                    f"labels_{part}.csv, got {len(tables[-1])}; if one of the two has a header, "
                    "take it out, else get both again"
                )
        train, test = tables
        if train.shape[1] != test.shape[1]:
            raise ValueError(
                f"train and test of modality {modality} in {folder} must have the same features, "
                f"got {train.shape[1]} and {test.shape[1]} columns; get both again"
            )
        layout.check_index(train, test, f"modality {modality} in {folder}")
        views.append(np.concatenate(tables))
    if sorted(chosen) == there:
        layout.warn_of_copies(views, len(labels["tr"]), folder)
    return Patients(views, np.concatenate(list(labels.values())), len(labels["tr"]))


def split_rows(
    labels: np.ndarray,
    train_count: int,
    *,
    valid_share: float = 0.2,
    split_seed: int = 0,
    resplit: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the row numbers of (train, valid, test), each sorted; arguments: `split_arrays`.

    Raises:
        ValueError: if `valid_share` is not in (0, 1) or leaves fewer patients than classes, or
            a class is missing from train.
    """
    if not 0 < valid_share < 1:
        raise ValueError(f"valid_share must lie between 0 and 1, got {valid_share}; try 0.2")
    if resplit:
        rest, test = stratified_split(labels, held_out=len(labels) - train_count, seed=split_seed)
    else:
        rest, test = np.split(np.arange(len(labels)), [train_count])
    kept, held = stratified_split(
        labels[rest], held_out=round(valid_share * train_count), seed=split_seed
    )
    train = rest[kept]
    present = set(labels[train].tolist())
    if len(present) <= labels.max():
        missing = next(label for label in count() if label not in present)
        way = "number the classes without gaps, or split otherwise" if missing else "count from 0"
        raise ValueError(
            f"every class from 0 to {labels.max()} must have a patient in train, class {missing} "
            f"has none; {way}"
        )
    return train, rest[held], test


def split_arrays(
    data_dir: str | Path,
    *,
    modalities: Sequence[int] | None = None,
    valid_share: float = 0.2,
    split_seed: int = 0,
    resplit: bool = False,
    scale: bool = True,
) -> tuple[Part, Part, Part]:
    """Returns (train, valid, test) as numpy arrays, each (views, labels).

    A part's views are (patients, features_m) float32, its labels (patients,) int64. Splits are
    stratified, but a class can be too small for its share: a single patient stays in train, and
    validation or test may then lack the class. That is right for them, since a model can still
    be measured on the others; a class that train lacks cannot be learnt and is an error.

    Args:
        data_dir: folder in MOGONET's layout.
        modalities: numbers of the views, in the order wanted; None takes all.
        valid_share: validation's share of the patients that do not belong to test, in (0, 1).
        split_seed: chooses the split; the same seed gives the same split.
        resplit: False keeps the files' test patients and cuts validation from their train
            patients. True pools all patients and splits them afresh, into parts as large as
            those of the official split.
        scale: whether features are shifted and stretched so that train spans [0, 1]. The other
            parts follow train's scale and may leave [0, 1]. What is constant in train becomes 0.

    Raises:
        FileNotFoundError: see `read_patients`.
        ValueError: see `read_patients`, `split_rows` and `loaders.cut_parts`.
    """
    views, labels, train_count = read_patients(data_dir, modalities=modalities)
    with naming(data_dir):
        parts = split_rows(
            labels, train_count, valid_share=valid_share, split_seed=split_seed, resplit=resplit
        )
        if scale:
            views = [_min_max(view, parts[0]) for view in views]
        return cut_parts(views, labels, parts, source=data_dir)


def get_dataloader(
    data_dir: str | Path,
    *,
    modalities: Sequence[int] | None = None,
    batch_size: int | None = None,
    valid_share: float = 0.2,
    split_seed: int = 0,
    resplit: bool = False,
    scale: bool = True,
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Returns the loaders of (train, valid, test); a batch is the views and then the labels.

    Args:
        data_dir: see `split_arrays`, as all but the batch size.
        modalities: numbers of the views, in the order wanted; None takes all.
        batch_size: patients a batch; None puts a whole part into one, as MM-Dynamics trains.
        valid_share: validation's share of the patients that do not belong to test.
        split_seed: chooses the split.
        resplit: whether all patients are split afresh, test's too.
        scale: whether features are scaled so that train spans [0, 1].
    """
    parts = split_arrays(
        data_dir,
        modalities=modalities,
        valid_share=valid_share,
        split_seed=split_seed,
        resplit=resplit,
        scale=scale,
    )
    return make_loaders(parts, batch_size=batch_size)


def _choose_modalities(folder: Path, there: list[int], wanted: Sequence[int] | None) -> list[int]:
    chosen = there if wanted is None else list(wanted)
    if not chosen or set(chosen) - set(there) or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"modalities must be different numbers out of {there}, the views in {folder}, "
            f"got {chosen}; or leave it out to take all"
        )
    return [int(number) for number in chosen]


def _read_labels(path: Path) -> np.ndarray:
    table = read_numbers(path, dtype=np.float64, advice=layout.advice(path.parent))
    layout.check_labels(table, path)
    return table[:, 0].astype(np.int64)


def _min_max(view: np.ndarray, train: np.ndarray) -> np.ndarray:
    low, high = view[train].min(axis=0), view[train].max(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):  # see `cut_parts`
        return (view - low) / np.where(high > low, high - low, np.float32(np.inf))
