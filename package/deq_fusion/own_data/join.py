"""Rows of several tables, with target, groups and weights, joined: one row a sample.

Rows are joined by what names them (`keys`), else in order. A row that a table does not have, or
of which all cells there are missing, is an absent modality; a row without a target, or in no
table, is left out; all of it is said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from .keys import (
    INDEX,
    SHARED,
    Key,
    as_text,
    check_alike,
    check_order,
    check_row_numbers,
    choose_key,
)
from .row_values import RowValues, find
from .tables import Table, View, make_table, read, words_of

FEW = 10  # words that any column may have


@dataclass(frozen=True)
class Joined:
    """Rows of all modalities, in one order.

    Attributes:
        views: modality -> its rows; those that it lacks are NaN.
        present: (rows, modalities), whether the modality is there.
        target: (rows,), or a frame (rows, labels) of several.
        groups: (rows,), or None.
        weights: (rows,), or None.
        names: what names the rows, or None where they are joined in order.
        beside: the columns that stand beside the target in a file of its own, and are nothing.
        said: sentences on what was understood.
    """

    views: dict[str, View]
    present: np.ndarray
    target: np.ndarray | pd.DataFrame
    groups: np.ndarray | None
    weights: np.ndarray | None
    names: pd.Index | None
    beside: dict[str, np.ndarray]
    said: tuple[str, ...]


def join(
    tables: Mapping[str, Any],
    target: Any,
    *,
    groups: Any = None,
    weights: Any = None,
    id: str | None = None,
    drop: Sequence[str] = (),
) -> Joined:
    """Reads tables and what is told of their rows, and joins them.

    Args:
        tables: modality -> an array, a frame, or a file, see `tables.make_table`.
        target: values, or the name of a column, see `row_values`.
        groups: likewise.
        weights: likewise.
        id: the column or index that names rows; by default what is found, see `keys`.
        drop: columns that are no features.

    Raises:
        ValueError: for what is no table, and where rows cannot be joined, or could be in two ways.
        FileNotFoundError: for a file that is not there.
    """
    if not isinstance(tables, Mapping) or not tables:
        raise ValueError(
            "tables must be a dict of at least one, such as {'rna': X1, 'image': X2}, got "
            f"{type(tables).__name__ if not isinstance(tables, Mapping) else 'none'}"
        )
    given = {str(name): read(str(name), value, id=id) for name, value in tables.items()}
    known = [make_table(name, value) for name, value in given.items()]
    _check_dropped(known, drop)
    known = [table.without(drop) for table in known]
    key = choose_key(known, id)
    name = None if key is None else key.name
    sought = find("target", target, given, id=name)
    others = {"groups": groups, "weights": weights}
    told = {
        what: find(what, value, given, id=name, home=sought)
        for what, value in others.items()
        if value is not None
    }
    rows = _rows(known, sought, key, drop, asked=id is not None)
    features, said = _features(known, [sought, *told.values()], rows.key)
    views = {table.name: rows.aligned(table) for table in features}
    values = {what: rows.told(each) for what, each in {"target": sought, **told}.items()}
    taken = {column for each in (sought, *told.values()) for column in each.columns}
    taken |= {column for table in known for column in table.columns}
    beside = _beside(sought, rows, taken)
    return _finished(views, values, beside, rows, said)


@dataclass(frozen=True)
class Rows:
    """The rows of all tables: named by `key`, or joined in order where there is none.

    Attributes:
        key: what names them.
        names: those that have a target, in its order; None without a key.
        kept: of the rows that the target tells of, those that some table has.
        of: table -> the names of its rows.
        first: one of the tables.
        said: how they were joined.
        asked: whether the key was named by whoever gave the tables.
    """

    key: Key | None
    names: pd.Index | None
    kept: np.ndarray
    of: dict[str, pd.Index]
    first: Table
    said: tuple[str, ...]
    asked: bool = False

    def aligned(self, table: Table) -> View:
        """Returns a table's rows in this order, NaN where it lacks one."""
        if self.names is None:
            return table.values
        return _taken(table.values, self.of[table.name].get_indexer(self.names))

    def told(self, values: RowValues) -> np.ndarray | pd.DataFrame:
        """Returns the values of these rows, (rows,), or a frame of several columns; what several
        tables tell must agree."""
        merged = None
        for table in values.tables:
            found = self._placed(values, table)
            if merged is None:
                merged = found
                continue
            both = merged.notna() & found.notna()
            differ = both & (as_text(pd.Index(merged)) != as_text(pd.Index(found)))
            if differ.any():
                row = int(np.flatnonzero(differ)[0])
                raise ValueError(
                    f"the {values.what} must be the same in all tables, but in row "
                    f"{row if self.names is None else self.names[row]} {values.tables[0].name} has "
                    f"{merged[row]!r} and {table.name} {found[row]!r}; name the file that is right"
                )
            merged = merged.astype(object).where(merged.notna(), found)
        merged = merged.infer_objects()
        return merged.to_numpy() if isinstance(merged, pd.Series) else merged

    def _placed(self, values: RowValues, table: Table) -> pd.Series | pd.DataFrame:
        """Returns what a table tells of these rows, missing where it has none of them."""
        found = _as_pandas(values.what, values.of(table))
        names = None
        if self.key is not None:
            names = _names_beside(self.key, table, self.names)
            if names is None and self.asked:
                check_row_numbers(self.key, table, self.names)
        if names is None:
            if len(found) != len(self.kept):
                raise ValueError(
                    f"{values.what} must have {len(self.kept)} entries, one for each row, got "
                    f"{len(found)}; give as many, in the rows' order, or a series with their ids"
                )
            check_alike(self.first, table)
            return found[self.kept].reset_index(drop=True)
        where = names.get_indexer(self.names)
        if (where >= 0).all():  # keeps whole numbers whole
            return found.iloc[where].reset_index(drop=True)
        whole = found.astype(object).set_axis(names)  # numbers stay what they are beside NaN
        return whole.reindex(self.names).reset_index(drop=True)


def _rows(
    tables: Sequence[Table],
    target: RowValues,
    key: Key | None,
    drop: Sequence[str],
    *,
    asked: bool,
) -> Rows:
    """Returns the rows of all tables; `asked` says whether the key was named."""
    home, *more = target.tables
    if key is None:
        beside = [home.without(drop)] if target.own and home.columns else []
        check_order([*tables, *beside])
        count = len(tables[0].values)
        how = "the one table's" if len(tables) == 1 else "joined in order"
        return Rows(None, None, np.ones(count, bool), {}, tables[0], (f"{count} rows, {how}",))
    names = {table.name: key.checked(table) for table in tables}
    known = next(iter(names.values()))
    wanted = _names_beside(key, home, known, every=asked)
    if wanted is None:
        if asked:
            check_row_numbers(key, home, known)
        wanted = _reference(key, names, home)
        check_alike(tables[0], home)
    for table in more:  # a column of several tables: each may tell of rows that others lack
        wanted = wanted.append(key.checked(table).difference(wanted, sort=False))
    kept, said = _matched(key, names, wanted)
    return Rows(key, wanted[kept], kept, names, tables[0], said, asked)


def _names_beside(
    key: Key, table: Table, known: pd.Index, *, every: bool = False
) -> pd.Index | None:
    """Returns the names that a target, groups or weights have for the rows, if they have any.

    A series' own index counts, whatever it is called, if it says the same names. One that only
    counts the rows names none, and is refused where it would say another order.
    """
    index = None if table.index is None else as_text(table.index)
    same = index is not None and (
        len(index.intersection(known)) > SHARED * min(len(index), len(known))
    )
    by_column = key.name in table.columns
    if same and not by_column:
        if table.is_named:
            return Key(INDEX).checked(table)
        if not index.equals(known):
            raise ValueError(
                f"the {table.name} must have the rows' ids, or their order, but its index "
                f"counts 0, 1, 2, ... where {key.name!r} says another order; give it the same ids, "
                "or an array instead"
            )
    if by_column or every and len(table.columns) > 1:
        return key.checked(table)
    return None


def _reference(key: Key, names: Mapping[str, pd.Index], home: Table) -> pd.Index:
    """Returns the order of a target without ids: that of the tables, if all have one order."""
    (first, order), *others = names.items()
    for name, other in others:
        if not other.equals(order):
            raise ValueError(
                f"a target without ids must follow the tables' order, but {first} and {name} have "
                f"different ones of {key.name!r}; give a series with these ids, or FILE:column "
                "of a file that has them"
            )
    if len(home.values) != len(order):
        raise ValueError(
            f"a target without ids must have {len(order)} entries, as {first} has rows, got "
            f"{len(home.values)}"
        )
    return order


def _matched(
    key: Key, names: Mapping[str, pd.Index], wanted: pd.Index
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns which of the rows that have a target are in some table, and what is said of it."""
    there = pd.DataFrame({name: wanted.isin(index) for name, index in names.items()})
    said = []
    for name, index in names.items():
        if not there[name].any():
            raise ValueError(
                f"tables must share ids, but {name} has none of the target's {key.name!r} "
                f"({index[0]!r} and so on, where the target has {wanted[0]!r}); write them alike"
            )
        if lost := len(index.difference(wanted)):
            said.append(f"{lost} of {name}'s rows have no target, and are left out")
    kept = there.any(axis=1).to_numpy()
    if not kept.all():
        said.append(f"{(~kept).sum()} rows of the target are in no table, and are left out")
    there = there[kept]
    text = f"rows joined by {key.name}: {there.all(axis=1).sum()} of {len(there)} in all tables"
    for name, lacking in (~there).sum().items():
        text += f"; {name} lacks {lacking}" if lacking else ""
    return kept, (text, *said)


def _features(
    tables: Sequence[Table], told: Sequence[RowValues], key: Key | None
) -> tuple[list[Table], list[str]]:
    """Returns the tables without what is told of the rows, and what is said of it."""
    said, kept = [], []
    apart = {column: f"the {each.what}" for each in told for column in each.columns}
    if key is not None:
        apart[key.name] = "the id"
    for table in tables:
        for column in table.columns:
            if column in apart and apart[column] != "the id":
                said.append(f"column {column} of {table.name} is {apart[column]}, and no feature")
        table = table.without(list(apart))
        table.check_features()
        kept.append(table)
    return kept, said


def _beside(target: RowValues, rows: Rows, taken: set[str]) -> dict[str, np.ndarray]:
    """Returns the columns of the target's own file that nothing else is made of, by name."""
    if not target.own or not target.columns:
        return {}
    (home,) = target.tables
    names = [name for name in home.columns if name not in taken]
    return {name: rows.told(replace(target, columns=(name,))) for name in names}


def names_in(tables: Mapping[str, View]) -> list[str]:
    """Returns the columns of words that differ in most rows, as names and remarks do."""
    found = []
    for view in tables.values():
        for column in words_of(view):
            words = view[column].dropna()
            if words.nunique() > max(FEW, len(words) // 2):
                found.append(column)
    return found


def _check_dropped(tables: Sequence[Table], drop: Sequence[str]) -> None:
    known = [column for table in tables for column in table.columns]
    wrong = [name for name in drop if name not in known]
    if isinstance(drop, str) or wrong:
        raise ValueError(
            f"drop must list columns of the tables, got {wrong[0] if wrong else drop!r}; they have "
            f"{known[:8]}"
        )


def _as_pandas(what: str, values: Any) -> pd.Series | pd.DataFrame:
    """Returns values without their index."""
    if isinstance(values, (pd.Series, pd.DataFrame)):
        return values.reset_index(drop=True)
    if values.ndim == 2 and values.shape[1] > 1:
        return pd.DataFrame(values)
    if values.ndim not in (1, 2):
        raise ValueError(f"{what} must have shape (rows,), or (rows, labels), got {values.shape}")
    return pd.Series(values.reshape(-1))


def _taken(values: View, where: np.ndarray) -> View:
    """Returns these rows, NaN where the number is -1."""
    if isinstance(values, pd.DataFrame):
        return values.reindex(where).reset_index(drop=True)
    taken = values[where].copy()
    taken[where < 0] = np.nan
    return taken


def _finished(
    views: dict[str, View],
    values: dict[str, np.ndarray],
    beside: dict[str, np.ndarray],
    rows: Rows,
    said: list[str],
) -> Joined:
    """Returns the rows of which some modality is there."""
    present = np.stack([~_all_missing(view) for view in views.values()], axis=1)
    told = list(rows.said)
    for number, name in enumerate(views):
        in_file = len(rows.kept) if rows.names is None else rows.names.isin(rows.of[name]).sum()
        if empty := int(in_file - present[:, number].sum()):
            told.append(f"{empty} rows of {name} are empty, which counts as absent")
    kept = present.any(axis=1)
    if not kept.any():
        raise ValueError("tables must have a row that is not empty, got none")
    if not kept.all():
        told.append(f"{(~kept).sum()} rows are empty in every table, and are left out")
    for what, array in values.items():
        if what != "target" and array.ndim != 1:
            raise ValueError(f"{what} must be one column, got {array.shape[1]}; name one of them")
    cut = {what: array[kept] for what, array in values.items()}
    return Joined(
        {name: _taken(view, np.flatnonzero(kept)) for name, view in views.items()},
        present[kept],
        cut["target"],
        cut.get("groups"),
        cut.get("weights"),
        None if rows.names is None else rows.names[kept],
        {name: array[kept] for name, array in beside.items()},
        (*told, *said),
    )


def _all_missing(view: View) -> np.ndarray:
    """Returns of which rows every cell is missing."""
    if isinstance(view, pd.DataFrame):
        return view.isna().all(axis=1).to_numpy()
    return np.isnan(view).reshape(len(view), -1).all(axis=1)
