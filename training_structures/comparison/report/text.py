"""Foreign text, such as names and errors, as terminal, Markdown and spreadsheet may have it."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

FORMULA = "=", "+", "-", "@", "\t", "\r"  # what makes spreadsheets take a text for a formula


def printable(text: str, keep: str = "") -> str:
    """Returns a text with its control characters escaped, as \\x1b, but for those to keep."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def meant(names: Iterable[str], known: Iterable[str]) -> str:
    """Returns "did you mean concat? or ", for what unknown names are like; nothing if they are
    like none of the known ones."""
    known = list(known)
    near = dict.fromkeys(n for name in names for n in get_close_matches(name, known, 1, 0.6))
    return f"did you mean {', '.join(near)}? or " if near else ""


def columns_of(text: str) -> int:
    """Returns how many columns of a terminal a printable text takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def shortened(text: str, columns: int) -> str:
    """Returns a text of that many columns at most, what is too much of it left out inside."""
    if columns_of(text) <= columns:
        return text
    room = columns - 1
    left, right = text[: room - room // 2], text[len(text) - room // 2 :]
    while columns_of(left) + columns_of(right) > room:  # wide characters take two
        if columns_of(left) >= columns_of(right):
            left = left[:-1]
        else:
            right = right[1:]
    return f"{left}…{right}"


def in_markdown(text: str) -> str:
    """Returns a text on one line that is no tag, no link and no border of a table's cell."""
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", printable(text))
    return text.replace("](", r"]\(").replace("|", r"\|")


def in_picture(text: str) -> str:
    """Returns a text that matplotlib draws as it is: a dollar begins no formula."""
    return printable(text).replace("$", r"\$")


def csv_text(head: Sequence[Any], lines: Iterable[Sequence[Any]]) -> str:
    """Returns a table as CSV, of which a spreadsheet runs nothing.

    Text that it would take for a formula gets an apostrophe in front, and control characters
    are escaped; numbers are left.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([_harmless(cell) for cell in line] for line in (head, *lines))
    return stream.getvalue()


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    text = printable(cell)
    if not cell.startswith(FORMULA):
        return text
    try:
        float(cell)
    except ValueError:
        return f"'{text}"
    return text
