"""The tables of the paper (Ni et al., 2023): its figures beside ours, on the data at hand."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from deq_fusion.examples.affect.recipe import FILES
from deq_fusion.examples.studies.output import Summary, write_all
from deq_fusion.examples.studies.paper_tables.ablations import ablated, converging
from deq_fusion.examples.studies.paper_tables.draw import draw
from deq_fusion.examples.studies.paper_tables.measure import measure
from deq_fusion.examples.studies.paper_tables.paper import TABLES
from deq_fusion.examples.studies.paper_tables.paper_of_deq import ABLATIONS, CONVERGENCE
from deq_fusion.examples.studies.paper_tables.rows import Row
from deq_fusion.examples.studies.paper_tables.summary import listing, summary
from deq_fusion.training_structures.comparison.program.arguments import add_how, words
from deq_fusion.training_structures.comparison.program.program import exit_if_failed
from deq_fusion.training_structures.comparison.program.settings import add_settings
from deq_fusion.training_structures.comparison.program.terminal import on_terminal

PROGRAM = "python -m deq_fusion.examples.studies.paper_tables"
DESCRIPTION = f"""{__doc__}

--table 1  BRCA         2  MM-IMDB         3  CMU-MOSI         4  VQA-v2
--table 5  and 6 parts of DEQ fusion on BRCA, 7 on MM-IMDB and CMU-MOSI, 8 its convergence

Tables 1 to 4 compare systems: every row is trained under the protocol of deq-fusion compare, on
the data of --data-dir, in a comparison for each group of rows that share a host, which goes on
where it stopped when the same command is given again. With --published tables 1 and 4 also have
ours by the paper's protocol: the epoch is selected by the test part, and the numbers say so.
Tables 5 to 7 are rows of studies.ablation, and 8 is of studies.convergence. The output folder
gets table_<N>.md, tables.json (to publish), and a picture."""
CONVERGENCE_TABLE = 8
NUMBERS = sorted([*TABLES, *ABLATIONS, CONVERGENCE_TABLE])
HOLDS: Mapping[str, Sequence[str]] = {  # dataset -> files of which its folder holds one
    "brca": ("labels_tr.csv",),
    "imdb": ("multimodal_imdb.hdf5", "split.json"),
    "mosi": (*FILES, "MOSI_cmu_audio_CLS.pickle"),
}


@on_terminal()
def main(argv: Sequence[str] | None = None) -> Summary | None:
    """Carries out a table; returns it, or None if nothing but the list of rows was asked for."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.list:
        print(listing(TABLES))
        return None
    _check(parser, args)
    data = "-".join(folder.name for folder in args.data_dir)
    args.output = args.output or Path("results", f"{data}-paper-table-{args.table}")
    command = [*PROGRAM.split(), *argv]
    if args.table in TABLES:
        found, comparisons = _systems(parser, args, [PROGRAM, *argv])
    else:
        folders = _folders(parser, args)
        carried = (
            converging(folders, args) if args.table == 8 else ablated(args.table, folders, args)
        )
        found, comparisons = carried[0], [c for each in carried[1].values() for c in each.values()]
    pictures = draw(found.tables[0]) if args.table != CONVERGENCE_TABLE else {}
    how = {"command": command, "threads": args.threads, "device": args.device}
    there = write_all(args.output, f"table_{args.table}", found, pictures, **how)
    print(f"\n{found}\n\n{_protocol(args.table)}{there}; every run in folders")
    exit_if_failed(*comparisons)
    return found


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the arguments."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage="%(prog)s --table N --data-dir DIR [options]",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("what to compare").add_argument
    says = "show every row of tables 1 to 4, and the module or host behind it, and stop"
    add("--list", action="store_true", help=says)
    add("--table", type=int, choices=NUMBERS, metavar="N", help=f"{NUMBERS[0]} to {NUMBERS[-1]}")
    add(
        "--data-dir",
        type=Path,
        action="append",
        metavar="DIR",
        help="folder of the data; of tables 7 and 8 one a set, of those that are at hand",
    )
    add(
        "--rows",
        type=words,
        metavar="A,B",
        help="of tables 1 to 4: labels of the paper's rows, or names of methods; by default all",
    )
    says = "of tables 1 and 4: ours by the paper's protocol too, whose epoch is selected on test"
    add("--published", action="store_true", help=says)
    add_settings(parser, "deq-fusion compare --dataset NAME --help")
    add_how(parser)
    return parser


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends with a message where arguments make no sense together."""
    if args.table is None:
        parser.error(f"--table must be a number of the paper, {NUMBERS[0]} to {NUMBERS[-1]}")
    if not args.data_dir:
        parser.error("--data-dir must name the folder of the data")
    table = TABLES.get(args.table)
    if args.table in (1, 2, 3, 4, 5, 6) and len(args.data_dir) > 1:
        parser.error(f"table {args.table} is of one set: give one --data-dir")
    if args.published and (table is None or not table.on_test):
        said = "it has no other protocol here" if table is None else table.protocol
        parser.error(f"--published is of tables 1 and 4, whose epochs are selected on test: {said}")
    fixed = {key for group in (table.groups.values() if table else ()) for key in group.settings}
    for key, _ in args.settings:
        if key in fixed:
            parser.error(f"--set {key}: the rows of table {args.table} say it, so leave it out")
    if args.rows and table is None:
        parser.error(f"--rows is of tables 1 to 4; table {args.table} is measured whole")


def _systems(
    parser: argparse.ArgumentParser, args: argparse.Namespace, command: Sequence[str]
) -> tuple[Summary, list]:
    """Carries out one of the tables 1 to 4; returns what it found, and the comparisons."""
    table = TABLES[args.table]
    rows = wanted(parser, table.rows, args.rows)
    honest = measure(table, rows, parser, args, command)
    published = None
    if args.published:
        published = measure(table, rows, parser, args, command, published=True)
    every = [found.comparison for each in (honest, published or {}) for found in each.values()]
    found = summary(args.table, table, rows, honest, published)
    return found, [comparison for comparison in every if comparison is not None]


def wanted(
    parser: argparse.ArgumentParser, rows: Sequence[Row], asked: Sequence[str] | None
) -> list[Row]:
    """Returns the rows that are asked for by their labels, or with those of their methods that are
    asked for; of `None` all."""
    if asked is None:
        return list(rows)
    for name in asked:
        if not any(name in (row.label, *row.methods) for row in rows):
            known = list(dict.fromkeys(m for row in rows for m in row.methods))
            parser.error(f"argument --rows: unknown {name!r}; choose from {', '.join(known)}")
    found = []
    for row in rows:
        own = tuple(method for method in row.methods if method in asked)
        if row.label in asked or own:
            found.append(row if row.label in asked else replace(row, methods=own))
    return found


def _folders(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, str]:
    """Returns dataset -> folder of the table's sets that are at hand, as their files tell."""
    sets = CONVERGENCE if args.table == CONVERGENCE_TABLE else ABLATIONS[args.table].scores
    found: dict[str, str] = {}
    for folder in args.data_dir:
        kinds = [name for name in sets if any((folder / file).is_file() for file in HOLDS[name])]
        if not kinds or kinds[0] in found:
            files = "; ".join(f"{name}: {', '.join(HOLDS[name])}" for name in sets)
            parser.error(
                f"--data-dir must be the folder of a set of table {args.table}, one of each, which "
                f"holds a file of these, got {folder}: {files}"
            )
        found[kinds[0]] = str(folder)
    return found


def _protocol(number: int) -> str:
    return f"The paper's: {TABLES[number].protocol}.\n\n" if number in TABLES else ""


if __name__ == "__main__":
    main()
