"""One table, or one array of sequences, as the numbers that an encoder takes."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.preprocessing import OneHotEncoder, StandardScaler

UNIQUE = 20  # rows from which on text that differs in each of them is taken for an identifier
NUMBERS = "integer", "floating", "mixed-integer-float", "decimal"  # a column of objects may be
SHOWN = 3  # words that a sentence names
LONGEST = 40  # characters of a word
MISSING = ""  # how a missing cell of text is written


@dataclass(repr=False)
class Columns:
    """A modality's rows as numbers: filled in, scaled and encoded by what the rows to learn from
    have.

    Numbers are scaled to mean 0 and variance 1; a missing one becomes the mean, and a column that
    is constant or empty where it is learnt from becomes zeros. A column of text, categories or
    bools becomes one column for each value; one that was not seen before, or is missing, has
    zeros in all of them, and `unseen` tells of it. A row of an absent modality teaches nothing,
    and is all zeros.

    Args:
        name: the modality's, for messages.

    Attributes:
        names: those of the columns that it was fitted with; None of an array.
        width: how many columns it takes.
        mean: (numeric columns,) of each.
        scale: (numeric columns,) of each; infinite where nothing is learnt.
        categories: number of a column that is no numeric one -> its values, as text.
        shape: of a row of the result, (d,) or (time, d).
    """

    name: str = "table"
    names: tuple[str, ...] | None = None
    width: int = 0
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    categories: dict[int, list[str]] = field(default_factory=dict)
    shape: tuple[int, ...] = ()

    def __repr__(self) -> str:
        told = [repr(self.name), f"{self.width} columns"]
        told += [f"{len(self.categories)} of them words"] * bool(self.categories)
        return f"Columns({', '.join(told)}, encoded as {self.shape})"

    def fit(self, view: Any, present: np.ndarray | None = None) -> "Columns":
        """Learns from the rows of a table (rows, columns) or of an array (rows, time, d).

        Args:
            view: a pandas or polars frame, or an array of numbers or text.
            present: (rows,) bool, those that have the modality; None: all.

        Raises:
            ValueError: for what is no such table, numbers that are infinite, no row to learn from,
                or a column of text that is different in every row.
        """
        view = as_view(view, self.name)
        here = np.ones(len(view), bool) if present is None else np.asarray(present, bool)
        if not here.any():
            raise ValueError(
                f"{self.name} must have a row to learn from, but is absent in all {len(view)}; "
                "leave it out"
            )
        frame = not isinstance(view, np.ndarray)
        self.names = _names(view, self.name) if frame else None
        self.width = view.shape[-1]
        texts = _text_columns(view) if frame else []
        numbers, cells = self._parts(view, texts, here)
        self.mean, self.scale = _mean_and_scale(numbers[here])
        self.categories = _categories(cells[here], texts)
        for number, values in self.categories.items():
            if len(values) == here.sum() >= UNIQUE:
                raise ValueError(
                    f"column {self.names[number]!r} of {self.name} must repeat its values to teach "
                    f"anything, but is text that is different in each of {here.sum()} rows; leave "
                    "it out, or make it the index if it is an id"
                )
        width = numbers.shape[-1] + sum(map(len, self.categories.values()))
        self.shape = (*numbers.shape[1:-1], width)
        return self

    def transform(self, view: Any, present: np.ndarray | None = None) -> np.ndarray:
        """Returns the rows as float32, (rows, d) or (rows, time, d), without a NaN.

        Args:
            view: as `fit` takes it, with the same columns; those of frames in any order.
            present: (rows,) bool, those that have the modality; the others become zeros.

        Raises:
            ValueError: for other columns, or numbers that are infinite or none at all.
        """
        view = self._ordered(as_view(view, self.name))
        here = np.ones(len(view), bool) if present is None else np.asarray(present, bool)
        numbers, cells = self._parts(view, list(self.categories), here)
        with np.errstate(over="ignore"):  # which is refused right after
            scaled = np.nan_to_num((numbers - self.mean) / self.scale).astype(np.float32)
        if not np.isfinite(scaled).all():
            raise ValueError(
                f"numbers of {self.name} must be on the scale of those learnt from, but some are "
                "more than 3.4e38 standard deviations away; look for a wrong value"
            )
        parts = [scaled]
        if self.categories:
            encoder = _encoder(list(self.categories.values()))
            parts.append(encoder.transform(cells).astype(np.float32))
        result = np.concatenate(parts, axis=-1)
        result[~here] = 0
        return result

    def unseen(self, view: Any, present: np.ndarray | None = None) -> list[str]:
        """Returns a sentence for each column with words that were not there to learn from.

        Args:
            view: as `transform` takes it.
            present: as `transform` takes it.
        """
        said = []
        for name, cells, new in self.new_words(view, present):
            words, rows = dict.fromkeys(cells[new].tolist()), int(new.sum())
            said += [unseen_words(name, self.name, words, rows)] if rows else []
        return said

    def new_words(
        self, view: Any, present: np.ndarray | None = None
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yields of each column of words its name, its cells as text, and (rows,) bool where they
        were not there to learn from.

        Args:
            view: as `transform` takes it.
            present: as `transform` takes it.
        """
        if not self.categories:
            return
        view = self._ordered(as_view(view, self.name))
        here = np.ones(len(view), bool) if present is None else np.asarray(present, bool)
        for number, values in self.categories.items():
            cells = _written(_column(view, number))
            new = here & (cells != MISSING) & ~np.isin(cells, np.array(values, object))
            yield self.names[number] if self.names else str(number), cells, new

    def state(self) -> dict[str, Any]:
        """Returns what `of_state` makes an equal one of: arrays, text, numbers and lists."""
        return {
            "name": self.name,
            "names": None if self.names is None else list(self.names),
            "width": self.width,
            "mean": self.mean,
            "scale": self.scale,
            "categories": [[number, values] for number, values in self.categories.items()],
            "shape": list(self.shape),
        }

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> "Columns":
        """Returns what `state` was of."""
        names = state["names"]
        return cls(
            state["name"],
            None if names is None else tuple(names),
            state["width"],
            state["mean"],
            state["scale"],
            {number: list(values) for number, values in state["categories"]},
            tuple(state["shape"]),
        )

    def lacking(self, view: Any) -> tuple[list[str], list[str]]:
        """Returns the names of columns that a frame lacks, and of those that are new in it."""
        theirs, own = _names(view, self.name), self.names or ()
        known, given = set(own), set(theirs)
        return [n for n in own if n not in given], [n for n in theirs if n not in known]

    def _ordered(self, view: Any) -> Any:
        """Returns a view with the columns that it was fitted with, in that order."""
        if self.names is not None and not isinstance(view, np.ndarray):
            lacks, new = self.lacking(view)
            if lacks or new:
                wrong = [f"lacks {lacks[:5]} ({len(lacks)})"] if lacks else []
                wrong += [f"has {new[:5]} ({len(new)}) besides"] if new else []
                raise ValueError(
                    f"{self.name} must have the columns that it was fitted with, but "
                    f"{' and '.join(wrong)}; predict_data (deq-fusion predict) takes such tables"
                )
            numbers = {name: i for i, name in enumerate(_names(view, self.name))}
            return view.iloc[:, [numbers[name] for name in self.names]]
        dims = len(self.shape) + 1
        if view.shape[-1] != self.width or view.ndim != dims:
            raise ValueError(
                f"{self.name} must have {self.width} columns and {dims} dimensions, as it was "
                f"fitted with, but has shape {tuple(view.shape)}"
            )
        return view

    def _parts(
        self, view: Any, texts: Sequence[int], here: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the numbers, NaN where missing, and the text; both of present rows alone."""
        if isinstance(view, np.ndarray) and not texts:
            numbers, cells = np.array(view, float), np.empty((len(view), 0), object)
        else:
            if isinstance(view, np.ndarray):
                import pandas as pd

                view = pd.DataFrame(view)
            numeric = np.setdiff1d(np.arange(view.shape[1]), texts)
            numbers = self._floats(view.iloc[:, numeric], numeric)
            columns = [_written(view.iloc[:, i]) for i in texts]
            cells = np.stack(columns, 1) if columns else np.empty((len(view), 0), object)
        numbers[~here] = np.nan
        endless = np.argwhere(np.isinf(numbers))
        if len(endless):
            raise ValueError(
                f"numbers of {self.name} must be finite or missing (NaN), but row {endless[0][0]} "
                "has infinity; look for a division by zero"
            )
        return numbers, cells

    def _floats(self, frame: Any, numbers: np.ndarray) -> np.ndarray:
        """Returns the columns of a frame as floats, or refuses one by its name."""
        dates = [i for i, kind in enumerate(frame.dtypes) if getattr(kind, "kind", "O") in "mM"]
        try:
            if not dates:
                return np.array(frame.to_numpy(dtype=float, na_value=np.nan))  # a copy
            wrong, reason = dates[0], "dates"
        except (TypeError, ValueError) as error:
            wrong, reason = _first_of_words(frame), error
        name = self.names[numbers[wrong]] if self.names else numbers[wrong]
        raise ValueError(
            f"column {name!r} of {self.name} must hold numbers, but is of "
            f"{frame.dtypes.iloc[wrong]} ({str(reason)[:60]}); turn it into "
            "numbers, or leave it out"
        )


def as_view(value: Any, name: str) -> Any:
    """Returns a frame of pandas with rows and columns, or an array of numbers.

    Args:
        value: a frame or series of pandas or polars, or anything that numpy makes an array of.
        name: for messages.

    Raises:
        ValueError: unless there are rows and columns, of numbers or text.
    """
    if type(value).__module__.startswith("polars"):
        value = value.to_pandas()
    if hasattr(value, "to_frame"):  # a series
        value = value.to_frame()
    if hasattr(value, "toarray"):
        raise ValueError(f"{name} must be dense, but is sparse; call its toarray()")
    if not hasattr(value, "iloc"):
        value = np.asarray(value)
        if value.ndim == 1:
            value = value.reshape(-1, 1)
    if value.ndim not in (2, 3) or 0 in value.shape:
        raise ValueError(
            f"{name} must have rows and columns, or rows, times and columns, at least one of "
            f"each, but has shape {tuple(value.shape)}"
        )
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
        if value.ndim == 3 or value.dtype.kind not in "OUS":
            raise ValueError(f"{name} must hold numbers, but is an array of {value.dtype}")
        import pandas as pd

        return pd.DataFrame(value).infer_objects()
    return value


def unseen_words(column: str, table: str, words: Iterable[str], rows: int) -> str:
    """Returns a sentence on words of a column that were not there to learn from.

    Args:
        column: its name.
        table: the name of its modality.
        words: each once.
        rows: how many have one of them.
    """
    words = list(words)
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    named = ", ".join(str(word)[:LONGEST] for word in words[:SHOWN])
    return (
        f"{column} of {table} has words that were not there to learn from, in {rows} "
        f"row{'s' * (rows != 1)}: {named}{more}; they count as missing"
    )


def present_rows(view: Any) -> np.ndarray:
    """Returns (rows,) bool: where a view has at least one cell that is not missing."""
    if isinstance(view, np.ndarray):
        if view.dtype.kind != "f":
            return np.ones(len(view), bool)
        return ~np.isnan(view.reshape(len(view), -1)).all(axis=1)
    return view.notna().to_numpy().any(axis=1)


def _first_of_words(frame: Any) -> int:
    """Returns the number of the first column that does not hold numbers."""
    for number in range(frame.shape[1]):
        try:
            frame.iloc[:, number].to_numpy(dtype=float, na_value=np.nan)
        except (TypeError, ValueError):
            return number
    return 0


def _names(frame: Any, name: str) -> tuple[str, ...]:
    names = tuple(map(str, frame.columns))
    twice = [n for n, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"columns of {name} must have different names, but {twice[:5]} come twice")
    return names


def _text_columns(frame: Any) -> list[int]:
    """Returns the numbers of the columns that hold no numbers, dates aside."""
    from pandas.api import types

    def is_text(dtype: Any) -> bool:
        numeric = types.is_numeric_dtype(dtype) and not types.is_bool_dtype(dtype)
        return not numeric and getattr(dtype, "kind", "O") not in "mM"

    dtypes = frame.infer_objects().dtypes
    texts = [number for number, dtype in enumerate(dtypes) if is_text(dtype)]
    return [n for n in texts if types.infer_dtype(frame.iloc[:, n]) not in NUMBERS]


def _mean_and_scale(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns both of each last index; an infinite scale of what is constant or empty."""
    if not numbers.size:
        return np.zeros(numbers.shape[-1]), np.ones(numbers.shape[-1])
    with np.errstate(all="ignore"):  # of columns without a number
        scaler = StandardScaler().fit(numbers.reshape(-1, numbers.shape[-1]))
    # where a variance is rounding alone, scikit-learn has the scale 1 in place of its root
    varied = (scaler.var_ > 0) & (np.sqrt(scaler.var_) == scaler.scale_)
    return np.nan_to_num(scaler.mean_), np.where(varied, scaler.scale_, np.inf)


def _written(column: Any) -> np.ndarray:
    """Returns a column's cells as text, alike whether a number was read as 1 or as 1.0."""
    missing = column.isna().to_numpy()
    cells = [_text(cell) for cell in column.to_numpy(dtype=object)]
    return np.where(missing, MISSING, np.array(cells, object))


def _text(cell: Any) -> str:
    whole = isinstance(cell, float) and cell.is_integer()
    return str(int(cell)) if whole else str(cell)


def _categories(cells: np.ndarray, texts: Sequence[int]) -> dict[int, list[str]]:
    """Returns the values of each column of text; a missing cell is none unless all are missing."""
    if not texts:
        return {}
    found = OneHotEncoder().fit(cells).categories_
    lists = [[v for v in values if v != MISSING] or [MISSING] for values in found]
    return dict(zip(texts, lists, strict=True))


def _column(view: Any, number: int) -> Any:
    """Returns a column of a frame, or of an array, as a series."""
    import pandas as pd

    return pd.Series(view[:, number]) if isinstance(view, np.ndarray) else view.iloc[:, number]


def _encoder(categories: list[list[str]]) -> OneHotEncoder:
    known = [np.array(values, object) for values in categories]
    encoder = OneHotEncoder(categories=known, handle_unknown="ignore", sparse_output=False)
    return encoder.fit(np.array([[values[0] for values in categories]], object))
