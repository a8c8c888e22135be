"""Saved models on a command line: `deq-fusion predict` for new rows, `deq-fusion export`.

deq-fusion predict MODEL --table rna=rna.csv --table image=image.npy --output predictions.csv
deq-fusion export MODEL model.onnx
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from deq_fusion.training_structures.comparison.program.arguments import imported

from .own_data.arguments import as_tables, named_file


def predict(argv: Sequence[str] | None = None) -> None:
    """Writes a model's predictions for the rows of tables; what it had to assume is said.

    Raises:
        SystemExit: with status 2 and one sentence, for what makes no sense.
    """
    parser = argparse.ArgumentParser(
        prog="deq-fusion predict",
        description="Predicts new rows with a saved model. Columns and tables that it does not "
        "know are ignored, and those that are missing filled in, as are modalities; all of it is "
        "said. Where any row needs it, a column lacks names the tables that the row lacks, and its "
        "words that were not there to learn from.",
    )
    parser.add_argument("model", metavar="MODEL", help="file that `save` wrote")
    parser.add_argument(
        "--table",
        dest="tables",
        type=named_file,
        action="append",
        required=True,
        metavar="NAME=FILE",
        help="a modality's rows: csv, tsv, parquet, npy or npz; may be given several times",
    )
    parser.add_argument("--id", metavar="COLUMN", help="column that names the rows in all tables")
    _add_own(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="csv file to write")
    args = parser.parse_args(argv)
    from deq_fusion.training_structures.files import write_bytes

    from .estimators import load
    from .own_data import predict_data

    try:
        model = load(args.model, fusion=args.own)
        frame = predict_data(model, as_tables("--table", args.tables), id=args.id)
        write_bytes(args.output, frame.to_csv(index_label=frame.index.name or "row").encode())
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{len(frame)} predictions in {args.output}")


def export(argv: Sequence[str] | None = None) -> None:
    """Exports a saved model as a program that needs no part of this library.

    Raises:
        SystemExit: with status 2 and one sentence, for what makes no sense.
    """
    parser = argparse.ArgumentParser(
        prog="deq-fusion export",
        description="Writes a saved model as a torch.export program (.pt2), or as ONNX (.onnx). An "
        "equilibrium has no such program: compare with --option deq.unroll=6, or --fusions "
        "deq_unrolled. Where a column is text, what goes in is what `preprocessed` of the model "
        "returns: deq_fusion.FusionClassifier.load(MODEL).preprocessed(tables).",
    )
    parser.add_argument("model", metavar="MODEL", help="file that `save` wrote")
    parser.add_argument("output", metavar="OUTPUT", help="file to write, .pt2 or .onnx")
    _add_own(parser)
    args = parser.parse_args(argv)
    from .estimators import load

    try:
        said = load(args.model, fusion=args.own).export(args.output)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{args.output} {said}")


def _add_own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--own-fusion",
        dest="own",
        type=_imported,
        metavar="MODULE:NAME",
        help="the fusion of the model, where it is one of your own",
    )


def _imported(text: str) -> Callable[..., Any]:
    return imported(text)[1]
