"""Published tables of results: a sealed file each, with what made it, when, and at which commit."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deq_fusion.examples.studies.tables import Table
from deq_fusion.training_structures.files import Damaged, read_json, sealed, write_bytes

FORMAT = "deq-fusion published 1"
FOLDER = Path(__file__).parent / "published"  # of a checkout
SHORT = 7  # digits of a commit that a page shows
TEXTS = "name", "title", "commit", "date", "machine", "tests", "older", "source"


@dataclass(frozen=True)
class Published:
    """A table of results, and where it comes from.

    Attributes:
        name: of its file.
        title: what it shows, in a line.
        table: the numbers.
        commands: what makes it, as one types it; none for what others have published.
        commit: the one that it was measured at, or `measured` is False: that first had it.
        date: the day of that, as 2026-01-31.
        versions: program -> version: deq-fusion, torch, python.
        machine: it in plain words.
        tests: how intervals and p-values were computed; empty without any.
        measured: whether `commit` and `date` are of the measurement; if not they are of the
            publication, no later than which it was measured.
        older: why the table would not come out the same today; empty if it would.
        rows: row, by its name -> the commit and date of its own, where they are others.
        source: where others have published it; empty for what this project measured.
    """

    name: str
    title: str
    table: Table
    commands: Sequence[str]
    commit: str
    date: str
    versions: Mapping[str, str]
    machine: str
    tests: str = ""
    measured: bool = True
    older: str = ""
    rows: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    source: str = ""

    def origin(self) -> str:
        """Returns a sentence on where the table comes from, as Markdown."""
        if self.source:
            return f"Published by others: {self.source}."
        verb = "Measured" if self.measured else "Published"
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        text = f"{verb} at {_at(self.commit, self.date)}; {versions}; {self.machine}."
        if self.older:
            text += f" **Not measured again since: {self.older}.**"
        notes = [f"{mark}: at {_at(*where)}" for where, mark in self._places().items()]
        return f"{text} {'; '.join(notes)}." if notes else text

    def marks(self) -> dict[str, str]:
        """Returns row -> the mark that sends a reader to its own commit and date."""
        places = self._places()
        return {row: places[where] for row, where in self.rows.items()}

    def _places(self) -> dict[tuple[str, str], str]:
        places = list(dict.fromkeys(self.rows.values()))
        return {where: "†" * (i + 1) for i, where in enumerate(places)}

    def save(self, folder: Path = FOLDER) -> Path:
        """Writes its file, a row a line and under a checksum; returns its path.

        Raises:
            CannotWrite: if it cannot be written.
        """
        content = {key: value for key, value in vars(self).items() if key != "table"}
        table = self.table.to_json()
        lists = {key: table.pop(key) for key in ("columns", "rows")}
        content = {"format": FORMAT} | content | {"table": {"keys": table["keys"]}}
        body = json.dumps(content, indent=1)[: -len("\n}")]
        for key, lines in lists.items():
            joined = ",\n".join(f"  {json.dumps(line)}" for line in lines)
            body += f',\n "table {key}": [\n{joined}\n ]'
        path = folder / f"{self.name}.json"
        write_bytes(path, sealed(body.encode()))
        return path


def _at(commit: str, date: str) -> str:
    return f"`{commit[:SHORT]}{'+' * commit.endswith('+')}`, {date}"


def read_published(path: Path) -> Published:
    """Returns a published table.

    Raises:
        FileNotFoundError: if it is not there.
        Damaged: if it is not what `Published.save` wrote.
    """
    content = read_json(path)
    if content.pop("format", None) != FORMAT or content.get("name") != path.stem:
        raise Damaged(f"{path} must be a published table named {path.stem!r}, but is not")
    wrong = [name for name in TEXTS if not isinstance(content.get(name), str)]
    if wrong:
        raise Damaged(f"{path} must say its {wrong[0]}, as text")
    try:
        table = content.pop("table") | {"name": content["name"], "title": content["title"]}
        table |= {key: content.pop(f"table {key}") for key in ("columns", "rows")}
        rows = {name: (commit, date) for name, (commit, date) in content.pop("rows").items()}
        found = Published(table=Table.from_json(table), rows=rows, **content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{path} must be a published table, but is not: {error}") from error
    unknown = set(rows) - set(found.table.row_names)
    if unknown:
        raise Damaged(f"{path} tells where rows come from that it does not have: {unknown}")
    return found


def read_all(folder: Path = FOLDER) -> dict[str, Published]:
    """Returns name -> every published table of a folder.

    Raises:
        FileNotFoundError: if there is none.
        Damaged: see `read_published`.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise FileNotFoundError(
            f"there are no published tables in {folder}: they are in a checkout of the project, "
            "not in an installation"
        )
    return {path.stem: read_published(path) for path in paths}
