"""The arguments of own data on a command line, apart from what carries them out."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deq_fusion.examples.compare_fusions import PROGRAM, USUAL
from deq_fusion.training_structures.choices import TASKS
from deq_fusion.training_structures.comparison.program.arguments import (
    add_fusions,
    add_how,
    add_judged,
    count,
)
from deq_fusion.training_structures.comparison.program.settings import add_settings

DESCRIPTION = """\
Compares fusions on data of your own, with floors and every single modality, under one protocol:
fresh splits, selection on validation data, the test part read once. A table is a file (csv, tsv,
parquet, npy or npz) with a row a sample. Rows are joined by --id, else by the column of words that
differ in every row and that all tables share, else in order; what was understood is said before
anything is trained. The answer is a table on the terminal, and in the output folder
results.html (with pictures), .md, .csv and .json, data.md and confusion.csv."""
SET = "width=64, dropout=0.2, lr=0.002, weight_decay=0.01, batch_size=64, patience=20"
EPILOG = """\
Two files whose rows a column sample names, and no patient in two parts:
  {program} --table rna=rna.csv --table image=image.csv \\
      --target labels.csv:subtype --id sample --group patient"""


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage="%(prog)s --table NAME=FILE [--table NAME=FILE ...] --target FILE:COLUMN [options]",
        description=DESCRIPTION,
        epilog=EPILOG.format(program=PROGRAM),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data(parser.add_argument_group("the data"))
    group = parser.add_argument_group("what to compare")
    add_fusions(group, USUAL)
    add_settings(group, SET, "every network and its training")
    add_judged(parser)
    add_how(parser)
    return parser


def add_data(group: argparse._ActionsContainer) -> None:
    """Adds the arguments that name tables, target and splits."""
    add = group.add_argument
    table: dict[str, Any] = {"type": named_file, "action": "append", "metavar": "NAME=FILE"}
    add(
        "--table",
        dest="tables",
        required=True,
        help="a modality; may be given several times",
        **table,
    )
    add(
        "--target",
        required=True,
        metavar="FILE:COLUMN",
        help="what to predict; also FILE, or COLUMN of a table; A,B of 0 and 1: several labels",
    )
    add(
        "--id",
        metavar="COLUMN",
        help="names the rows, in every table and the target's file; of an npz file the array of "
        "that name",
    )
    add(
        "--group",
        metavar="COLUMN",
        help="rows of one group, such as a patient or a hospital, are never in two parts; of the "
        "target's file or a table, or FILE:COLUMN",
    )
    add("--task", choices=TASKS, help="where the target leaves it open")
    add("--test-table", dest="test_tables", default=[], help="of a test set of its own", **table)
    add("--test-target", metavar="FILE:COLUMN", help="of the test set")
    add(
        "--folds",
        type=count,
        metavar="K",
        help="cross-validation: each run tests one of K folds; the epoch, and what --search tries, "
        "is chosen on a valid part that is cut once from the other folds",
    )
    add("--weights", metavar="COLUMN", help="what each row counts in the loss; also FILE:COLUMN")
    add("--class-weight", choices=["balanced"], help="every class counts the same in the loss")
    several: dict[str, Any] = {"action": "append", "default": [], "metavar": "COLUMN"}
    add("--save", type=Path, metavar="MODEL", help="file to save the best fusion in, fitted again")
    add("--drop", help="a column that is no feature; may be given several times", **several)
    add("--allow", help="a column that may predict the target alone, or names no groups", **several)


def named_file(text: str) -> tuple[str, str]:
    """Returns the name and the file that `NAME=FILE` says."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"must be NAME=FILE, as rna=rna.csv, got {text!r}")
    return name, path


def as_tables(flag: str, pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Returns name -> file, of what `named_file` made of a flag that is given several times."""
    tables = dict(pairs)
    if len(tables) < len(pairs):
        raise ValueError(
            f"{flag} must give every table a name of its own, got {[n for n, _ in pairs]}"
        )
    return tables
