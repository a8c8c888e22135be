"""Tables of one's own: what arrays, frames and files hold, before their rows are joined.

A file is read by its suffix (`READERS`), and no file can run code. A frame becomes one of two
kinds of columns, numbers (float64, NaN where missing) and words (str, None where missing).
"""

import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
import pandas as pd

MORE_CELLS = "every line must have as many cells as the first, but some have more"
NUMBERS = "integer", "floating", "mixed-integer-float", "decimal"  # a column of objects may be

View: TypeAlias = "pd.DataFrame | np.ndarray"
"""Rows of one modality: a frame (rows, columns), or numbers (rows, d) or (rows, time, d)."""


@dataclass(frozen=True)
class Table:
    """Rows that are not joined yet.

    Attributes:
        name: how messages call it.
        values: a frame of numbers and words, or an array of numbers; missing cells are NaN.
        index: a frame's index; None of arrays, and of files where it only counts the rows.
        path: the file that it comes from, if any.
        doubts: column that can be no feature as it is -> why.
    """

    name: str
    values: View
    index: pd.Index | None = None
    path: Path | None = None
    doubts: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_named(self) -> bool:
        """Whether the index does more than count the rows."""
        return self.index is not None and not is_counting(self.index)

    @property
    def columns(self) -> list[str]:
        """The names of a frame's columns; none of an array."""
        return list(self.values.columns) if isinstance(self.values, pd.DataFrame) else []

    def without(self, columns: Sequence[str]) -> "Table":
        """Returns the table less those of these columns that it has."""
        there = [name for name in columns if name in self.columns]
        return replace(self, values=self.values.drop(columns=there)) if there else self

    def check_features(self) -> None:
        """Raises ValueError for the first column that can be no feature, or if there is none."""
        for column in self.columns:
            if column in self.doubts:
                raise ValueError(self.doubts[column])
        if 0 in self.values.shape:
            raise ValueError(
                f"table {self.name} must have a column that is a feature, got none besides target, "
                "id and the like; leave the table out"
            )


@dataclass(frozen=True)
class Given:
    """A table as it was given, read but not yet understood: a frame, or what numpy takes.

    Attributes:
        values: it; a series is a frame of one column.
        index: see `Table`.
        path: the file that it comes from, if any.
    """

    values: Any
    index: pd.Index | None
    path: Path | None


def read(name: str, value: Any, *, id: str | None = None) -> Given:
    """Returns what an array, a frame of pandas or polars, or a file holds.

    Args:
        name: how messages call it.
        value: numbers or words (rows, columns), numbers (rows, time, d), or the path of a file;
            of an npz file with several arrays, `file.npz:array`.
        id: column that is to be read as text; of an npz file, the array that names its rows.

    Raises:
        ValueError: for a file that cannot be read.
        FileNotFoundError: if there is no such file.
    """
    path, index = None, None
    if isinstance(value, (str, Path)):
        path, inside = split_path(str(value))
        value, index = read_file(path, inside, id=id)
    value = as_pandas(name, value)
    value = value.to_frame() if isinstance(value, pd.Series) else value
    if isinstance(value, pd.DataFrame):
        index = index_of(value, of_file=path is not None)
        value = value.set_axis([str(column) for column in value.columns], axis=1)
        _check_names(f"table {name}", list(value.columns))
        value = value.reset_index(drop=True)
        if id in value.columns and pd.api.types.is_integer_dtype(value[id]):
            value[id] = value[id].astype("string").astype(object)  # a float holds 53 bits of it
    return Given(value, index, path)


def make_table(name: str, value: Any, *, id: str | None = None) -> Table:
    """Returns the table of what was read, or is to be, see `read`.

    Raises:
        ValueError: for what is no table, is empty, or an array of what is not finite; and see
            `read`.
        FileNotFoundError: if there is no such file.
    """
    given = value if isinstance(value, Given) else read(name, value, id=id)
    values = given.values
    doubts: dict[str, str] = {}
    if not isinstance(values, pd.DataFrame):
        values = _array(name, values)
    if isinstance(values, pd.DataFrame):
        values, doubts = _frame(name, values)
    if 0 in values.shape:
        raise ValueError(
            f"table {name} must have rows and columns, got {values.shape}; leave it out, or look "
            "at where it comes from"
        )
    return Table(name, values, given.index, given.path, doubts)


def words_of(view: View) -> list[str]:
    """Returns the columns of a table's frame that hold words."""
    if isinstance(view, np.ndarray):
        return []
    return list(view.columns[view.dtypes != np.float64])


def as_pandas(name: str, value: Any) -> Any:
    """Returns a frame or series of polars as pandas' own; anything else as it is."""
    if not type(value).__module__.startswith("polars"):
        return value
    if not hasattr(value, "to_pandas"):
        raise ValueError(f"table {name} must be a frame, got a {type(value).__name__}; .collect()")
    try:
        return value.to_pandas()
    except ImportError as error:
        raise ValueError("polars needs pyarrow here: pip install pyarrow") from error


def index_of(value: pd.DataFrame | pd.Series, *, of_file: bool = False) -> pd.Index | None:
    """Returns the index of a frame or series; None where a file's only counts the rows."""
    if isinstance(value.index, pd.MultiIndex):
        raise ValueError(
            f"rows must be named by one index, got one of {value.index.nlevels} levels; "
            "reset_index()"
        )
    return None if of_file and is_counting(value.index) else value.index


def is_counting(index: pd.Index) -> bool:
    """Says whether an index is 0, 1, 2, ..."""
    whole = pd.api.types.is_integer_dtype(index)
    return bool(whole and (index == np.arange(len(index))).all())


def split_path(text: str) -> tuple[Path, str | None]:
    """Returns of `file.suffix:inside` both parts, and of `file.suffix` the file alone."""
    before, colon, after = text.rpartition(":")
    if colon and Path(before).suffix.lower() in READERS and not Path(text).is_file():
        return Path(before), after
    return Path(text), None


def read_file(
    path: Path, inside: str | None, *, id: str | None = None
) -> tuple[View, pd.Index | None]:
    """Returns what a file holds, and the names of its rows if an array of it is called `id`."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"the name of a file must end in one of {', '.join(READERS)}, got {str(path)!r}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; name one that is there")
    if inside is not None and reader is not _read_npz:
        raise ValueError(f"only npz files hold several tables, got {path}:{inside}")
    try:
        return reader(path, inside, id)
    except (OSError, ValueError, EOFError, BadZipFile, csv.Error) as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path} cannot be read as {path.suffix[1:]}: {error}") from error


def _read_text(separator: str) -> Callable[..., tuple[View, None]]:
    def read(path: Path, inside: None, id: str | None) -> tuple[View, None]:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, delimiter=separator)
            head, second = next(lines, []), next(lines, [])
        _check_names(f"{path}", head)
        _check_separator(head, separator)
        frame = pd.read_csv(
            path, sep=separator, dtype={id: str} if id in head else None, encoding="utf-8-sig"
        )
        if head[:1] == [""]:  # as pandas writes an index
            frame = frame.set_index(frame.columns[0]).rename_axis(None)
        elif len(second) > len(head):  # pandas then takes the first column for an index
            _check_lines(path, separator, len(head) + 1)
            if frame.iloc[:, -1].isna().all():
                raise ValueError(MORE_CELLS)
        return frame, None

    return read


def _check_separator(head: Sequence[str], separator: str) -> None:
    """Raises ValueError if the first line seems to be separated by something else."""
    other = next((s for s in ",;\t|" if len(head) == 1 and s in head[0]), None)
    if other is not None:
        raise ValueError(
            f"cells must be separated by {separator!r}, but seem to be by {other!r}; write the "
            f"file so, or give the frame that pandas.read_csv(path, sep={other!r}) returns"
        )


def _check_lines(path: Path, separator: str, count: int) -> None:
    """Raises ValueError unless all lines but the first have so many cells."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, delimiter=separator)
        next(lines)
        if any(line and len(line) != count for line in lines):
            raise ValueError(MORE_CELLS)


def _read_parquet(path: Path, inside: None, id: str | None) -> tuple[View, None]:
    try:
        return pd.read_parquet(path, engine="pyarrow"), None
    except ImportError as error:
        raise ValueError(f"{path} needs pyarrow: pip install pyarrow") from error


def _read_npy(path: Path, inside: None, id: str | None) -> tuple[View, None]:
    return np.load(path, allow_pickle=False), None


def _check_objects(path: Path, arrays: Any) -> None:
    """Raises ValueError for an array of objects, as text of pandas is, which may run code."""
    for name in arrays.files:
        try:
            arrays[name]
        except ValueError as error:
            raise ValueError(
                f"array {name} of {path} must hold numbers or fixed text, but cannot be read "
                f"({error}); save text as names.astype('U')"
            ) from error


def _read_npz(path: Path, inside: str | None, id: str | None) -> tuple[View, pd.Index | None]:
    with np.load(path, allow_pickle=False) as arrays:
        _check_objects(path, arrays)
        names = [name for name in arrays.files if name != id]
        if inside is None and len(names) != 1 or inside is not None and inside not in names:
            raise ValueError(
                f"{path} holds the arrays {names}; name one as {path}:{(names or ['array'])[0]}"
            )
        ids = pd.Index(arrays[id], name=id) if id in arrays.files else None
        return arrays[inside or names[0]], ids


READERS: Mapping[str, Callable[..., tuple[View, pd.Index | None]]] = {
    ".csv": _read_text(","),
    ".tsv": _read_text("\t"),
    ".parquet": _read_parquet,
    ".npy": _read_npy,
    ".npz": _read_npz,
}
"""Suffix of a file -> what reads it."""


def _array(name: str, value: Any) -> View:
    if hasattr(value, "toarray"):
        raise ValueError(f"table {name} must be dense, got {type(value).__name__}; .toarray()")
    values = np.asarray(value)
    if values.ndim not in (2, 3):
        raise ValueError(
            f"table {name} must have shape (rows, columns) or (rows, time, columns), got "
            f"{values.shape}"
        )
    if values.dtype.kind in "OUS" and values.ndim == 2:
        frame = pd.DataFrame(values).infer_objects()
        return frame.set_axis([str(column) for column in frame.columns], axis=1)
    if values.dtype.kind not in "biuf":
        raise ValueError(
            f"table {name} must hold numbers, or words in two dimensions, got {values.dtype}"
        )
    values = values if values.dtype == np.float32 else values.astype(np.float64)
    if np.isinf(values).any():
        where = np.argwhere(np.isinf(values))[0].tolist()
        raise ValueError(
            f"table {name} must hold finite numbers, or NaN where missing, but its entry {where} "
            "is infinite; write NaN if it is missing"
        )
    return values


def _frame(name: str, frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """Returns a frame with columns of float64, and of str or None; and what there is to doubt."""
    parts, doubts = {}, {}
    for number, column in enumerate(frame.columns):
        values = frame.iloc[:, number]
        parts[column], doubt = _column(values)
        if doubt is not None:
            doubts[column] = f"column {column} of table {name} must hold {doubt}"
    return pd.DataFrame(parts, index=pd.RangeIndex(len(frame)), columns=frame.columns), doubts


def _column(column: pd.Series) -> tuple[np.ndarray | pd.Series, str | None]:
    """Returns numbers or words, and why they should not be taken for that, if so."""
    kinds = pd.api.types
    if kinds.is_bool_dtype(column) or isinstance(column.dtype, pd.CategoricalDtype):
        return _words(column), None
    numeric = kinds.is_numeric_dtype(column) or kinds.infer_dtype(column) in NUMBERS
    if numeric and not kinds.is_complex_dtype(column):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        infinite = np.isinf(values)
        return values, _infinite(infinite) if infinite.any() else None
    if kinds.is_object_dtype(column) or kinds.is_string_dtype(column):
        return _words(column), _mixture(column)
    return _words(column), (
        f"numbers or words, got {column.dtype}; turn it into a number, such as days since a date, "
        "or drop it"
    )


def _infinite(infinite: np.ndarray) -> str:
    return (
        f"finite numbers, but row {np.flatnonzero(infinite)[0]} is infinite; leave the cell empty "
        "if it is missing"
    )


def _mixture(column: pd.Series) -> str | None:
    """Returns what is wrong with numbers that have a few words among them, if these are some."""
    there = column.dropna()
    numbers = pd.to_numeric(there, errors="coerce").notna()
    pointed = there.astype(str).str.replace(r"^([-+]?\d+),(\d+)$", r"\1.\2", regex=True)
    if len(there) and not numbers.all() and pd.to_numeric(pointed, errors="coerce").notna().all():
        return (
            f"numbers with a decimal point, or words, but has a comma, as in "
            f"{str(there[~numbers].iloc[0])[:40]!r}; write it with a point, or drop the column"
        )
    if not len(there) // 2 < numbers.sum() < len(there):
        return None
    return (
        f"numbers or words, but {numbers.sum()} cells are numbers and {(~numbers).sum()} are not, "
        f"such as {str(there[~numbers].iloc[0])[:40]!r}; write these as numbers, or leave them "
        "empty"
    )


def _words(column: pd.Series) -> pd.Series:
    found = zip(column.astype(object), column.isna(), strict=True)
    return pd.Series([None if missing else str(cell) for cell, missing in found], dtype=object)


def _check_names(where: str, names: Sequence[str]) -> None:
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise ValueError(f"{where} must have columns of different names, got {twice[0]!r} twice")
