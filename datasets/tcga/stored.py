"""Cohorts as they were written: a folder each, whose files are checked before they are read."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..files.json_files import read_json
from ..files.numbers import as_float32
from ..files.reading import check_file, read_bytes
from .cohorts import CLINICAL, MODALITIES, OMICS, find_cohort
from .tables import LIMIT, Table, read_table

CHECKSUMS = "checksums.json"
FILES = tuple(f"{name}.csv" for name in (*OMICS.values(), CLINICAL, "labels"))


class Patients(NamedTuple):
    """All patients of a cohort.

    Attributes:
        patients: their barcodes.
        views: one (patients, features_m) float32 array a modality.
        columns: for each view, the names of its features.
        labels: (patients,) int64.
    """

    patients: tuple[str, ...]
    views: list[np.ndarray]
    columns: list[tuple[str, ...]]
    labels: np.ndarray


def check_cohort(data_dir: str | Path, cohort: str) -> Path:
    """Returns the folder of a cohort, all of whose files are as they were written.

    Raises:
        FileNotFoundError: if one is not there.
        ValueError: for an unknown cohort, and if a file is another one.
    """
    find_cohort(cohort)
    folder = Path(data_dir) / cohort
    notes = read_json(check_file(folder / CHECKSUMS, advice=_advice(data_dir)), limit=1 << 16)
    known = notes.get("sha256") if isinstance(notes, dict) else None
    if not isinstance(known, dict) or {*known} != {*FILES}:
        raise ValueError(
            f"{folder / CHECKSUMS} must have a SHA-256 for each of {list(FILES)}; move it away, "
            f"and {_advice(data_dir)}"
        )
    for name in FILES:
        content = read_bytes(folder / name, limit=LIMIT, advice=_advice(data_dir))
        if hashlib.sha256(content).hexdigest() != known[name]:
            raise ValueError(
                f"{folder / name} must be as it was written, but its SHA-256 is another than in "
                f"{CHECKSUMS}; move {folder} away, and {_advice(data_dir)}"
            )
    return folder


def read_patients(
    data_dir: str | Path,
    cohort: str,
    *,
    modalities: Sequence[str] | None = None,
    clinical: str = "known",
) -> Patients:
    """Reads the chosen views and the labels of all patients of a cohort.

    Args:
        data_dir: the folder that was prepared.
        cohort: "brca", "kipan" or "lgg".
        modalities: names out of "mRNA", "methylation", "miRNA" and "clinical", in the order
            wanted; None takes the three omics.
        clinical: which columns of the clinical table: "known" leaves out those that define the
            label or may follow it (`cohorts.Cohort.given_away`), "all" takes them too.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: for arguments that make no sense, and files that are damaged or do not fit.
    """
    given_away = find_cohort(cohort).given_away
    chosen = list(OMICS) if modalities is None else list(modalities)
    if not chosen or {*chosen} - {*MODALITIES} or len({*chosen}) < len(chosen):
        raise ValueError(
            f"modalities must be different names out of {list(MODALITIES)}, got {chosen}"
        )
    if clinical not in ("known", "all"):
        raise ValueError(f"clinical must be 'known' or 'all', got {clinical!r}")
    folder, advice = check_cohort(data_dir, cohort), _advice(data_dir)
    labels = read_table(folder / "labels.csv", advice=advice)
    classes = check_labels(labels, cohort, str(folder / "labels.csv"))
    views, columns = [], []
    for name in chosen:
        path = folder / f"{OMICS.get(name, name)}.csv"
        table = read_table(path, advice=advice).ordered(labels.patients, str(path))
        left_out = given_away if name == CLINICAL and clinical == "known" else ()
        kept = [place for place, column in enumerate(table.columns) if column not in left_out]
        columns.append(tuple(table.columns[place] for place in kept))
        views.append(as_float32(table.values[:, kept], str(path), rows=labels.patients))
    return Patients(labels.patients, views, columns, classes)


def check_labels(table: Table, cohort: str, where: str) -> np.ndarray:
    """Returns the labels of a table, (patients,) int64.

    Raises:
        ValueError: if they are not one column of the cohort's classes.
    """
    classes = find_cohort(cohort).classes
    if table.values.shape[1] != 1 or not np.isin(table.values, np.arange(len(classes))).all():
        raise ValueError(
            f"{where} must hold one class from 0 to {len(classes) - 1} a patient; get it again"
        )
    return table.values[:, 0].astype(np.int64)


def _advice(data_dir: str | Path) -> str:
    return f"get it with: deq-fusion prepare tcga --data-dir {data_dir}"
