"""Values of the rows that are no modality: the target, groups, weights.

Each is given as values (an array, or a series or frame with an index), or named: a column of the
tables, `FILE:column`, or a file that holds nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .tables import READERS, Given, Table, as_pandas, index_of, read_file, split_path


@dataclass(frozen=True)
class RowValues:
    """The target, the groups or the weights of the rows.

    Attributes:
        what: how messages call it.
        tables: where it stands, as it was given, each with all of its columns.
        columns: those of them that are it; none of an array.
        own: whether it comes from a file or values of its own, and not from the modalities.
    """

    what: str
    tables: tuple[Table, ...]
    columns: tuple[str, ...]
    own: bool

    def of(self, table: Table) -> Any:
        """Returns what a table tells of its rows: an array, a series, or a frame of several."""
        if not isinstance(table.values, pd.DataFrame):
            return table.values
        return table.values[self.columns[0] if len(self.columns) == 1 else list(self.columns)]


def find(
    what: str,
    given: Any,
    raw: Mapping[str, Given],
    *,
    id: str | None,
    home: RowValues | None = None,
) -> RowValues:
    """Returns what `given` names or is.

    Args:
        what: how messages call it.
        given: values, or a name.
        raw: modality -> what was read of its table.
        id: column that names rows: it is read as text, and no value.
        home: the target, in whose file a column is looked for, too.

    Raises:
        ValueError: for names that nothing has, or that could be several columns.
    """
    if isinstance(given, (str, Path)):
        path, inside = split_path(str(given))
        if path.suffix.lower() in READERS:
            return _of_file(what, path, inside, id)
        return _of_tables(what, str(given), raw, home)
    given = as_pandas(what, given)
    if isinstance(given, (pd.Series, pd.DataFrame)):
        index = index_of(given)
        frame = given.to_frame(given.name or what) if isinstance(given, pd.Series) else given
        frame = _named(frame).reset_index(drop=True)
        columns = [name for name in frame.columns if name != id]
        if isinstance(given, pd.Series):
            columns = list(frame.columns)
        if not columns:
            raise ValueError(
                f"the {what} must be a column beside the id {id!r}, got the id alone; give a frame "
                "with both"
            )
        return RowValues(what, (Table(what, frame, index),), tuple(columns), True)
    return RowValues(what, (Table(what, np.asarray(given)),), (), True)


def _of_file(what: str, path: Path, inside: str | None, id: str | None) -> RowValues:
    array = path.suffix.lower() in (".npy", ".npz")
    values, index = read_file(path, inside if array else None, id=id)
    if not isinstance(values, pd.DataFrame):
        return RowValues(what, (Table(what, values, index, path),), (), True)
    index, frame = index_of(values, of_file=True), _named(values).reset_index(drop=True)
    if inside is None:
        columns = [name for name in frame.columns if name != id]
        if len(columns) != 1:
            raise ValueError(
                f"the {what} must be one column, but {path} has {columns[:8]}; name it as "
                f"{path}:{(columns or ['column'])[-1]}"
            )
    else:
        columns = [inside] if inside in frame.columns else inside.split(",")
    _check_there(what, columns, frame, str(path))
    return RowValues(what, (Table(what, frame, index, path),), tuple(columns), True)


def _of_tables(what: str, name: str, raw: Mapping[str, Given], home: RowValues | None) -> RowValues:
    """Returns a column of the target's file and of the tables, wherever it is."""
    found = [table for table in (home.tables if home and home.own else ()) if name in table.columns]
    known = {column: None for table in (home.tables if home else ()) for column in table.columns}
    for modality, given in raw.items():
        if isinstance(given.values, pd.DataFrame):
            known |= dict.fromkeys(given.values.columns)
            if name in given.values.columns:
                found.append(Table(modality, given.values, given.index, given.path))
    if not found:
        raise ValueError(
            f"the {what} must be a column of a table, FILE:column or a file, got {name!r}; there "
            f"are the columns {list(known)[:8]}, and files end in {', '.join(READERS)}"
        )
    return RowValues(what, tuple(found), (name,), False)


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_axis([str(column) for column in frame.columns], axis=1)


def _check_there(what: str, columns: Sequence[str], frame: pd.DataFrame, where: str) -> None:
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(
            f"the {what} must be a column of {where}, got {missing[0]!r}; it has "
            f"{list(frame.columns)[:8]}"
        )
