"""Results become published tables, and published tables become the pages of results.

python -m deq_fusion.examples.studies.publish add results/rosmap --name rosmap --command "..."
python -m deq_fusion.examples.studies.publish render

`add` takes the results folder of a comparison, or of a study, and writes NAME.json; of several of a
study's tables NAME_TABLE.json each. `render` writes RESULTS.md, docs/results/*.md and README's
block of results. A table that is published again keeps its title, and its commands unless they are
given.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deq_fusion import __version__
from deq_fusion.examples.studies.pages import rendered
from deq_fusion.examples.studies.pictures import DRAWN, draw, stale
from deq_fusion.examples.studies.published_tables import (
    FOLDER,
    Published,
    read_all,
    read_published,
)
from deq_fusion.examples.studies.score_tables import of_diagnosed, of_robust, of_rows
from deq_fusion.examples.studies.tables import FILE, Table, read_tables
from deq_fusion.training_structures.comparison.paired import MIN_RUNS
from deq_fusion.training_structures.comparison.recipe import Score
from deq_fusion.training_structures.comparison.report.table import make_rows
from deq_fusion.training_structures.files import read_json, write_bytes

SCORES, ROBUSTNESS, DIAGNOSES = "scores", "robustness", "diagnoses"  # tables of a comparison
PROGRAM = "python -m deq_fusion.examples.studies.publish"


def main(argv: Sequence[str] | None = None) -> None:
    """Does what the arguments ask for; what is refused is one line, and status 1."""
    args = _parser().parse_args(argv)
    try:
        args.carry_out(args)
    except (ValueError, OSError, KeyError) as error:
        sys.exit(f"publish: {error.args[0] if isinstance(error, KeyError) else error}")


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="add | render")
    render = commands.add_parser("render", help="write the pages of results")
    render.set_defaults(carry_out=lambda args: write_pages())
    add = commands.add_parser("add", help="publish a folder of results")
    add.add_argument("folder", type=Path, help="what compare or a study wrote")
    add.add_argument("--name", required=True, help="of the published table")
    add.add_argument("--title", help="what it shows, in a line")
    add.add_argument(
        "--command", action="append", help="what makes it, with DATA in place of a path; repeatable"
    )
    add.add_argument(
        "--table",
        action="append",
        help="this one of a study's tables (default: all), or of a comparison's, `scores` (the "
        "default), `robustness` and `diagnoses`; repeatable",
    )
    add.add_argument("--machine", help="it in plain words")
    add.add_argument(
        "--rows",
        choices=("keep", "drop"),
        help="what becomes of rows that were published and are not in the folder: they stay, with "
        "their own commit and date, or go (default: they are named, and nothing is published)",
    )
    add.add_argument(
        "--dirty", action="store_true", help="publish what was made of code that is in no commit"
    )
    add.set_defaults(carry_out=_add)
    return parser


def write_pages() -> None:
    """Writes every page and picture that differs from what the published tables render to."""
    for path, text in rendered().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_bytes(path, text.encode())
            print(path)
    tables = read_all()
    for name in stale(tables, DRAWN):
        print(draw(name, tables, DRAWN))


def _add(args: argparse.Namespace) -> None:
    asked = {"command": args.command, "title": args.title, "only": args.table}
    how = {"machine": args.machine, "rows": args.rows, "dirty": args.dirty}
    for path in add(args.folder, args.name, **asked, **how):
        print(path)


def add(
    folder: Path,
    name: str,
    *,
    machine: str | None = None,
    rows: str | None = None,
    dirty: bool = False,
    there: Path = FOLDER,
    **asked: Any,
) -> list[Path]:
    """Publishes a folder of results; returns the files that were written.

    Args:
        folder: see `publish`.
        name: see `publish`.
        machine: it in plain words; None: as the results tell.
        rows: what becomes of rows that were published and that the folder lacks: "keep" or
            "drop".
        dirty: whether results may be of code that is in no commit.
        there: where the published tables are.
        **asked: see `publish`.

    Raises:
        ValueError: for results of code that is in no commit, unless they may be; if the folder
            lacks rows and `rows` is None.
    """
    found = list(publish(folder, name, there=there, **asked))
    paths = []
    for table in found:
        commits = [table.commit, *(commit for commit, _ in table.rows.values())]
        if any(commit.endswith("+") for commit in commits) and not dirty:
            raise ValueError(
                f"{folder} was made of code that is in no commit, so that nobody could repeat it; "
                "commit, and make it again, or publish it as it is with --dirty"
            )
        table = replace(table, machine=machine) if machine else table
        before = there / f"{table.name}.json"
        lacking = _lacking(table, read_published(before)) if before.exists() else []
        if lacking and rows is None:
            raise ValueError(
                f"{folder} lacks rows that {before.name} has: {', '.join(lacking)}; let them stay "
                "with --rows keep, or go with --rows drop"
            )
        if lacking and rows == "keep":
            table = with_rows_of(table, read_published(before))
        paths.append(table.save(there))
    return paths


def _lacking(found: Published, before: Published) -> list[str]:
    own = set(found.table.row_names)
    return [name for name in before.table.row_names if name not in own]


def publish(
    folder: Path,
    name: str,
    *,
    command: Sequence[str] | None = None,
    title: str | None = None,
    only: Sequence[str] | None = None,
    there: Path = FOLDER,
) -> Iterator[Published]:
    """Yields the published tables that a folder of results makes; writes nothing.

    Args:
        folder: with a comparison's results.json, or a study's tables.json.
        name: of the published table; of several the beginning.
        command: what makes it; None: that of the table of this name in `there`.
        title: what it shows; None: likewise, or what the results say.
        only: those of a study's tables to publish; None: all. Of a comparison's, `scores`,
            `robustness` and `diagnoses`; None: the first.
        there: where the published tables are.

    Raises:
        FileNotFoundError: if there is neither file.
        Damaged: for a file that is not as it was written.
        ValueError: for runs that failed, or that do not tell their commit; without a command.
        KeyError: if there is no such table.
    """
    found = _studied(folder, only) if (folder / FILE).exists() else _compared(folder, only)
    for key, (table, origin) in found.items():
        own = name if len(found) == 1 else f"{name}_{key}"
        if origin["commit"] is None:
            raise ValueError(f"{folder} must be made in a checkout, to tell its commit, but is not")
        path = there / f"{own}.json"
        before = read_published(path) if path.exists() else None
        told: dict[str, Any] = {"title": table.title or own, "commands": [], "tests": ""} | origin
        if before:  # a study does not tell its tests
            told |= {"title": before.title, "commands": before.commands}
            told["tests"] = origin.get("tests", before.tests)
        told |= {"title": title} if title else {}
        told |= {"commands": list(command)} if command else {}
        if not told["commands"]:
            raise ValueError(f"--command must say what makes {own}, which is new")
        yield Published(name=own, table=replace(table, name=own, title=told["title"]), **told)


Found = dict[str, tuple[Table, dict[str, Any]]]
"""Name -> a table, and where it comes from, as `Published` has it."""


def _studied(folder: Path, only: Sequence[str] | None) -> Found:
    """Returns those of a study's tables that are asked for."""
    made, tables = read_tables(folder / FILE)
    unknown = [key for key in only or () if key not in tables]
    if unknown:
        raise KeyError(f"there is no table {unknown[0]!r} in {folder}: {', '.join(tables)}")
    made_by = made["made_by"]
    origin = {"commit": made_by["commit"], "date": made["date"], "machine": made_by["machine"]}
    origin["versions"] = _versions(made_by)
    return {key: (tables[key], origin) for key in only or tables}


def _compared(folder: Path, only: Sequence[str] | None) -> Found:
    """Returns those of a comparison's tables that are asked for, by default that of its scores."""
    content = read_json(folder / "results.json")
    if content["failures"]:
        raise ValueError(f"{len(content['failures'])} runs of {folder} failed; run it again")
    if "scores" not in content:
        raise ValueError(f"{folder} is of an earlier version; run its command again")
    scores = [Score(**score) for score in content["scores"]]
    runs, baseline, share = content["runs"], content["baseline"], content["test_share"]
    rows = make_rows(runs, scores, baseline=baseline, test_share=share)
    tables = {SCORES: of_rows(SCORES, rows, scores, baseline, title=content["title"])}
    if robust := content.get("robustness"):
        title = f"{content['title']}: robustness"
        tables[ROBUSTNESS] = of_robust(ROBUSTNESS, robust, scores[0], baseline, title=title)
    if found := content.get("diagnoses"):
        title = f"{content['title']}: what modalities bring"
        tables[DIAGNOSES] = of_diagnosed(DIAGNOSES, found, scores[0], title=title)
    unknown = [key for key in only or () if key not in tables]
    if unknown:
        raise KeyError(f"there is no table {unknown[0]!r} in {folder}: {', '.join(tables)}")
    made_by = runs[0]["made_by"]
    origin = _places(runs) | {"versions": _versions(made_by), "machine": _machine(made_by)}
    origin["tests"] = _tests(baseline, share, min(row.runs for row in rows))
    return {key: (tables[key], origin) for key in only or [SCORES]}


def _places(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns commit and date of most methods, and of those whose oldest run has others."""
    found: dict[str, list[tuple[str, str]]] = {}
    for run in runs:
        found.setdefault(run["method"], []).append((run["date"], run["made_by"]["commit"]))
    oldest = {method: min(own, key=lambda place: place[0]) for method, own in found.items()}
    (date, commit), _ = Counter(oldest.values()).most_common(1)[0]
    others = {m: (c, d) for m, (d, c) in oldest.items() if (d, c) != (date, commit)}
    return {"commit": commit, "date": date, "rows": others}


def _versions(made_by: Mapping[str, Any]) -> dict[str, str]:
    return {"deq-fusion": __version__, "torch": made_by["torch"], "Python": made_by["python"]}


def _machine(made_by: Mapping[str, Any]) -> str:
    threads = made_by["threads"]
    many = "one thread" if threads == 1 else f"{threads} threads"
    where = "" if made_by["device"] == "cpu" else f", on {made_by['device']}"
    return f"{many} of a CPU ({made_by['machine']}, {made_by['cpu_capability']}){where}"


def _tests(baseline: str | None, test_share: float | None, runs: int) -> str:
    if baseline is None:
        return ""
    if runs < MIN_RUNS:
        return (
            f"95 % intervals of the paired difference from {baseline}; fewer than {MIN_RUNS} runs "
            "get no p-value"
        )
    fresh = "" if test_share is None else "resampling (Nadeau and Bengio, 2003) and "
    return (
        f"paired t-test against {baseline}, corrected for {fresh}the number of comparisons "
        "(Holm, 1979)"
    )


def with_rows_of(found: Published, before: Published) -> Published:
    """Returns a table with the rows of an earlier one that it lacks, which keep their origin."""
    lacking, names = _lacking(found, before), [column.name for column in found.table.columns]
    at = {column.name: i for i, column in enumerate(before.table.columns)}
    kept = [
        (name, [row[at[column]] if column in at else None for column in names])
        for name, row in zip(before.table.row_names, before.table.rows, strict=True)
        if name in lacking
    ]
    origins = {name: before.rows.get(name, (before.commit, before.date)) for name, _ in kept}
    others = {n: place for n, place in origins.items() if place != (found.commit, found.date)}
    rows = [*found.table.rows, *(row for _, row in kept)]
    return replace(
        found,
        table=replace(found.table, rows=rows),
        rows={**found.rows, **others},
        commands=list(dict.fromkeys([*before.commands, *found.commands])),
    )


if __name__ == "__main__":
    main()
