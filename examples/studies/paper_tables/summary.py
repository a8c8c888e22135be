"""The summary of a table of systems: the paper's figures beside ours, and what differs."""

from collections.abc import Mapping, Sequence

from deq_fusion.examples.studies.output import Summary
from deq_fusion.examples.studies.paper_tables.measure import Found
from deq_fusion.examples.studies.paper_tables.protocol import LABEL
from deq_fusion.examples.studies.paper_tables.rows import PaperTable, Row, Shown
from deq_fusion.examples.studies.score_tables import spread
from deq_fusion.examples.studies.tables import Cell, Column, Table
from deq_fusion.training_structures.comparison.report.table import Row as Result
from deq_fusion.training_structures.comparison.report.table import markdown

PAPER, OURS, ON_TEST = "paper", "ours", f"ours, {LABEL}"
KEYS = 3
UNTRAINED = "untrained weights"


def summary(
    number: int,
    table: PaperTable,
    rows: Sequence[Row],
    honest: Mapping[str, Found],
    published: Mapping[str, Found] | None = None,
) -> Summary:
    """Returns the table: a line for each row of the paper and each of our methods for it.

    Args:
        number: of the table.
        table: what the paper shows.
        rows: those that were measured.
        honest: group -> what was found by this project's protocol.
        published: the same by the paper's, if that was asked for.
    """
    lines = [
        _line(table, row, method, honest[row.group], published and published[row.group])
        for row in rows
        for method in row.methods
    ]
    sides = {PAPER: "", OURS: "", **({ON_TEST: ""} if published is not None else {})}
    columns = [*map(Column, ("row", "modalities", "method"))]
    columns += [shown_column(shown, side) for shown in table.scores for side in sides]
    columns += [Column("runs", ".0f"), Column("seconds", ".1f"), Column("differs")]
    title = f"Table {number} of Ni et al. (2023), {table.title}: as printed, and as measured here"
    made = Table(f"table_{number}", columns, lines, KEYS, title)
    return Summary([made])


def shown_column(shown: Shown, side: str) -> Column:
    """Returns the column of a score: the paper's, or one of ours."""
    return Column(f"{shown.heading}, {side}", shown.form, "less is better" if shown.lower else "")


def _line(
    table: PaperTable, row: Row, method: str, honest: Found, published: Found | None
) -> list[Cell]:
    result = honest.row(method)
    others = [result] if published is None else [result, published.row(method)]
    line: list[Cell] = [row.label, row.modalities, method]
    for shown, printed in zip(table.scores, row.cells(table.scores), strict=True):
        line += [printed, *(_score(each, shown) for each in others)]
    line += [result and result.runs, result and result.costs["seconds"]]
    return [*line, differs(table, row, method, honest, published)]


def _score(result: Result | None, shown: Shown) -> Cell:
    """Returns a score as a cell; nothing where there is no result, or the set has no such score."""
    found = None if result is None else result.scores.get(shown.score)
    return None if found is None else spread(found)


def differs(table: PaperTable, row: Row, method: str, found: Found, published: Found | None) -> str:
    """Returns in what our line differs from the paper's row, or why there is none."""
    if method in found.absent:
        return f"not measured: {found.absent[method]}"
    if found.row(method) is None:
        return "not measured: every run failed, see its folder"
    said = [found.name, f"{found.parts} samples in place of {table.parts}"]
    said += [table.groups[row.group].differs]
    said += [row.differs] if row.differs else []
    if any(found.settings.get(name) is None for name in row.weights):
        said.append(UNTRAINED)
    if published is not None:
        said.append(f"{LABEL}: {published.parts} samples, a look every epoch")
    return "; ".join(said)


def listing(tables: Mapping[int, PaperTable]) -> str:
    """Returns every row of these tables, and the module or host behind it, as Markdown."""
    head = ["table", "row", "modalities", "methods", "module or host"]
    lines = [
        [f"{number}, {table.title}", row.label, row.modalities, ", ".join(row.methods), row.behind]
        for number, table in tables.items()
        for row in table.rows
    ]
    return markdown(head, lines)
