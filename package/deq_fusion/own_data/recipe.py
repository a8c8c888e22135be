"""One's own data as the recipe of a comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import loguniform
from torch import nn
from torch.utils.data import DataLoader

from deq_fusion.examples.noise import vectors_or_sequences
from deq_fusion.training_structures.comparison import Fusion, Recipe, Score

from ..columns import unseen_words
from ..network import build_network
from ..target import Target
from ..training import DEFAULTS, FUSION_OPTIONS, SETTINGS, Training
from . import floors, refusals
from .alone import Alone, described, telling
from .data import Data, load
from .join import Joined, join, names_in
from .keys import as_text
from .refit import refit
from .splits import FEW, Splits
from .tables import READERS, View, split_path, words_of

SHOWN = 8  # columns that a sentence names
SCORED_CLASSES = 10  # at most, that have a column each in tables


@dataclass(frozen=True)
class OwnData:
    """One's own data as they were understood, with the recipe made of them.

    Attributes:
        recipe: what a comparison takes.
        target: what is predicted.
        runs: how many runs there are by default.
        said: sentences on rows, target, splits and, the last, on training; what was warned of
            besides is in `recipe.about`.
        training: width, learning rate and so on.
        balanced: whether every class counts the same in the loss.
    """

    recipe: Recipe = field(repr=False)
    target: Target
    runs: int
    said: tuple[str, ...]
    training: Training = field(repr=False)
    balanced: bool = False

    def bounded(self, epochs: int | None) -> "OwnData":
        """Returns it with other epochs at most, in the comparison and when the best is refitted;
        None: as it is."""
        if epochs is None:
            return self
        training = replace(self.training, epochs=epochs)
        told, refit = training.described, partial(self.recipe.refit, epochs=epochs)
        about = (*self.recipe.about[:-1], told)
        recipe = replace(self.recipe, epochs=epochs, refit=refit, about=about)
        return replace(self, recipe=recipe, said=(*self.said[:-1], told), training=training)


def own_data(
    tables: Mapping[str, Any],
    y: Any,
    *,
    groups: Any = None,
    task: str | None = None,
    test: tuple[Mapping[str, Any], Any] | None = None,
    folds: int | None = None,
    class_weight: str | None = None,
    sample_weight: Any = None,
    encoders: Mapping[str, nn.Module] | None = None,
    id: str | None = None,
    drop: Sequence[str] = (),
    allow: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> OwnData:
    """Reads and joins one's own data, and returns what was understood, with the recipe.

    Args:
        tables: modality -> its rows: an array (rows, columns), or (rows, time, columns) of
            sequences; a frame of pandas or polars; or a file, csv, tsv, parquet, npy or npz.
        y: the target: values, (rows,) or (rows, labels); or a name, a column of the tables,
            `FILE:column`, or a file of one column. A frame may hold the id beside it, and a series
            have the ids for an index; what has neither is in the tables' order.
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
        settings: width, dropout, lr, weight_decay, batch_size or patience -> its value, in place
            of the default, see `training.Training`.

    Raises:
        ValueError: for data that no comparison can be made of, in a sentence.
        FileNotFoundError: for a file that is not there.
    """
    settings = _checked(settings)
    training = replace(DEFAULTS, **settings)
    _check_options(tables, class_weight, encoders, test, folds)
    named = {"groups": groups, "weights": sample_weight, "id": id, "drop": drop}
    joined, left_out = _without_names(join(tables, y, **named))
    target = Target.of(joined.target, task)
    truth = target.encode(joined.target).numpy()
    refusals.check_rows(target, truth)
    if class_weight is not None and target.task != "classification":
        raise ValueError(f"class_weight must be left out of {target.task}, which has no classes")
    told = telling(joined.views, truth, target.task, joined.groups)
    warned = _warned_of(joined, told, allow)
    splits = _splits(joined, target, truth, folds=folds, official=test is not None)
    data = _data(joined, truth, splits, class_weight is not None)
    said = [*joined.said, target.described]
    if test is not None:
        drop = [*drop, *left_out]
        columns = {w: named[w] if _is_column(named[w]) else None for w in ("groups", "weights")}
        held = _like(joined, join(*test, **columns, id=id, drop=drop))
        held_truth = target.encode(held.target).numpy()
        data = _told_alike(data, _data(held, held_truth, splits, False))
        said += [f"test set: {text}" for text in (*held.said, *_unseen(joined.views, held.views))]
    said += [*_how(data), *described(told), training.described]
    recipe = _recipe(data, target, dict(encoders or {}), settings)
    recipe = replace(recipe, about=(*warned, *said))
    return OwnData(recipe, target, splits.runs, tuple(said), training, data.balanced)


def build(
    target: Target,
    encoders: Mapping[str, nn.Module],
    fusion: Fusion,
    train: DataLoader,
    **sizes: Any,
) -> nn.Module:
    """Returns an encoder for each modality, the fusion, and a linear head if it needs one; `sizes`
    are the width and dropout of `build_network`."""
    *inputs, truth = train.dataset.tensors
    names = train.dataset.modalities
    return build_network(
        fusion,
        [tuple(view.shape[1:]) for view in inputs[: len(names)]],
        target.outputs,
        encoders=[encoders.get(name) for name in names],
        units=target.units(truth),
        **sizes,
    )


def _checked(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the settings, once they are known to be some."""
    wrong = [name for name in settings or {} if name not in SETTINGS]
    if wrong:
        raise ValueError(
            f"settings must be some of {', '.join(SETTINGS)}, got {wrong[0]!r} (epochs are an "
            "argument of their own)"
        )
    return dict(settings or {})


def _warned_of(joined: Joined, told: Sequence[Alone], allow: Sequence[str]) -> list[str]:
    """Warns of columns that spoil a comparison, and returns what was said."""
    views = _not_in(joined.views, allow)
    beside = {name: values for name, values in joined.beside.items() if name not in allow}
    return [
        *refusals.warn_of_leaks(told, allow),
        *refusals.warn_of_groups(views, beside, joined.groups),
        *refusals.warn_of_constants(joined.views),
    ]


def _recipe(
    data: Data, target: Target, encoders: dict[str, nn.Module], settings: Mapping[str, Any]
) -> Recipe:
    training = replace(DEFAULTS, **settings)
    sizes = {name: settings[name] for name in ("width", "dropout") if name in settings}
    batches = {name: settings[name] for name in ("batch_size",) if name in settings}
    classes = [] if target.classes is None else target.classes.tolist()
    each = [Score(f"recall {name}") for name in classes if len(classes) <= SCORED_CLASSES]
    plain = "most frequent" if target.task == "classification" else "mean"
    shape = target.task, target.outputs
    return Recipe(
        name=f"own data: {', '.join(data.views)}",
        modalities=tuple(data.views),
        load=partial(load, data, **batches),
        build=partial(build, target, encoders, **sizes),
        objective=target.objective,
        metrics=target.metrics,
        scores=[*target.scores, *each],
        epochs=training.epochs,
        task=target.task,
        patience=training.patience,
        optimizer=training.optimizer,
        resplit=not data.splits.official,
        fusion_options=FUSION_OPTIONS,
        search={"lr": loguniform(3e-4, 1e-2), "weight_decay": (1e-3, 1e-2, 1e-1)},
        refit=partial(refit, data, target, encoders, **settings),
        noise=dict.fromkeys(data.views, vectors_or_sequences),
        floors={plain: partial(floors.constant, *shape), "linear": partial(floors.linear, *shape)},
    )


def _splits(
    joined: Joined, target: Target, truth: np.ndarray, *, folds: int | None, official: bool
) -> Splits:
    classes = None
    if target.task == "classification":
        classes = target.classes[truth].astype(str)
    groups = joined.groups
    if folds is not None:
        refusals.check_folds(folds, len(truth), classes)
    if groups is not None:
        refusals.check_groups(groups, classes, folds)
        groups = as_text(pd.Index(groups)).to_numpy(str)
    return Splits(len(truth), classes, groups, folds, official)


def _data(joined: Joined, truth: np.ndarray, splits: Splits, balanced: bool) -> Data:
    present = None if joined.present.all() else joined.present
    weight = None if joined.weights is None else refusals.check_weights(joined.weights)
    return Data(joined.views, present, truth, weight, balanced, splits)


def _not_in(views: Mapping[str, View], columns: Sequence[str]) -> dict[str, View]:
    """Returns the tables without some columns, where they have them."""
    return {
        name: view.drop(columns=list(columns), errors="ignore")
        if isinstance(view, pd.DataFrame)
        else view
        for name, view in views.items()
    }


def _without_names(joined: Joined) -> tuple[Joined, list[str]]:
    """Returns the rows without the columns that only name them, and these columns."""
    columns = names_in(joined.views)
    views = _not_in(joined.views, columns)
    for name, view in views.items():
        if 0 in view.shape:
            raise ValueError(
                f"table {name} must have a column that is a feature, but has words alone that "
                f"differ in most rows ({', '.join(columns)}); leave it out, or name the id"
            )
    said = []
    if columns:
        plural = "s" * (len(columns) > 1)
        out = "are left out: their words differ in most rows" if plural else ""
        out = out or "is left out: its words differ in most rows"
        said.append(f"column{plural} {_some(columns)} {out}")
    for table, view in views.items():
        if counts := [f"{column} ({view[column].nunique()})" for column in words_of(view)]:
            said.append(f"words of {table}, a column for each: {_some(counts)}")
    return replace(joined, views=views, said=(*joined.said, *said)), columns


def _unseen(known: Mapping[str, View], held: Mapping[str, View]) -> list[str]:
    """Returns sentences on the words of a test set that no other row has."""
    said = []
    for name, view in known.items():
        for column in words_of(view):
            cells = held[name][column].dropna()
            new = cells[~cells.isin(view[column])]
            said += [unseen_words(column, name, new.unique(), len(new))] if len(new) else []
    return said


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _is_column(given: Any) -> bool:
    """Says whether something told of the rows is named as a column of the tables."""
    return isinstance(given, str) and split_path(given)[0].suffix.lower() not in READERS


def _told_alike(data: Data, test: Data) -> Data:
    """Returns the data with a test set; both tell of presence and weight where one does."""
    if data.present is not None or test.present is not None:
        parts = []
        for part in (data, test):
            full = np.ones((len(part.truth), len(part.views)), bool)
            parts.append(replace(part, present=full if part.present is None else part.present))
        data, test = parts
    if data.weight is not None or data.balanced:  # of which a score takes no notice
        test = replace(test, weight=np.ones(len(test.truth)))
    return replace(data, test=test)


def _check_options(tables: Any, class_weight: Any, encoders: Any, test: Any, folds: Any) -> None:
    if class_weight not in (None, "balanced"):
        raise ValueError(f'class_weight must be "balanced" or None, got {class_weight!r}')
    unknown = [name for name in encoders or {} if name not in tables]
    if unknown:
        raise ValueError(f"encoders must be of tables in {list(tables)}, got {unknown[0]!r}")
    if test is not None and folds is not None:
        raise ValueError("folds make the test part from all rows: leave it out, or test")
    if test is not None and not (isinstance(test, tuple) and len(test) == 2):
        raise ValueError(f"test must be a pair (tables, y), got {type(test).__name__}")
    if test is not None and set(test[0]) != set(tables):
        raise ValueError(
            f"the test set must have the tables {sorted(tables)}, got {sorted(test[0])}"
        )


def _like(train: Joined, test: Joined) -> Joined:
    """Returns the test set, its columns in train's order, once it is known to have the same
    columns, and other rows and groups."""
    _check_columns(train, test)
    _check_apart(train, test)
    views = {
        name: view[train.views[name].columns] if isinstance(view, pd.DataFrame) else view
        for name, view in test.views.items()
    }
    return replace(test, views=views)


def _check_columns(train: Joined, test: Joined) -> None:
    """Raises ValueError unless a test set's tables have the columns of train's."""
    for name, view in train.views.items():
        mine, theirs = _columns(view), _columns(test.views[name])
        if mine != theirs:
            alike = type(view) is type(test.views[name]) is pd.DataFrame
            differ = sorted(set(mine) ^ set(theirs))[:5] if alike else [f"{theirs}, not {mine}"]
            raise ValueError(
                f"the test set's {name} must have the columns of the other rows, but they differ: "
                f"{', '.join(differ)}; leave them out, or add them"
            )


def _check_apart(train: Joined, test: Joined) -> None:
    """Raises ValueError if a test set shares rows or groups with train."""
    pairs = ("id", train.names, test.names), ("group", train.groups, test.groups)
    for what, mine, theirs in pairs:
        if mine is None or theirs is None:
            continue
        known, held = (as_text(pd.Index(names)).unique() for names in (mine, theirs))
        both = known.intersection(held)
        if len(both):
            raise ValueError(
                f"the test set must have other rows, but {len(both)} of its {what}s are among the "
                f"others, such as {both[0]}; leave them out of one of the two"
            )


def _columns(view: View) -> list[Any]:
    return list(view.shape[1:]) if isinstance(view, np.ndarray) else sorted(view.columns)


def _how(data: Data) -> list[str]:
    """Returns sentences on splits and weights."""
    splits = data.splits
    kept = "stratified by class" if splits.classes is not None else "at random"
    groups = 0 if splits.groups is None else len(np.unique(splits.groups))
    kept += f", no one of {groups} groups in two parts" if groups else ""
    if splits.folds is not None:
        said = [f"{splits.folds} folds, {kept}; in each, valid is cut from what is not tested"]
    elif splits.official:
        said = [f"a test set of its own; every run cuts train and valid, 80/20, {kept}"]
    else:
        about = "as near to 60/20/20 as groups go" if groups else "60/20/20"
        said = [f"every run is a fresh split, {about}, {kept}"]
    if 0 < groups < FEW:
        said += [
            f"there are only {groups} groups, of which runs share most: intervals and p-values "
            "promise too much of groups that are not here"
        ]
    said += ["classes weigh the same in the loss"] * data.balanced
    weighted = data.weight is not None
    return said + ["weights count in the loss, and not in the scores"] * weighted
