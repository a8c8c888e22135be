"""Fusions compared on one's own data, in one call."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

from torch import nn

from deq_fusion.training_structures.comparison import Comparison, Fusion
from deq_fusion.training_structures.comparison import compare as compare_fusions
from deq_fusion.training_structures.comparison.report.text import printable

from ..comparing import named
from . import confusion
from .recipe import OwnData, own_data


def compare_data(
    tables: Mapping[str, Any],
    y: Any,
    fusions: Iterable[str | Fusion] | Mapping[str, Fusion] | None = None,
    *,
    groups: Any = None,
    runs: int | Sequence[int] | None = None,
    seed: int = 0,
    task: str | None = None,
    test: tuple[Mapping[str, Any], Any] | None = None,
    folds: int | None = None,
    class_weight: str | None = None,
    sample_weight: Any = None,
    encoders: Mapping[str, nn.Module] | None = None,
    id: str | None = None,
    drop: Sequence[str] = (),
    allow: Sequence[str] = (),
    epochs: int | None = None,
    settings: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    progress: bool = True,
    **how: Any,
) -> Comparison:
    """Compares fusions on one's own data, with floors and every single modality.

        compare_data({"rna": X1, "image": X2}, y, ["deq", "concat"], groups=patient)

    Args:
        tables: modality -> its rows: an array (rows, columns), or (rows, time, columns) of
            sequences; a frame of pandas or polars; or a file, csv, tsv, parquet, npy or npz.
        y: the target: values, (rows,) or (rows, labels); or a name, a column of the tables,
            `FILE:column`, or a file of one column. A frame may hold the id beside it, and a series
            have the ids for an index; what has neither is in the tables' order.
        fusions: names in the registry, and classes or functions of one's own; or name -> fusion;
            None: all of the registry that can take the data.
        groups: values or a column's name: rows of one group are never in two parts. Given as y
            is; without ids in the order of y.
        task: "classification", "multilabel" or "regression", where y leaves it open.
        test: (tables, y) of a test set of its own; train and valid are then cut from the rest.
        folds: K: cross-validation; each run tests one of K folds. The epoch, and what a search
            tries, is chosen on a valid part that is cut once from the other folds.
        class_weight: "balanced": every class counts the same in the loss.
        sample_weight: values or a column's name: what each row counts in the loss; scores count
            every row once. Given as `groups` are.
        encoders: modality -> module (batch, d) or (batch, time, d) -> (batch, width), in place of
            the MLP or GRU.
        id: column or index that names rows, by which they are joined.
        drop: columns that are no features.
        allow: columns that may predict the target on their own, or that name no groups.
        runs: how many, or their numbers. By default 20 fresh splits under 1,000 rows, else 5; a
            fold each if `folds`; with a test set 10, or 5.
        seed: number of the first run, where `runs` does not list them; if `folds`, of the first
            repetition.
        epochs: at most, in place of the default.
        settings: width, dropout, lr, weight_decay, batch_size or patience -> its value, in place
            of the default, see `training.Training`; of every network alike.
        output: folder of the results; finished runs there are used again.
        progress: whether what was understood is said, and progress shown, on stderr.
        **how: baseline, metric, unimodal, trials, drop_modality, robustness, diagnose,
            double_epochs, jobs, threads and device, see `comparison.compare`.

    Returns:
        The comparison. In the output folder are its report, too, data.md (what was understood,
        and confusion matrices) and confusion.csv.

    Raises:
        ValueError: for data that no comparison can be made of, in a sentence.
        FileNotFoundError: for a file that is not there.
    """
    _check_names(how)
    chosen = named(fusions)
    data = {"groups": groups, "task": task, "test": test, "folds": folds}
    data |= {"class_weight": class_weight, "sample_weight": sample_weight, "encoders": encoders}
    data |= {"id": id, "drop": drop, "allow": allow, "settings": settings}
    own = own_data(tables, y, **data).bounded(epochs)
    if runs is None or isinstance(runs, int):
        first = seed * (folds or 1)  # folds are tested all, or rows would count unequally
        runs = range(first, first + (own.runs if runs is None else runs))
    return carried_out(own, chosen, runs, output=output, progress=progress, **how)


def _check_names(given: Mapping[str, Any]) -> None:
    known = [*signature(compare_data).parameters, *signature(compare_fusions).parameters]
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1, 0.5)
            advice = f"; did you mean {near[0]}?" if near else ""
            raise TypeError(f"compare_data has no argument {name}{advice}")


def carried_out(
    own: OwnData,
    fusions: Mapping[str, Fusion],
    runs: Sequence[int],
    *,
    output: str | Path | None,
    progress: bool = True,
    **how: Any,
) -> Comparison:
    """Says what was understood, compares, and writes the report where there is a folder for it."""
    if progress:
        print(*map(printable, own.said), sep="\n", file=sys.stderr, flush=True)
    found = compare_fusions(
        own.recipe,
        fusions,
        list(runs),
        output=output,
        subject="deq" if "deq" in fusions else None,
        analyse=confusion.count if own.target.task == "classification" else None,
        progress=progress,
        **how,
    )
    found = confusion.told(found, own)
    if output is not None and found.results:
        found.write(output)
        confusion.write(Path(output), found, own.target)
    return found
