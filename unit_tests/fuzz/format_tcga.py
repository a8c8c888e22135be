"""A table of TCGA's: patients and columns by name. (Whole cohorts are protected by checksums.)"""

import csv
import re
from pathlib import Path

import numpy as np

from deq_fusion.datasets.tcga.tables import read_table

from .formats import Format
from .independent import demand, number, text

ROWS, COLUMNS = 12, ("age", "other, specify", "stage")


def _files() -> dict[str, bytes]:
    values = np.random.default_rng(4).normal(0, 1, (ROWS, len(COLUMNS))).round(3).tolist()
    lines = ['patient,age,"other, specify",stage']
    lines += [
        f"TCGA-A{r % 10}-00{r:02d},{','.join(map(repr, row))}" for r, row in enumerate(values)
    ]
    return {"clinical.csv": "\n".join([*lines, ""]).encode()}


def _read(folder: Path) -> dict:
    table = read_table(folder / "clinical.csv", advice="get it again")
    return {"patients": [*table.patients], "columns": [*table.columns], "values": table.values}


def _independent(folder: Path) -> dict:
    header, *rows = [row for row in csv.reader(text(folder / "clinical.csv").split("\n")) if row]
    columns, patients = header[1:], [row[0] for row in rows]
    for names in (columns, patients):
        demand(len(names) > 0 and len(set(names)) == len(names) and all(names))
    demand(all(re.fullmatch("TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}", name) for name in patients))
    demand(all(len(row) == len(header) for row in rows), "a ragged table")
    values = np.array([[number(cell) for cell in row[1:]] for row in rows])
    demand(np.isfinite(values).all())
    return {"patients": patients, "columns": columns, "values": values}


FORMATS = (Format("tcga csv", _files, _read, _independent),)
