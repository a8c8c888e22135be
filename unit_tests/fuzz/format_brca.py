"""MOGONET's folder of csv files."""

from pathlib import Path

import numpy as np

from deq_fusion.datasets.brca.get_data import get_dataloader, read_patients

from .formats import Format, drained
from .independent import demand, float32, number, text

WIDTHS, PARTS = (4, 3), {"tr": 15, "te": 6}


def _files() -> dict[str, bytes]:
    rng, files = np.random.default_rng(1), {}
    for part, rows in PARTS.items():
        for view, width in enumerate(WIDTHS, 1):
            table = rng.normal(0, 1, (rows, width)).round(3)
            files[f"{view}_{part}.csv"] = _csv(table.tolist())
        files[f"labels_{part}.csv"] = _csv([[row % 3] for row in range(rows)])
    return files


def _csv(rows: list[list]) -> bytes:
    return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


def _read(folder: Path) -> dict:
    patients = read_patients(folder)
    found = {"views": patients.views, "labels": patients.labels, "train": patients.train_count}
    return found | drained(get_dataloader(folder))


def _independent(folder: Path) -> dict:
    labels = {part: _table(folder / f"labels_{part}.csv") for part in PARTS}
    truth = np.concatenate(list(labels.values()))
    demand(truth.shape[1] == 1 and (truth == truth.astype(int)).all() and truth.min() >= 0)
    views = []
    for view, _ in enumerate(WIDTHS, 1):
        tables = [_table(folder / f"{view}_{part}.csv") for part in PARTS]
        for table, expected in zip(tables, labels.values(), strict=True):
            demand(len(table) == len(expected))
        views.append(np.concatenate(tables))
    count = len(labels["tr"])
    return {"views": views, "labels": truth[:, 0].astype(int), "train": count, "rows": len(truth)}


def _table(path: Path) -> np.ndarray:
    lines = [line for line in text(path).split("\n") if line.strip()]
    table = float32([[number(cell) for cell in line.split(",")] for line in lines], dims=2)
    counting = np.arange(len(table))
    for first in (0, 1):  # what counts the rows is no feature
        demand(table.shape[1] == 1 or (table[:, 0] != counting + first).any(), "an index")
    return table


FORMATS = (Format("brca csv", _files, _read, _independent),)
