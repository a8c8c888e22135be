"""The command line of own data: `deq-fusion compare --table NAME=FILE --target FILE:COLUMN`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison import Comparison
from deq_fusion.training_structures.comparison.arguments import (
    add_fusions,
    add_how,
    add_judged,
    chosen_fusions,
    count,
)
from deq_fusion.training_structures.comparison.command_line import carry_out, exit_if_failed
from deq_fusion.training_structures.comparison.lock import check_free
from deq_fusion.training_structures.comparison.recipe import TASKS
from deq_fusion.training_structures.comparison.terminal import on_terminal
from deq_fusion.training_structures.comparison.text import printable

from . import confusion
from .recipe import OwnData, own_data
from .tables import READERS

PROGRAM = "deq-fusion compare"
DESCRIPTION = f"""\
Compares fusions on data of your own, with floors and every single modality, under one protocol:
fresh splits, selection on validation data, the test part read once. A table is a file
({", ".join(READERS)}) with a row a sample. Rows are joined by --id, else by the column of words
that differ in every row and that all tables share, else in order; what was understood is said
before anything is trained. The answer is a table on the terminal, and in the output folder
results.html (with pictures), .md, .csv and .json, data.md and confusion.csv."""
EPILOG = """\
Two files whose rows a column sample names, and no patient in two parts:
  {program} --table rna=rna.csv --table image=image.csv \\
      --target labels.csv:subtype --id sample --group patient"""


@on_terminal()
def main(argv: Sequence[str] | None = None) -> Comparison:
    """Compares what the arguments name, prints the result, and writes it.

    Raises:
        SystemExit: for arguments and data that make no sense, with a sentence; and after the
            results are written, if a run has failed.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = make_parser()
    args = parser.parse_args(argv)
    args.chosen = chosen_fusions(parser, args, FUSIONS)
    args.output = args.output or _folder(args)
    try:
        check_free(args.output)  # before data are read, which may take long
        own = _own_data(args).bounded(args.epochs)
    except (ValueError, OSError) as error:
        parser.error(printable(str(error), keep="\n"))
    print(*map(printable, own.said), sep="\n", file=sys.stderr, flush=True)
    found = carry_out(
        parser,
        _as_of_a_benchmark(args, own),
        command=[PROGRAM, *argv],
        subject="deq",
        analyse=confusion.count if own.target.task == "classification" else None,
    )
    confusion.write(args.output, found.results, own.target, own.said)
    if args.save is not None:
        _save(found, args.save)
    exit_if_failed(found)
    return found


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage="%(prog)s --table NAME=FILE [--table NAME=FILE ...] --target FILE:COLUMN [options]",
        description=DESCRIPTION,
        epilog=EPILOG.format(program=PROGRAM),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_data(parser.add_argument_group("the data").add_argument)
    add_fusions(parser.add_argument_group("what to compare"), FUSIONS)
    add_judged(parser)
    add_how(parser)
    return parser


def _add_data(add) -> None:
    table = {"type": _table, "action": "append", "metavar": "NAME=FILE"}
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
    add("--id", metavar="COLUMN", help="names the rows, in every table and the target's file")
    add(
        "--group",
        metavar="COLUMN",
        help="rows of one group are never in two parts; also FILE:COLUMN",
    )
    add("--task", choices=TASKS, help="where the target leaves it open")
    add("--test-table", dest="test_tables", default=[], help="of a test set of its own", **table)
    add("--test-target", metavar="FILE:COLUMN", help="of the test set")
    add(
        "--nested",
        type=count,
        metavar="K",
        help="cross-validation: each run tests one of K folds, and valid is cut inside",
    )
    add("--weights", metavar="COLUMN", help="what each row counts in the loss; also FILE:COLUMN")
    add("--class-weight", choices=["balanced"], help="every class counts the same in the loss")
    several = {"action": "append", "default": [], "metavar": "COLUMN"}
    add("--save", type=Path, metavar="MODEL", help="file to save the best fusion in, fitted again")
    add("--drop", help="a column that is no feature; may be given several times", **several)
    add("--allow", help="a column that may predict the target alone", **several)


def _table(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"must be NAME=FILE, as rna=rna.csv, got {text!r}")
    return name, path


def _own_data(args: argparse.Namespace) -> OwnData:
    """Returns what the files hold.

    Raises:
        ValueError, FileNotFoundError: for arguments and data that make no sense.
    """
    test = None
    if args.test_tables or args.test_target:
        if not (args.test_tables and args.test_target):
            raise ValueError("a test set needs --test-table NAME=FILE and --test-target, got one")
        test = _tables("--test-table", args.test_tables), args.test_target
    return own_data(
        _tables("--table", args.tables),
        args.target,
        groups=args.group,
        task=args.task,
        test=test,
        nested=args.nested,
        class_weight=args.class_weight,
        sample_weight=args.weights,
        id=args.id,
        drop=args.drop,
        allow=args.allow,
    )


def _tables(flag: str, pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    tables = dict(pairs)
    if len(tables) < len(pairs):
        raise ValueError(
            f"{flag} must give every table a name of its own, got {[n for n, _ in pairs]}"
        )
    return tables


def _as_of_a_benchmark(args: argparse.Namespace, own: OwnData) -> argparse.Namespace:
    """Returns the arguments as they would be of a benchmark, whose recipe is there already."""

    def recipe(data_dir: None = None):
        return own.recipe

    benchmark = {"recipe": recipe, "data_dir": None, "official": False, "settings": []}
    benchmark |= {"modalities": None, "runs": args.runs or own.runs}
    return argparse.Namespace(**{**vars(args), **benchmark})


def _save(found: Comparison, path: Path) -> None:
    """Fits the method that is best on validation data on all rows, and writes it."""
    try:
        best = found.best()
        best.refit().save(path)
    except ValueError as error:
        raise SystemExit(f"no model is saved: {printable(str(error))}") from None
    print(f"{best.name}, the best on validation data, is fitted on all rows and saved in {path}")


def _folder(args: argparse.Namespace) -> Path:
    """Returns the folder of results where none is given: one for each kind of comparison."""
    kind = ["own", *dict(args.tables)]
    kind += [f"nested{args.nested}"] if args.nested else []
    kind += ["official"] if args.test_tables else []
    kind += [args.part] if args.part != "test" else []
    kind += ["search"] if args.search > 1 else []
    kind += ["missing"] if args.drop_modality else []
    kind += [args.precision] if args.precision else []
    return Path("results", "-".join(kind))
