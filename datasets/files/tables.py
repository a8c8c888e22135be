"""Numbers as text, and tables of them separated by commas.

Python's `float` takes more for a number than a table means: digits of any script, 1_000, nan and
infinity. A cell is a plain decimal number here, or an error that names file, line and cell.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from .reading import check_file, shown

MOST_LINES = MOST_COLUMNS = 1_000_000
MOST_CHARACTERS = 1 << 26  # of a line
BLOCK = 1 << 14  # characters that are parsed at once
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
PLAIN = b"0123456789+-.eE, "  # what a line of numbers consists of
MISSING = {"nan", "inf", "infinity", "na", "n/a", "null", "none"}
UTF_16 = "\xff\xfe", "\xfe\xff"  # its marks at the start of a file, read as Latin-1


def to_number(text: str) -> float:
    """Returns the number that a cell writes, as 3, -0.5 or 1e-3; spaces around it do not count.

    Raises:
        ValueError: if it is not written in this way, or no finite number.
    """
    cell = text.strip(" ")
    if cell.lower().lstrip("+-") in MISSING:
        raise ValueError(f"must be finite, got {shown(cell)}")
    if not NUMBER.fullmatch(cell):
        raise ValueError(f"must be a number, as 3, -0.5 or 1e-3, got {shown(cell)}")
    return float(cell)


def read_numbers(
    path: str | Path, *, dtype: type = np.float32, advice: str = "get it again"
) -> np.ndarray:
    """Reads comma-separated numbers, (rows, columns) of `dtype`; empty lines are skipped.

    Lines end as on any system, and the last one need not end. Read are at most 1,000,000 lines of
    at most 1,000,000 cells; the text is read by and by, and never held whole.

    Args:
        path: the file.
        dtype: np.float32 or np.float64.
        advice: what to do with a file that is missing or no good.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: names the file, the line and the cell that is no finite number (see
            `to_number`) or one that `dtype` cannot hold, or the line that is not as wide as those
            before it; or if the file is empty, no text, or goes beyond the bounds.
    """
    path = check_file(path, advice=advice)
    blocks: list[np.ndarray] = []
    with path.open(encoding="latin-1") as file:  # which takes any byte, and keeps it
        for lines in _blocks(file, path):
            width = blocks[0].shape[1] if blocks else _cells(next(iter(lines.values())))
            blocks.append(_parse(lines, width, dtype, path, advice))
    if not blocks:
        raise ValueError(f"{path} must hold a row of numbers a line, but it is empty; {advice}")
    return np.concatenate(blocks)


def _blocks(file: TextIO, path: Path) -> Iterator[dict[int, str]]:
    """Yields the lines that are not empty, by number, a few at a time."""
    lines: dict[int, str] = {}
    number = size = 0
    while line := file.readline(MOST_CHARACTERS + 1):
        if (number := number + 1) == 1:
            if line.startswith(UTF_16):
                raise ValueError(f"{path} is UTF-16; save it as UTF-8")
            line = line.removeprefix("\xef\xbb\xbf")  # UTF-8's mark
        if number > MOST_LINES or len(line) > MOST_CHARACTERS or _cells(line) > MOST_COLUMNS:
            raise ValueError(
                f"{path}, line {number}: a table must have at most {MOST_LINES:,} lines of at most "
                f"{MOST_COLUMNS:,} cells and {MOST_CHARACTERS:,} characters; this one has more"
            )
        if line := line.strip(" \t\n"):
            lines[number] = line
            size += len(line)
        if size > BLOCK:
            yield lines
            lines, size = {}, 0
    if lines:
        yield lines


def _cells(line: str) -> int:
    return line.count(",") + 1


def _parse(lines: dict[int, str], width: int, dtype: type, path: Path, advice: str) -> np.ndarray:
    """Returns the lines' numbers; they are parsed together, and one by one only to name a fault."""
    joined = ",".join(lines.values())
    if not joined.encode("latin-1").translate(None, PLAIN) and all(
        _cells(line) == width for line in lines.values()
    ):
        try:
            table = np.array(joined.split(","), dtype=np.float64)
        except ValueError:  # a cell is made of a number's characters, and yet none
            table = np.array([np.nan])
        if (abs(table) <= np.finfo(dtype).max).all():
            return table.reshape(len(lines), width).astype(dtype, copy=False)
    rows = []
    for number, line in lines.items():
        where = f"{path}, line {number}"
        rows.append(_parse_line(line, number, dtype, where, advice))
        if len(rows[-1]) != width:
            raise ValueError(
                f"{where}: every line must have {width} cells, as those before it, got "
                f"{len(rows[-1])}; {advice}"
            )
    return np.array(rows, dtype)


def _parse_line(line: str, number: int, dtype: type, where: str, advice: str) -> list[float]:
    cells = line.encode("latin-1").decode("utf-8", "replace").split(",")  # as its writer sees it
    row: list[float] = []
    largest = float(np.finfo(dtype).max)
    for column, cell in enumerate(cells, start=1):
        try:
            row.append(to_number(cell))
        except ValueError as error:
            way = _way_out(cells, number, advice)
            raise ValueError(f"{where}: every cell {error} in cell {column}; {way}") from error
        if abs(row[-1]) > largest:
            raise ValueError(
                f"{where}: cell {column}, {shown(cell)}, is finite, but {np.dtype(dtype)} holds "
                f"numbers up to {largest:.2g} only; rescale this column"
            )
    return row


def _way_out(cells: list[str], number: int, advice: str) -> str:
    """Returns what to do with a line that is not all numbers: which layout beside ours is it?"""
    cells = [cell.strip(" ") for cell in cells]
    numbers = [NUMBER.fullmatch(cell) is not None for cell in cells]
    if any("\0" in cell for cell in cells):
        return "is it UTF-16? save it as UTF-8"
    if len(cells) == 1 and re.search(r"\S[;\t ]+\S", cells[0]):
        return "separate the cells by commas, and write decimals with a point"
    if any(cell[:1] in ('"', "'") for cell in cells):
        return "write numbers without quotes, and neither a header nor names of rows"
    if number == 1 and not any(numbers[1:]):
        return "if this line is a header, take it out: all lines must be numbers"
    if len(cells) > 1 and cells[0] and not numbers[0] and all(numbers[1:]):
        return "if the first column names the rows, take it out: all columns must be numbers"
    if any(cell.lower().lstrip("+-") in MISSING for cell in cells):
        return "fill in or leave out what is missing first"
    return advice
