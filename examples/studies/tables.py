"""Tables of results as data: they render to Markdown, go to JSON and back, and tell their cells.

A cell holds the number that was measured, at full precision; how many digits are shown is said
by its column. `tables.json` in a study's output folder holds the tables of one run of it, with
what made them.
"""

import math
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from deq_fusion import __version__
from deq_fusion.training_structures.comparison.report.text import in_markdown
from deq_fusion.training_structures.comparison.store import provenance
from deq_fusion.training_structures.files import Damaged, read_json, write_json

FORMAT = "deq-fusion tables 1"
FILE = "tables.json"
FORM = re.compile(r"\+?,?(\.\d+)?[efg%]|p|")  # what `Column.form` may be


@dataclass(frozen=True)
class Spread:
    """The mean of several runs, and how they spread.

    Attributes:
        mean: over the runs.
        sd: their standard deviation; None for a single run.
    """

    mean: float
    sd: float | None = None


@dataclass(frozen=True)
class Interval:
    """An interval of confidence.

    Attributes:
        low: its lower end.
        high: its upper end.
    """

    low: float
    high: float


@dataclass(frozen=True)
class Bounded:
    """A value with its interval of confidence.

    In a column whose form has a sign (`+.1%`) it is a difference.

    Attributes:
        value: the estimate.
        low: the lower end of its interval; None for a single run.
        high: the upper end; None for a single run.
    """

    value: float
    low: float | None = None
    high: float | None = None


Cell = None | str | int | float | Spread | Interval | Bounded
KINDS = Spread, Interval, Bounded


@dataclass(frozen=True)
class Column:
    """A column of a table: its name, and how its numbers are shown.

    Attributes:
        name: by which cells are looked up, and its heading.
        form: how numbers are shown, as Python formats them: `.3f`, `,.0f` (thousands apart),
            `.1e`, `g`; with a sign (`+.1f`) for differences. `.1%` is for shares, which are
            shown in percent; the heading says so, and the cells do not repeat it. `p` is for
            p-values. Empty: the column holds text.
        note: what the heading says besides the name, such as "less is better".
    """

    name: str
    form: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if not FORM.fullmatch(self.form):
            raise ValueError(
                f"form of column {self.name!r} must be '', 'p', or a format as '.1f', '+.3f', "
                f"',.0f', '.1e', 'g' or '.1%', got {self.form!r}"
            )

    @property
    def heading(self) -> str:
        unit = " %" if self.form.endswith("%") and "%" not in self.name else ""
        return f"{self.name}{unit}{f' ({self.note})' if self.note else ''}"

    def show(self, cell: Cell) -> str:
        """Returns a cell as text; nothing for None."""
        if cell is None or isinstance(cell, str):
            return cell or ""
        if isinstance(cell, Spread):
            end = "" if cell.sd is None else f" ± {self._number(cell.sd).lstrip('+')}"
            return self._number(cell.mean) + end
        if isinstance(cell, Interval):
            return f"{self._number(cell.low)} to {self._number(cell.high)}"
        if isinstance(cell, Bounded):
            if cell.low is None or cell.high is None:
                return self._number(cell.value)
            return (
                f"{self._number(cell.value)} [{self._number(cell.low)}, {self._number(cell.high)}]"
            )
        return self._number(cell)

    def _number(self, value: float) -> str:
        if self.form == "p":
            return "< 0.001" if value < 0.001 else f"{value:.3f}"
        if self.form.endswith("%"):
            return format(100 * value, f"{self.form[:-1]}f")
        return format(value, self.form or "g")


@dataclass(frozen=True)
class Table:
    """A table of results.

    Attributes:
        name: names it in its file; a word.
        columns: what its columns hold.
        rows: the cells of every row, one a column: None for nothing, a text, a number, a
            `Spread`, an `Interval` or a `Bounded`. Numbers that are not finite become text, and
            spreads and bounds that are not are left out, so that JSON can hold all.
        keys: the number of columns, from the left, that name a row.
        title: what the table shows, in a line.

    Raises:
        ValueError: for a row of another length, a cell of another kind, a number in a column of
            text, and for columns or rows of the same name.
    """

    name: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    keys: int = 1
    title: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "rows", tuple(tuple(map(_plain, row)) for row in self.rows))
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"a row of table {self.name!r} must have {len(self.columns)} cells, one a "
                    f"column, got {len(row)}: {row}"
                )
            for column, cell in zip(self.columns, row, strict=True):
                if not column.form and cell is not None and not isinstance(cell, str):
                    raise ValueError(
                        f"column {column.name!r} of table {self.name!r} holds text, got {cell}; "
                        "give it a form, such as '.1f'"
                    )
        for what, names in (("column", [c.name for c in self.columns]), ("row", self.row_names)):
            twice = [name for i, name in enumerate(names) if name in names[:i]]
            if twice:
                raise ValueError(
                    f"every {what} of table {self.name!r} must have a name of its own, but "
                    f"{twice[0]!r} comes twice; keys={self.keys} columns name a row"
                )

    @property
    def row_names(self) -> list[str]:
        """The names of the rows: the texts of their key cells, with commas between."""
        return [", ".join(self.texts(row)[: self.keys]) for row in self.rows]

    def texts(self, row: Sequence[Cell]) -> list[str]:
        """Returns the cells of a row as text."""
        return [column.show(cell) for column, cell in zip(self.columns, row, strict=True)]

    def cell(self, row: str, column: str) -> Cell:
        """Returns the cell of a row, by its name, and a column, by its.

        Raises:
            KeyError: if there is no such row or column.
        """
        return self.rows[self._row(row)][self._column(column)]

    def text(self, row: str, column: str) -> str:
        """Returns a cell as the table shows it, see `cell`."""
        at = self._column(column)
        return self.columns[at].show(self.rows[self._row(row)][at])

    def _row(self, name: str) -> int:
        return _index(self.row_names, name, f"row of table {self.name!r}")

    def _column(self, name: str) -> int:
        return _index([c.name for c in self.columns], name, f"column of table {self.name!r}")

    def part(
        self, columns: Sequence[str] | None = None, rows: Sequence[str] | None = None
    ) -> "Table":
        """Returns a table of some columns, and rows, in the order given; the keys stay.

        Raises:
            KeyError: if there is no such row or column.
        """
        at = list(range(len(self.columns)))
        if columns is not None:
            others = [i for i in map(self._column, columns) if i >= self.keys]
            at = [*at[: self.keys], *others]
        chosen = range(len(self.rows)) if rows is None else map(self._row, rows)
        return replace(
            self,
            columns=[self.columns[i] for i in at],
            rows=[[self.rows[r][i] for i in at] for r in chosen],
        )

    def filled(self) -> "Table":
        """Returns the table without the columns in which no row has anything."""
        there = [
            i for i, c in enumerate(zip(*self.rows, strict=True)) if any(x is not None for x in c)
        ]
        kept = sorted({*range(self.keys), *there})
        return self.part([self.columns[i].name for i in kept])

    def markdown(self, marks: Mapping[str, str] | None = None) -> str:
        """Returns the table as Markdown, numbers on the right; all texts in it are plain.

        Args:
            marks: row, by its name -> what is put behind its name, such as "†".
        """
        marks = marks or {}
        lines = [[in_markdown(column.heading) for column in self.columns]]
        lines.append(["---:" if column.form else "---" for column in self.columns])
        for name, row in zip(self.row_names, self.rows, strict=True):
            line = [in_markdown(text) for text in self.texts(row)]
            line[self.keys - 1] += f" {marks[name]}" if name in marks else ""
            lines.append(line)
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def to_json(self) -> dict[str, Any]:
        """Returns the table as JSON has it; `from_json` returns an equal table."""
        return {
            "name": self.name,
            "title": self.title,
            "keys": self.keys,
            "columns": [asdict(column) for column in self.columns],
            "rows": [[asdict(c) if isinstance(c, KINDS) else c for c in row] for row in self.rows],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Table":
        """Returns the table that `to_json` wrote.

        Raises:
            ValueError: if it is none.
        """
        try:
            columns = [Column(**column) for column in content["columns"]]
            rows = [[_cell(value) for value in row] for row in content["rows"]]
            return cls(content["name"], columns, rows, content["keys"], content["title"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"this is no table, for want of {error}: {str(content)[:80]}"
            ) from None


def _index(names: Sequence[str], name: str, what: str) -> int:
    if name not in names:
        raise KeyError(f"there is no {what} named {name!r}; there are {', '.join(names)}")
    return names.index(name)


def _plain(cell: Any) -> Cell:
    """Returns a cell that JSON can hold: plain numbers, finite all of them."""
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, KINDS):
        numbers: dict[str, Any] = {f.name: _number(getattr(cell, f.name)) for f in fields(cell)}
        first = fields(cell)[0].name
        if isinstance(cell, Interval) and None in numbers.values():
            return None
        return str(getattr(cell, first)) if numbers[first] is None else replace(cell, **numbers)
    number = _number(cell)
    return str(float(cell)) if number is None else number


def _number(value: Any) -> int | float | None:
    """Returns a finite number as Python's own, NumPy's included; None for one that is not."""
    if value is None:
        return None
    try:
        plain = value if type(value) in (int, float) else float(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"a cell must be None, a text, a number or one of {KINDS}, got {value!r}"
        ) from None
    return plain if math.isfinite(plain) else None


def _cell(value: Any) -> Cell:
    """Returns the cell of what JSON has for it."""
    if not isinstance(value, dict):
        return value
    for kind in KINDS:
        if value.keys() == {f.name for f in fields(kind)}:
            return kind(**value)
    raise ValueError(f"this is no cell of a table: {str(value)[:80]}")


def write_tables(
    folder: Path,
    tables: Iterable[Table],
    *,
    command: Sequence[str],
    threads: int = 1,
    device: str = "cpu",
) -> Path:
    """Writes `tables.json`, under its checksum, to a study's output folder; returns its path.

    Args:
        folder: where to.
        tables: what was found.
        command: what asked for it, as a shell's words.
        threads: of every process that measured.
        device: where it was measured.

    Raises:
        CannotWrite: if it cannot be written.
    """
    path = Path(folder) / FILE
    content: dict[str, Any] = {"format": FORMAT, "command": list(command)}
    content |= {"date": str(date.today()), "made_by": made_by(threads, device)}
    write_json(path, content | {"tables": [table.to_json() for table in tables]})
    return path


def read_tables(path: Path) -> tuple[dict[str, Any], dict[str, Table]]:
    """Returns what made the tables of a file (`command`, `date`, `made_by`), and the tables.

    Raises:
        FileNotFoundError: if it is not there.
        Damaged: if it is not what `write_tables` wrote.
    """
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise Damaged(f"{path} must be of format {FORMAT!r}, got {content.get('format')!r}")
    try:
        tables = [Table.from_json(table) for table in content.pop("tables")]
    except (KeyError, ValueError) as error:
        raise Damaged(f"{path} must hold tables: {error}") from error
    return content, {table.name: table for table in tables}


def made_by(threads: int, device: str) -> dict[str, Any]:
    """Returns what a repetition needs: versions, commit, and the machine in plain words."""
    versions = {"deq-fusion": __version__} | provenance(threads, device)
    return versions | {"machine": describe_machine(threads, device)}


def describe_machine(threads: int, device: str) -> str:
    """Returns the machine in plain words: its processor, and how much of it was used."""
    if device != "cpu":
        return f"one {torch.cuda.get_device_name(device)}"
    model = platform.processor() or platform.machine()
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        model = found[1] if found else model
    except OSError:  # not Linux
        pass
    many = "one thread" if threads == 1 else f"{threads} threads"
    return f"{model}, {many} on {os.cpu_count()} cores"
