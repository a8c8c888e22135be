"""New rows in tables, predicted by a fitted estimator; what had to be assumed is said."""

import sys
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deq_fusion.training_structures.comparison.report.text import printable

from ..columns import present_rows
from ..estimators import load
from ..fusion_estimator import UnseenWords
from .keys import Key, check_order, choose_key
from .tables import Table, make_table

SHOWN = 5  # names that a message lists


def predicted(
    model: Any, files: Mapping[str, Any], *, id: str | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Returns predictions, a row for each row of the tables, and sentences on what was assumed.

    Args:
        model: a fitted estimator.
        files: modality -> a file, frame or array; a single one of any name for a model of one
            matrix.
        id: column that names the rows; None: what all tables share, or else their order.

    Raises:
        ValueError: for tables that the model does not know, or that have none of its columns.
    """
    matrix = model.picked_ is not None
    known = list(model.columns_)
    if matrix and len(files) != 1:
        raise ValueError(f"this model takes one table with all columns, got {list(files)}")
    taken, ignored = (files, []) if matrix else _taken(files, known)
    tables = [make_table(name, value, id=id) for name, value in taken.items()]
    views, names, said = _joined(tables, id, _known_columns(model))
    if names is not None and not matrix:
        others = {name: value for name, value in files.items() if name not in taken}
        views, names, more = _with_a_table(views, names, others)
        said += more
    said = [*ignored, *said]
    if matrix:
        (view,) = views.values()
        X, more = _fitting(view, "the table", _expected(model), model.n_features_in_)
        said += more
    else:
        X = dict.fromkeys(known)
        for name, view in views.items():
            columns = model.columns_[name]
            X[name], more = _fitting(view, name, columns.names, columns.width)
            said += more
        lacking = [name for name in known if name not in views]
        said += [f"{name} is given for no row, and counts as absent" for name in lacking]
    said += model.unseen(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnseenWords)  # which are said
        return _frame(model, X, names), said


def predict_data(
    model: Any, tables: Mapping[str, Any], *, id: str | None = None, progress: bool = True
) -> pd.DataFrame:
    """Predicts new rows of tables as `compare_data` takes them, joined in the same way.

        found = compare_data(tables, y, output="results")
        predict_data(found.best().refit(), new_tables)

    Args:
        model: a fitted `FusionClassifier` or `FusionRegressor`, or a file that its `save` wrote.
        tables: modality -> a frame, array or file. Columns that the model does not know are left
            out, those that it lacks filled in, and tables that it lacks are absent modalities;
            where it has all of its own, others are left out.
        id: column that names the rows; None: what all tables share, or else their order.
        progress: whether what was assumed is said, on stderr.

    Returns:
        A row for each row of the tables: the prediction, and of classes their probabilities.
        Where any row lacks a table, or has words that were not there to learn from, a column
        `lacks` has the names, as "image; site of labs (new: east)". Rows that have none of the
        model's tables are left out, and that is said.

    Raises:
        ValueError: for tables that the model does not know, or that have none of its columns.
    """
    if isinstance(model, str | Path):
        model = load(model)
    frame, said = predicted(model, tables, id=id)
    if progress:
        print(*map(printable, said), sep="\n", end="\n" * bool(said), file=sys.stderr)
    return frame


def _taken(files: Mapping[str, Any], known: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Returns the tables that a model takes, and what is said of the others.

    Others are ignored where all that it takes are there; else one of them may be misspelt.
    """
    wrong = [name for name in files if name not in known]
    lacking = [name for name in known if name not in files]
    if wrong and lacking:
        raise ValueError(
            f"tables must be of the model's modalities {list(known)}, but {_shown(wrong)} "
            f"{'are' if len(wrong) > 1 else 'is'} none of them, and {_shown(lacking)} "
            f"{'are' if len(lacking) > 1 else 'is'} not there; name them so, or leave out what is "
            "none of them"
        )
    of = f"the model is of {_shown(known)} alone"
    said = [f"{_shown(wrong)}: no modality of the model, and ignored ({of})"] if wrong else []
    return {name: value for name, value in files.items() if name in known}, said


def _joined(
    tables: Sequence[Table], id: str | None, features: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Any], pd.Index | None, list[str]]:
    """Returns the tables' rows in one order, NaN where one lacks a row, and the rows' names.

    What is a feature names no row, however few there are, unless it is asked for as the id.
    """
    others = [table.without(features[table.name]) for table in tables]
    key = choose_key(others, id)
    if key is None:
        check_order(others, drops=False)
        return {table.name: table.values for table in tables}, None, []
    names = {table.name: key.checked(table) for table in tables}
    rows, *more = names.values()
    for other in more:
        rows = rows.append(other[~other.isin(rows)])
    views = {t.name: _aligned(t, key, names[t.name].get_indexer(rows)) for t in tables}
    said = [f"rows joined by {key.name}"] if more else []
    for name, index in names.items():
        if lost := len(rows) - len(index):
            said.append(f"{name} lacks {lost} of {len(rows)} rows")
    return views, rows.rename(key.name), said


def _with_a_table(
    views: dict[str, Any], names: pd.Index, others: Mapping[str, Any]
) -> tuple[dict[str, Any], pd.Index, list[str]]:
    """Returns the rows of which some table is there, and what is said of those that are left out.

    Args:
        views: the model's tables, in one order.
        names: of their rows.
        others: tables that the model does not know, whose rows may be in none that it does.
    """
    here = np.any([present_rows(view) for view in views.values()], axis=0)
    if not here.any():
        return views, names, []  # which is refused
    absent, key = names[~here], Key(str(names.name))
    for name, value in others.items():
        with suppress(ValueError, FileNotFoundError):  # as it is ignored, it may be anything
            table = make_table(name, value, id=key.name)
            own = key.of(table)
            if own is not None and (table.is_named or key.name in table.columns):
                absent = absent.append(own[~own.isin(names.append(absent)) & own.notna()])
    views = {
        name: view[here].reset_index(drop=True) if isinstance(view, pd.DataFrame) else view[here]
        for name, view in views.items()
    }
    said = []
    if len(absent):
        have, out = ("rows have", "are") if len(absent) > 1 else ("row has", "is")
        said = [f"{len(absent)} {have} none of the model's tables and {out} left out: "]
        said[0] += _shown(list(absent))
    return views, names[here], said


def _aligned(table: Table, key: Key, where: np.ndarray) -> Any:
    """Returns these rows of a table, without the column that names them; NaN for -1."""
    view = table.without([key.name]).values
    if isinstance(view, pd.DataFrame):
        return view.reindex(where).reset_index(drop=True)
    taken = view[where].astype(np.result_type(view.dtype, np.float32))
    taken[where < 0] = np.nan
    return taken


def _known_columns(model: Any) -> Mapping[str, Sequence[str]]:
    """Returns table -> the columns that the model was fitted with; of one matrix, any table."""
    if model.picked_ is not None:
        return defaultdict(partial(tuple, _expected(model) or ()))
    return {name: columns.names or () for name, columns in model.columns_.items()}


def _expected(model: Any) -> Sequence[str] | None:
    names = getattr(model, "feature_names_in_", None)
    return None if names is None else tuple(names)


def _fitting(
    view: Any, name: str, expected: Sequence[str] | None, width: int
) -> tuple[Any, list[str]]:
    """Returns a view with the columns that the model was fitted with, and what was done for it."""
    if expected is None or isinstance(view, np.ndarray):
        if view.shape[-1] != width:
            raise ValueError(
                f"{name} must have {width} columns, as the model was fitted with, got "
                f"{view.shape[-1]}; leave out those that are no features"
            )
        if expected is None:
            return _array(view, name), []
        said = [f"{name} has no names of columns, which are taken in order"]
        return pd.DataFrame(view, columns=list(expected)), said
    own = list(map(str, view.columns))
    given, known = set(own), set(expected)
    lacks = [n for n in expected if n not in given]
    new = [n for n in own if n not in known]
    if len(lacks) == len(expected):
        raise ValueError(
            f"{name} must have columns that the model was fitted with, {_shown(expected)}, but has "
            f"none of them, only {_shown(own)}"
        )
    said = [f"{name}: {len(new)} columns are new, and ignored: {_shown(new)}"] if new else []
    if lacks:
        said.append(f"{name}: {len(lacks)} columns are missing, and filled in: {_shown(lacks)}")
    return view.set_axis(own, axis=1).reindex(columns=list(expected)), said


def _array(view: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(view, float)
    except ValueError as error:
        raise ValueError(
            f"{name} must hold numbers alone, as the model was fitted with an array, but {error}; "
            "leave out columns that are no features"
        ) from error


def _frame(model: Any, X: Any, names: pd.Index | None) -> pd.DataFrame:
    """Returns predictions, of classes or labels their probabilities, and what rows lack."""
    target = model.target_
    outputs = model.predict(X)
    if outputs.ndim == 1:
        columns = {"prediction": outputs}
    else:
        labels = target.names or range(target.outputs)
        columns = {f"prediction {n}": outputs[:, i] for i, n in enumerate(labels)}
    if hasattr(model, "predict_proba"):
        labels = target.names or model.classes_.tolist()
        shares = model.predict_proba(X)
        columns |= {f"probability {n}": shares[:, i] for i, n in enumerate(labels)}
    lacking = model.lacking(X)
    if any(lacking):
        columns["lacks"] = lacking
    return pd.DataFrame(columns, index=names)


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(str, names[:SHOWN])) + more
