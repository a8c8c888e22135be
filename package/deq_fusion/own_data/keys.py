"""Keys that rows of several tables are joined by: a column, the frames' own index, or their order.

Nothing is guessed where there are two readings: of two columns that could name the rows one has
to be named, unless both say the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd

from .tables import Table, is_counting

INDEX = "index"  # how an index without a name is asked for
SHARED = 0.5  # of the numbers in two columns of one name: then they may name the rows


@dataclass(frozen=True)
class Key:
    """The id of the rows: a column of this name or else an index of it; INDEX: any index."""

    name: str

    def of(self, table: Table) -> pd.Index | None:
        """Returns the names of a table's rows, as text; None if it has none."""
        if self.name in table.columns:
            return as_text(pd.Index(table.values[self.name]))
        index = table.index
        if index is not None and (self.name == INDEX or str(index.name) == self.name):
            return as_text(index)
        return None

    def checked(self, table: Table) -> pd.Index:
        """Returns the names of a table's rows.

        Raises:
            ValueError: if it has none, if one is missing, or if one comes twice.
        """
        names = self.of(table)
        if names is None:
            has = f"the columns {table.columns[:8]}" if table.columns else "no columns"
            raise ValueError(
                f"every table must have the id {self.name!r}, but {table.name} has {has}; add it "
                "there, or leave the id out and give all rows in the same order"
            )
        if len(names) != len(table.values):
            raise ValueError(
                f"the id {self.name!r} must name the {len(table.values)} rows of {table.name}, got "
                f"{len(names)} names"
            )
        if names.hasnans:
            row = int(np.flatnonzero(names.isna())[0])
            raise ValueError(
                f"the id {self.name!r} must be there in every row, but row {row} of {table.name} "
                "has none; fill it in, or leave the row out"
            )
        if not names.is_unique:
            first = names[names.duplicated()][0]
            raise ValueError(
                f"the id {self.name!r} must be unique in every table, but {table.name} has "
                f"{first!r} {(names == first).sum()} times; make one row of them, or name another "
                "id (id, --id)"
            )
        return names


def as_text(names: pd.Index) -> pd.Index:
    """Returns names as text: 7, 7.0 and "7" are the same."""
    pairs = zip(names, names.isna(), strict=True)
    words = [None if gone else str(int(name) if is_whole(name) else name) for name, gone in pairs]
    return pd.Index(words, dtype=object)


def is_whole(value: Any) -> bool:
    """Says whether it is a float without a fraction."""
    return isinstance(value, float | np.floating) and float(value).is_integer()


def choose_key(tables: Sequence[Table], id: str | None) -> Key | None:
    """Returns what the rows of all these tables are joined by; None: their order.

    Args:
        tables: all modalities.
        id: column or index that is asked for.

    Raises:
        ValueError: where there are two readings, or ids are not unique.
    """
    if id is not None:
        return Key(id)
    keys = [key for key in map(Key, _names(tables[0])) if _names_rows(key, tables)]
    for first, second in combinations(keys, 2):
        if not _agree(first, second, tables):
            raise ValueError(
                f"rows must be named by one id, but both {first.name!r} and {second.name!r} could "
                f"be it, and they differ; name one (id, --id {first.name})"
            )
    return keys[0] if keys else None


def _names(table: Table) -> list[str]:
    """Returns the columns that hold words, and what the index is called."""
    words = [name for name in table.columns if not is_number(table.values[name])]
    if not table.is_named:
        return words
    own = [] if table.index.name in (None, *words) else [str(table.index.name)]
    return [*words, *own, INDEX]


def is_number(column: pd.Series) -> bool:
    """Says whether a column holds numbers."""
    kinds = pd.api.types
    return kinds.is_numeric_dtype(column) and not kinds.is_bool_dtype(column)


def _names_rows(key: Key, tables: Sequence[Table]) -> bool:
    """Says whether every table has it, with another word in every row."""
    if any(key.name not in _names(table) for table in tables):
        return False
    unique = [not key.of(table).hasnans and key.of(table).is_unique for table in tables]
    if any(unique) and not all(unique):
        key.checked(tables[unique.index(False)])
    return all(unique)


def _agree(first: Key, second: Key, tables: Sequence[Table]) -> bool:
    """Says whether two keys join the same rows."""
    pairs = [(first.of(t), second.of(t)) for t in tables]
    frames = [pd.DataFrame({0: a, 1: b}) for a, b in pairs if a is not None and b is not None]
    together = pd.concat(frames).drop_duplicates()
    return together[0].is_unique and together[1].is_unique


def check_order(sources: Sequence[Table], *, drops: bool = True) -> None:
    """Checks that rows can be joined in order: as many everywhere, and no names that differ.

    Args:
        sources: the tables.
        drops: whether whoever reads the message can ask for columns to be dropped.

    Raises:
        ValueError: names the tables, and what could join them.
    """
    first = sources[0]
    for other in sources[1:]:
        if len(other.values) != len(first.values):
            raise ValueError(
                "tables without a shared id must have the same rows in the same order, but "
                f"{first.name} has {len(first.values)} and {other.name} {len(other.values)}; name "
                "the column that names the rows (id, --id), in every table"
            )
    for one, other in combinations(sources, 2):
        check_alike(one, other, drops=drops)
        for key in map(Key, one.columns):
            number = key.name in other.columns and is_number(one.values[key.name])
            if number and _is_other_file(one, other) and _may_name(key.of(one), key.of(other)):
                raise ValueError(
                    f"{key.name!r} may name the rows of {one.name} and {other.name}, or be a "
                    f"feature; name it, and let every table have it (id, --id {key.name}), or "
                    f"{_left_out(key.name, drops)}"
                )


def check_alike(one: Table, other: Table, *, drops: bool = True) -> None:
    """Checks that nothing in two tables, joined in order, says another order.

    That are columns of one name, any of words, and what indices there are.

    Args:
        one: a table.
        other: another.
        drops: see `check_order`.

    Raises:
        ValueError: names what does.
    """
    if not _is_other_file(one, other):
        return
    shared = [(name, name) for name in one.columns if name in other.columns]
    words = [_naming_words(table) for table in (one, other)]
    for mine, theirs in (*shared, *product(*words), (INDEX, INDEX)):
        first, second = Key(mine).of(one), Key(theirs).of(other)
        if first is None or second is None or not _may_name(first, second):
            continue
        if not first.equals(second):
            alike = "" if mine == theirs else "call them alike, and "
            named = INDEX not in (mine, theirs)
            out = _left_out(mine, drops) if named else "leave it out (reset_index)"
            raise ValueError(
                f"{mine!r} of {one.name} and {theirs!r} of {other.name} name the same rows in "
                f"another order, but not all tables have them as an id; {alike}let every table "
                f"have it (id, --id {mine}), or {out}"
            )


def check_row_numbers(key: Key, told: Table, known: pd.Index) -> None:
    """Checks that what is told of the rows, without their ids, has no index that says something
    else: an order would be guessed.

    Args:
        key: what names the rows of the tables, as it was asked for.
        told: the target, groups or weights.
        known: the names of the rows.

    Raises:
        ValueError: says how to give the ids.
    """
    if told.index is None or as_text(told.index).equals(known):
        return
    column, what = (told.columns or ["column"])[0], told.name
    index = "counts rows" if is_counting(told.index) else f"has {told.index[0]!r} and so on"
    argument = {"target": "y", "weights": "sample_weight"}.get(what, what)
    raise ValueError(
        f"the {what} must name its rows by the id {key.name!r}, but its index {index}, where the "
        f"tables have {known[0]!r}; give the ids for an index, as {argument}=frame.set_index("
        f"{key.name!r})[{column!r}], the frame with the columns {key.name!r} and {column!r}, or a "
        f'column of a file that has both, as {argument}="FILE.csv:{column}"'
    )


def _left_out(column: str, drops: bool) -> str:
    """Returns how to leave a column out: by asking for it, or of the tables themselves."""
    return (
        f"leave it out (drop, --drop {column})" if drops else f"take {column!r} out of the tables"
    )


def _is_other_file(one: Table, other: Table) -> bool:
    return one.path is None or one.path != other.path


def _naming_words(table: Table) -> list[str]:
    """Returns the columns of words that differ in every row, and an index that does more than
    count."""
    words = (name for name in table.columns if not is_number(table.values[name]))
    unique = [name for name in words if table.values[name].is_unique]
    return [*unique, INDEX] if table.is_named else unique


def _may_name(mine: pd.Index, theirs: pd.Index) -> bool:
    """Says whether both hold the same names, each once; numbers that are whole are names."""
    if not (mine.is_unique and theirs.is_unique) or mine.hasnans or theirs.hasnans:
        return False
    fraction = r"-?\d+\.\d+(e[-+]?\d+)?|-?\d+e-\d+"
    if mine.str.fullmatch(fraction).any() or theirs.str.fullmatch(fraction).any():
        return False
    return len(mine.intersection(theirs)) > SHARED * min(len(mine), len(theirs))
