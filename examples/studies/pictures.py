"""The pictures of the pages of results: drawn from published tables, and stamped with their data.

A picture is drawn anew if its stamp, a digest of its table, is another one: other versions of
matplotlib make other files of the same numbers.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deq_fusion.examples.studies import across
from deq_fusion.examples.studies.pages import ROOT
from deq_fusion.examples.studies.published_tables import Published
from deq_fusion.examples.studies.structures import draw as structures
from deq_fusion.examples.studies.tables import Table
from deq_fusion.training_structures.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN = ROOT / "docs" / "results" / "pictures"
STAMP = re.compile(r"data ([0-9a-f]{64})")


PICTURES: "Mapping[str, tuple[str, Callable[[Table], Figure | None]]]" = {
    "structures": ("structures", lambda table: structures.draw(table)["structures"]),
    "sizes": ("structures_sizes", lambda table: structures.draw(table)["sizes"]),
    "real_sets": ("across", lambda table: across.draw(table, across.MARGIN / 100)),
}
"""Picture -> the published table that it shows, and what draws it."""


def stale(tables: Mapping[str, Published], folder: Path) -> list[str]:
    """Returns the pictures of published tables that a folder lacks, or has of other numbers."""
    there = {name: source for name, (source, _) in PICTURES.items() if source in tables}
    return [
        name
        for name, source in there.items()
        if _stamp_of(folder / f"{name}.svg") != stamp(tables[source].table)
    ]


def stamp(table: Table) -> str:
    """Returns the digest of a table's numbers."""
    return hashlib.sha256(json.dumps(table.to_json()).encode()).hexdigest()


def _stamp_of(path: Path) -> str | None:
    found = STAMP.search(path.read_text(encoding="utf-8")) if path.exists() else None
    return found and found[1]


def draw(name: str, tables: Mapping[str, Published], folder: Path) -> Path:
    """Draws a picture, with its stamp, as folder/name.svg; returns its path."""
    import matplotlib

    source, drawn = PICTURES[name]
    table = tables[source].table
    figure = drawn(table)
    if figure is None:
        raise ValueError(f"{source} must have something to draw, but has not")
    stream = io.BytesIO()
    told = {"Date": None, "Description": f"{source}: data {stamp(table)}"}
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata=told)
    path = folder / f"{name}.svg"
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(path, stream.getvalue())
    return path
