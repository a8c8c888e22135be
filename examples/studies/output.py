"""The output folder of every study: tables as data and as text, numbers, pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deq_fusion.examples.studies.drawing import save_all, write_text
from deq_fusion.examples.studies.score_tables import of_rows
from deq_fusion.examples.studies.tables import FILE, Column, Table, write_tables
from deq_fusion.training_structures.comparison import Comparison
from deq_fusion.training_structures.comparison.report.table import markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Summary:
    """The findings of a study.

    Attributes:
        tables: for people, and to be published.
        numbers: name of a file -> all numbers behind a table or a picture, as CSV.
    """

    tables: Sequence[Table]
    numbers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The tables as Markdown, each under its title."""
        return "\n\n".join(f"{table.title}\n\n{_text(table)}" for table in self.tables)


def _text(table: Table) -> str:
    """Returns a table as Markdown whose columns are as wide on a terminal."""
    return markdown([c.heading for c in table.columns], [table.texts(row) for row in table.rows])


def write_all(
    folder: Path,
    name: str,
    summary: Summary,
    pictures: "Mapping[str, Figure | None]",
    *,
    command: Sequence[str],
    threads: int = 1,
    device: str = "cpu",
) -> str:
    """Writes all that a study found to its folder; returns in words what is there.

    Args:
        folder: the study's, which is made if it is not there.
        name: of the file of all tables, `name`.md.
        summary: what was found; its tables become `tables.json`.
        pictures: name -> picture, written as .png and .svg; None is left out.
        command: what asked for it, as a shell's words.
        threads: of every process that measured.
        device: where it was measured.
    """
    write_text(folder / f"{name}.md", f"{summary}\n")
    write_tables(folder, summary.tables, command=command, threads=threads, device=device)
    for file, content in summary.numbers.items():
        write_text(folder / file, content)
    drawn = [f"{picture}.png" for picture in save_all(folder, pictures)]
    files = [f"{name}.md", FILE, *summary.numbers, *drawn, *([".svg"] if drawn else [])]
    return f"in {folder}: {', '.join(files)}"


def stacked(name: str, parts: Mapping[str, Table], key: str, *, title: str = "") -> Table:
    """Returns one table of several, one below the other, with the columns that any of them has.

    Args:
        name: of the result.
        parts: what the rows of a table have in common -> the table; equally many keys each.
        key: heading of the first column, which says it.
        title: of the result.
    """
    columns: dict[str, Column] = {c.name: c for part in parts.values() for c in part.columns}
    rows = []
    for what, part in parts.items():
        names = [column.name for column in part.columns]
        for row in part.rows:
            cells = dict(zip(names, row, strict=True))
            rows.append([what, *map(cells.get, columns)])
    keys = 1 + next(iter(parts.values())).keys
    return Table(name, [Column(key), *columns.values()], rows, keys, title)


def score_table(
    comparisons: Mapping[str, Comparison], rows: Sequence[str], *, name: str = "scores"
) -> Table:
    """Returns the scores of all comparisons, by injection and row, in the order of the study.

    Args:
        comparisons: injection -> comparison.
        rows: names in the order wanted; a user's own come last.
        name: of the table.
    """
    parts = {}
    for injection, found in comparisons.items():
        by_name = {row.method: row for row in found.table()}
        ordered = [by_name[row] for row in in_order(found, rows)]
        part = of_rows(name, ordered, found.scores, found.baseline)
        parts[injection] = replace(part, columns=[Column("row"), *part.columns[1:]])
    return stacked(name, parts, "injection", title="Scores: mean and sd over the runs")


def in_order(comparison: Comparison, rows: Sequence[str]) -> list[str]:
    """Returns the rows that a comparison has, as a study orders them; a user's own come last."""
    there = [row.method for row in comparison.table()]
    return [*(name for name in rows if name in there), *(n for n in there if n not in rows)]
