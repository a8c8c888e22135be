"""The command line of own data: `deq-fusion compare --table NAME=FILE --target FILE:COLUMN`."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison import Comparison
from deq_fusion.training_structures.comparison.lock import check_free
from deq_fusion.training_structures.comparison.methods import FLOOR
from deq_fusion.training_structures.comparison.program.arguments import chosen_fusions
from deq_fusion.training_structures.comparison.program.program import (
    asked_kind,
    carry_out,
    exit_if_failed,
)
from deq_fusion.training_structures.comparison.program.terminal import on_terminal
from deq_fusion.training_structures.comparison.report.choice import too_few
from deq_fusion.training_structures.comparison.report.text import printable

from ..export import solves
from . import confusion
from .arguments import PROGRAM, as_tables, make_parser
from .recipe import OwnData, own_data


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
    classes = own.target.task == "classification"
    found = carry_out(
        parser,
        _as_of_a_benchmark(args, own),
        command=[PROGRAM, *argv],
        subject="deq",
        analyse=confusion.count if classes else None,
        finish=partial(confusion.told, own=own),
    )
    confusion.write(args.output, found, own.target)
    more = ", and which classes were taken for which" * classes
    print(f"What to know about these data{more}: {args.output / 'data.md'}")
    if args.save is not None:
        _save(found, args.save)
    exit_if_failed(found)
    return found


def _own_data(args: argparse.Namespace) -> OwnData:
    """Returns what the files hold.

    Raises:
        ValueError: for arguments and data that make no sense.
        FileNotFoundError: for a file that is not there.
    """
    test = None
    if args.test_tables or args.test_target:
        if not (args.test_tables and args.test_target):
            raise ValueError("a test set needs --test-table NAME=FILE and --test-target, got one")
        test = as_tables("--test-table", args.test_tables), args.test_target
    return own_data(
        as_tables("--table", args.tables),
        args.target,
        groups=args.group,
        task=args.task,
        test=test,
        folds=args.folds,
        class_weight=args.class_weight,
        sample_weight=args.weights,
        id=args.id,
        drop=args.drop,
        allow=args.allow,
        settings=dict(args.settings),
    )


def _as_of_a_benchmark(args: argparse.Namespace, own: OwnData) -> argparse.Namespace:
    """Returns the arguments as they would be of a benchmark, whose recipe is there already."""

    def recipe(data_dir: None = None):
        return own.recipe

    benchmark: dict[str, Any] = {"recipe": recipe, "data_dir": None, "official": False}
    benchmark |= {"settings": []}  # which are in the recipe already
    benchmark |= {"modalities": None, "runs": args.runs or own.runs}
    return argparse.Namespace(**{**vars(args), **benchmark})


def _save(found: Comparison, path: Path) -> None:
    """Fits the method that is best on validation data on all rows, and writes it."""
    try:
        best = found.best()
        model = best.refit()
        model.save(path)
    except ValueError as error:
        raise SystemExit(f"no model is saved: {printable(str(error))}") from None
    first, few = found.table()[0], too_few(found)
    if first.kind == FLOOR:
        print(f"{first.method}, which scores best, is a floor and keeps no model. ", end="")
    print(
        f"{best.name}, the best on validation data, is fitted on all rows and saved in {path}"
        + f"; but {few}" * bool(few)
    )
    if solves(model.network_):
        print(
            "It solves for an equilibrium, which deq-fusion export cannot take; for a model to "
            f"export compare with --option {best.name}.unroll=6, or with --fusions deq_unrolled"
        )


def _folder(args: argparse.Namespace) -> Path:
    """Returns the folder of results where none is given: one for each kind of comparison."""
    kind = ["own", *dict(args.tables)]
    kind += [f"folds{args.folds}"] if args.folds else []
    kind += ["official"] if args.test_tables else []
    return Path("results", "-".join([*kind, *asked_kind(args)]))
