"""The pages of results: templates whose every figure is looked up in the published tables.

`published/pages/NAME.md` is the template of `docs/results/NAME.md`, `RESULTS.md` there that of
RESULTS.md, and `README.md` there that of what README has between its two marks. Templates are
Jinja2's, and know `Figures`' methods.
"""

import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from deq_fusion.examples.studies.published_tables import FOLDER, Published, read_all
from deq_fusion.examples.studies.tables import Bounded, Cell, Interval, Spread
from deq_fusion.fusions.registry import FUSIONS

TEMPLATES = FOLDER / "pages"
ROOT = Path(__file__).resolve().parents[2]  # of the checkout
START, END = "<!-- results -->", "<!-- /results -->"
MADE = "<!-- Made by `make results` from examples/studies/published: do not edit it here. -->\n\n"
WIDTH = 100  # of a line
TIE = "\0"  # a space at which no line breaks
FREE = "|", "```", "#", "<", "!", "    "  # how lines begin that are left as they are
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth".split()


class Figures:
    """The published tables as a template may ask of them; a wrong name is an error.

    Args:
        tables: name -> published table.
    """

    def __init__(self, tables: dict[str, Published]) -> None:
        self._tables = tables
        self.shown: set[str] = set()  # tables that a page has

    def _published(self, name: str) -> Published:
        if name not in self._tables:
            raise KeyError(f"there is no published table {name!r}: {', '.join(self._tables)}")
        return self._tables[name]

    def table(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        rows: Sequence[str] | None = None,
    ) -> str:
        """Returns a table, or a part of it, with where it comes from below it."""
        self.shown.add(name)
        found = self._published(name)
        part = found.table.part(columns, rows).filled()
        own = {row: mark for row, mark in found.marks().items() if row in part.row_names}
        tests = f"{found.tests[0].upper()}{found.tests[1:]}. " if found.tests else ""
        return f"{part.markdown(own)}\n\n<small>{tests}{found.origin()}</small>"

    def picture(self, name: str, table: str, what: str) -> str:
        """Returns a picture of `pictures.PICTURES`, with where its table comes from below it.

        Args:
            name: of the picture.
            table: that it shows.
            what: it in words, for who cannot see it.
        """
        self.shown.add(table)
        return f"![{what}](pictures/{name}.svg)\n\n<small>{self._published(table).origin()}</small>"

    def commands(self, *names: str) -> str:
        """Returns the commands that make tables, each once, as a block of code."""
        each = [line for name in names for line in self._published(name).commands]
        return "\n".join(["```", *map(_folded, dict.fromkeys(each)), "```"])

    def title(self, name: str) -> str:
        """Returns what a table shows."""
        return self._published(name).title

    def cell(self, name: str, row: str, column: str) -> str:
        """Returns a cell as its table shows it."""
        return self._published(name).table.text(row, column)

    def mean(self, name: str, row: str, column: str) -> str:
        """Returns the mean, or the value, of a cell as its table shows it, without its spread."""
        return self._shown(name, column, self.value(name, row, column))

    def value(self, name: str, row: str, column: str) -> float:
        """Returns the mean, or the value, of a cell as a number; of shares as a share."""
        return _value(self._published(name).table.cell(row, column))

    def least(
        self, name: str, column: str, rows: Sequence[str] | None = None, form: str = ""
    ) -> str:
        """Returns the least mean of a column, or of some of its rows.

        Args:
            form: how it is shown, as Python formats numbers; empty: as the table shows it.
        """
        return self._shown(name, column, min(self._values(name, column, rows)), form)

    def most(
        self, name: str, column: str, rows: Sequence[str] | None = None, form: str = ""
    ) -> str:
        """Returns the largest mean of a column, or of some of its rows, see `least`."""
        return self._shown(name, column, max(self._values(name, column, rows)), form)

    def size(self, name: str, row: str, column: str) -> str:
        """Returns the value of a cell as its table shows it, without its sign: of a difference."""
        return self.mean(name, row, column).lstrip("+-")

    def best(
        self,
        name: str,
        column: str,
        *,
        lower: bool = False,
        besides: str = "linear only naive most",
        fusions: bool = False,
    ) -> str:
        """Returns the row with the best mean of a column.

        Args:
            lower: whether less is better.
            besides: the beginnings of names that do not count: of floors and single modalities.
            fusions: whether none but fusions of the registry count, and no systems.
        """
        table = self._published(name).table
        names = [row for row in table.row_names if not row.startswith(tuple(besides.split()))]
        names = [row for row in names if row in FUSIONS] if fusions else names
        return (min if lower else max)(names, key=lambda row: self.value(name, row, column))

    def place(self, name: str, row: str, column: str, *, lower: bool = False) -> str:
        """Returns the place of a row among all, by the means of a column, in words: "third"."""
        own, values = self.value(name, row, column), self._values(name, column, None)
        ahead = sum(value < own if lower else value > own for value in values)
        return ORDINALS[ahead] if ahead < len(ORDINALS) else f"number {ahead + 1}"

    def count(self, name: str) -> int:
        """Returns how many rows a table has."""
        return len(self._published(name).table.rows)

    def power(self, name: str, column: str) -> str:
        """Returns by which power of the first column another grows, over the upper half of it."""
        table = self._published(name).table
        points = [(float(row), self.value(name, row, column)) for row in table.row_names]
        (x0, t0), (x1, t1) = points[len(points) // 2 - 1], points[-1]
        return f"{math.log(t1 / t0) / math.log(x1 / x0):.2f}"

    def _values(self, name: str, column: str, rows: Sequence[str] | None) -> list[float]:
        table = self._published(name).table
        cells = [table.cell(row, column) for row in rows or table.row_names]
        return [_value(cell) for cell in cells if cell is not None]

    def has(self, name: str) -> bool:
        """Returns whether there is such a published table."""
        return name in self._tables

    def rows_with(self, name: str, pattern: str) -> list[str]:
        """Returns the rows of a table in whose names a regular expression is found."""
        return [row for row in self._published(name).table.row_names if re.search(pattern, row)]

    def is_old(self, name: str) -> bool:
        """Returns whether a table would not come out the same today, see `Published.older`."""
        return bool(self._published(name).older)

    def old(self) -> int:
        """Returns how many of the tables are old."""
        return sum(map(self.is_old, self._tables))

    def number(self) -> int:
        """Returns how many published tables there are."""
        return len(self._tables)

    def _shown(self, name: str, column: str, value: float, form: str = "") -> str:
        if form:
            return format(value, form)
        columns = {column.name: column for column in self._published(name).table.columns}
        return columns[column].show(value)


def _value(cell: Cell) -> float:
    if isinstance(cell, Spread):
        return cell.mean
    if isinstance(cell, Bounded):
        return cell.value
    if cell is None or isinstance(cell, (str, Interval)):
        raise ValueError(f"a template asks for a number, but the cell is {cell!r}")
    return cell


def _folded(command: str) -> str:
    """Returns a command on lines that are not too long, as a shell takes them."""
    if len(command) <= WIDTH:
        return command
    words = re.sub(r" (?=--)", "\n", command).split("\n")
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 3 > WIDTH:
            lines[-1] += " \\"
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)


def _filled(text: str, width: int | None = WIDTH) -> str:
    """Returns Markdown with its prose on lines of a width, and one blank line between blocks."""
    parts = re.split(r"(^```.*?^```$)", text, flags=re.M | re.S)  # every other one is code
    blocks = []
    for at, part in enumerate(parts):
        for block in [part] if at % 2 else re.split(r"\n\s*\n", part):
            kept = at % 2 or block.lstrip("\n").startswith(FREE)
            items = re.split(r"\n(?=- )", block.strip("\n"))
            if block.strip():
                blocks.append(
                    block.strip("\n") if kept else "\n".join(_wrapped(i, width) for i in items)
                )
    return "\n\n".join(blocks) + "\n"


def _wrapped(text: str, width: int | None) -> str:
    """Returns a paragraph, or the item of a list, on lines of a width; None: on one line."""
    text = " ".join(text.split())
    if width is None:
        return text
    text = re.sub(r"(?<=\d) %", f"{TIE}%", text)
    indent = "  " if text.startswith("- ") else ""
    filled = textwrap.fill(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return filled.replace(TIE, " ")


def render(template: Path, figures: Figures, *, width: int | None = WIDTH) -> str:
    """Returns the text of a template.

    Args:
        template: Markdown that asks for figures.
        figures: which it may ask for.
        width: of the lines of prose; None: a paragraph is a line.

    Raises:
        ValueError: if it asks for what there is not; names the template.
    """
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(template.parent, encoding="utf-8"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    names = [name for name in dir(figures) if not name.startswith("_") and name != "shown"]
    environment.globals.update({name: getattr(figures, name) for name in names})
    try:
        return _filled(environment.get_template(template.name).render(), width)
    except (KeyError, ValueError, ArithmeticError, TemplateError) as error:
        raise ValueError(f"{template}: {error.args[0]}") from error


def rendered(root: Path = ROOT, folder: Path = FOLDER) -> dict[Path, str]:
    """Returns file -> its text: RESULTS.md, README.md and the pages of docs/results.

    Args:
        root: of the checkout; its README.md is read.
        folder: of the published tables, with their templates in `pages`.

    Raises:
        FileNotFoundError: outside of a checkout.
        Damaged: for a published table that is not as it was written.
        ValueError: if README lacks the marks, a table is on no page, or a template asks for what
            there is not, which is then named with the template.
    """
    figures = Figures(read_all(folder))
    templates = sorted((folder / "pages").glob("*.md"))
    texts = {template.name: render(template, figures) for template in templates}
    unseen = sorted(set(figures._tables) - figures.shown)
    if unseen:
        raise ValueError(f"every published table must be on a page, but {unseen} are on none")
    readme = root / "README.md"
    files = {readme: _between(readme.read_text(encoding="utf-8"), texts.pop("README.md"), readme)}
    files[root / "RESULTS.md"] = MADE + texts.pop("RESULTS.md")
    return files | {root / "docs" / "results" / name: MADE + text for name, text in texts.items()}


def _between(text: str, new: str, path: Path) -> str:
    """Returns a text with what is between the two marks replaced."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end or START in after:
        raise ValueError(f"{path} must have {START} and {END} once, on lines of their own")
    return f"{before}{start}\n{new.strip()}\n{end}{after}"
