"""Tables with a patient a line: a header, the patient's barcode first, then plain numbers."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..files.reading import read_text, shown
from ..files.tables import PLAIN, to_number

LIMIT = 1 << 25  # bytes of a table: the largest has 6 MB
BARCODE = re.compile("TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}")  # of a patient: project, site, participant


class Table(NamedTuple):
    """A table of numbers, a row a patient.

    Attributes:
        patients: barcodes, each once.
        columns: names, each once.
        values: (patients, columns) float64, finite.
    """

    patients: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray

    def ordered(self, patients: Sequence[str], where: str) -> "Table":
        """Returns the table with its rows in the order of these patients.

        Raises:
            ValueError: names one who is in one of the two only.
        """
        if lone := {*patients} ^ {*self.patients}:
            raise ValueError(
                f"{where} must have the patients of the labels, but {min(lone)} is in one of the "
                "two only; get both again"
            )
        place = {patient: row for row, patient in enumerate(self.patients)}
        return Table(tuple(patients), self.columns, self.values[[place[p] for p in patients]])


def read_table(path: str | Path, *, advice: str) -> Table:
    """Reads a table.

    Args:
        path: of the file.
        advice: how to get it again.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: see `parse`.
    """
    return parse(read_text(path, limit=LIMIT, advice=advice), str(path), advice)


def parse(text: str, where: str, advice: str = "get it again") -> Table:
    """Returns the table that comma-separated text writes; empty lines are skipped.

    Args:
        text: of the table.
        where: its name in messages.
        advice: what to do if it is no good.

    Raises:
        ValueError: names the line and the cell that is not as it must be.
    """
    if len(text) > LIMIT:
        raise ValueError(f"{where} must have at most {LIMIT:,} characters; {advice}")
    try:
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = [(lines.line_num, row) for row in lines if row]
    except csv.Error as error:
        raise ValueError(f"{where} must be comma-separated lines, but {error}; {advice}") from error
    if len(rows) < 2 or len(rows[0][1]) < 2:
        raise ValueError(f"{where} must have a header, a column of patients and more; {advice}")
    columns = tuple(rows[0][1][1:])
    for number, row in rows:
        if len(row) != len(columns) + 1:
            raise ValueError(
                f"{where}, line {number}: every line must have {len(columns) + 1} cells, got "
                f"{len(row)}; {advice}"
            )
    patients = tuple(row[0] for _, row in rows[1:])
    _check_names(patients, columns, where, advice)
    cells = [(number, row[1:]) for number, row in rows[1:]]
    return Table(patients, columns, _numbers(cells, columns, where, advice))


def _check_names(
    patients: tuple[str, ...], columns: tuple[str, ...], where: str, advice: str
) -> None:
    for patient in patients:
        if not BARCODE.fullmatch(patient):
            raise ValueError(
                f"{where} must name patients as TCGA-3C-AAAU, got {shown(patient)}; {advice}"
            )
    for what, names in (("patients", patients), ("columns", columns)):
        if len({*names}) < len(names) or not all(name.isprintable() and name for name in names):
            raise ValueError(f"{where} must name {what}, each once, and printably; {advice}")


def _numbers(
    rows: list[tuple[int, list[str]]], columns: tuple[str, ...], where: str, advice: str
) -> np.ndarray:
    """Returns the cells' numbers; they are parsed together, and one by one to name a fault."""
    cells = [cell for _, row in rows for cell in row]
    if not "".join(cells).encode("utf-8", "replace").translate(None, PLAIN.replace(b",", b"")):
        try:
            values = np.array(cells, dtype=np.float64)
            if np.isfinite(values).all():
                return values.reshape(len(rows), len(columns))
        except ValueError:  # a cell is made of a number's characters, and yet none
            pass
    found = [[_number(cell, c, n, where, advice) for cell, c in zip(row, columns, strict=True)]
             for n, row in rows]  # fmt: skip
    return np.array(found, dtype=np.float64)


def _number(cell: str, column: str, line: int, where: str, advice: str) -> float:
    try:
        value = to_number(cell)
    except ValueError as error:
        raise ValueError(
            f"{where}, line {line}: every cell {error} in {shown(column)}; {advice}"
        ) from error
    if not np.isfinite(value):
        raise ValueError(f"{where}, line {line}: {shown(cell)} is too large a number; {advice}")
    return value


def written(table: Table) -> bytes:
    """Returns the text of a table, as `parse` reads it; the same for the same table."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["patient", *table.columns])
    for patient, row in zip(table.patients, table.values.tolist(), strict=True):
        writer.writerow([patient, *map(repr, row)])
    return file.getvalue().encode()
