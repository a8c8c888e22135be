"""Pickles of NumPy arrays and plain containers, read without running anything of theirs.

A pickle is a program: it names functions and calls them. Here every name it may use stands for
code of this file, which builds arrays and containers out of checked numbers, text and bytes. Not
even NumPy's own constructors are handed over, since a forged dtype can lie about what lies in
memory. All other names are refused before anything is called.
"""

import copyreg
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray)


def load(path: str | Path, *, encoding: str = "ASCII") -> Any:
    """Returns what the file holds: NumPy arrays and numbers, and plain containers of them.

    Allowed are None, bool, int, float, complex, str, bytes, dict, OrderedDict, list, tuple, set,
    frozenset, and arrays of numbers, text, bytes or (held to the same rule) objects, as Python 2
    and 3 write them with any protocol. Records, dates and subclasses are not.

    Args:
        path: the file.
        encoding: how to read the strings of Python 2; its arrays need "latin1".

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or no pickle, or names anything else; nothing of that
            has run.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; check the path")
    # A cached extension would be handed over without asking for its name.
    copyreg.clear_extension_cache()
    try:
        with path.open("rb") as stream:
            return _resolve(_Unpickler(stream, encoding=encoding).load(), {})
    except _Refused as error:
        raise ValueError(
            f"{path} may hold NumPy arrays and plain containers only, but it {error}; nothing of "
            "it was run: get it from its publisher, or save it again as plain arrays"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the text in {path} must be {encoding}, but {error}; pickles of Python 2 need "
            'encoding="latin1"'
        ) from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(
            f"{path} must be a whole pickle, but reading it ended with "
            f"{type(error).__name__}: {error}; get it again"
        ) from error


class _Refused(ValueError):
    """Completes the sentence "the file may hold arrays and plain containers only, but it ..."."""


class _Name:
    """What a name in the pickle stands for; unlike a function or class, nothing can be set on it.

    A pickle may set the attributes of all that it holds, and so change code that others run.
    """

    __slots__ = ("_name", "_make")

    def __init__(self, name: str, make: Callable[..., Any]):
        self._name, self._make = name, make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        raise _Refused(f"changes {self._name}")


class _Dtype:
    """A dtype of numbers, text, bytes or objects; its byte order comes after the rest."""

    __slots__ = ("value",)

    def __init__(self, code: str | bytes, align: bool = False, copy: bool = False):
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not re.fullmatch(r"[biufcSU][1-9]\d{0,8}|O\d{0,2}", code):
            raise _Refused(f"has an array of dtype {code!r}")
        self.value = np.dtype(object if code[0] == "O" else code)

    def __setstate__(self, state: tuple) -> None:
        _, order, *rest = state
        # subarray, names and fields of records; then sizes, which the code says; then metadata
        if any(entry is not None for entry in (*rest[:3], *rest[6:])):
            raise _Refused("has an array of records, dates or annotated numbers")
        order = order.decode("ascii") if isinstance(order, bytes) else order
        if order not in ("<", ">", "|", "="):
            raise _Refused(f"has an array of byte order {order!r}")
        self.value = self.value.newbyteorder(order)


class _Array:
    """An array to be; `value` is there once its state has come."""

    __slots__ = ("value",)

    def __init__(self, value: np.ndarray | None = None):
        self.value = value

    def __setstate__(self, state: tuple) -> None:
        shape, dtype, fortran, content = state[-4:]
        order = "F" if fortran else "C"
        if not _real(dtype).hasobject:
            self.value = _numbers(content, dtype, shape, order)
            return
        if type(content) is not list or len(content) != math.prod(_checked(shape)):
            raise ValueError("an array's objects and its shape must agree")
        self.value = np.empty(len(content), dtype=object)
        for index, entry in enumerate(content):
            self.value[index] = entry
        self.value = self.value.reshape(shape, order=order)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> _Name:
        """Never looks anything up: an unknown name is not even imported."""
        today = module.replace("numpy.core", "numpy._core").replace("__builtin__", "builtins")
        if (today, name) not in ALLOWED:
            raise _Refused(f"names {module}.{name}")
        return _Name(f"{module}.{name}", ALLOWED[today, name])


def _new_array(subtype: Any, *_: Any) -> _Array:
    if not isinstance(subtype, _Name) or subtype._make is not _no_array:
        raise _Refused("has an array of a class of its own")
    return _Array()


def _no_array(*_: Any) -> None:
    raise _Refused("calls numpy.ndarray")


def _from_buffer(
    content: Any, dtype: Any, shape: Any, order: str = "C", axes: tuple | None = None
) -> _Array:
    array = _numbers(content, dtype, shape, "F" if order == "F" else "C")
    return _Array(array if axes is None else array.transpose(axes))


def _scalar(dtype: Any, content: Any = None) -> Any:
    return _numbers(content, dtype, (), "C")[()]


def _numbers(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """Returns the array without a copy; `content` is bytes, or Python 2's string of them."""
    real, shape = _real(dtype), _checked(shape)
    content = content.encode("latin1") if isinstance(content, str) else content
    if real.hasobject or not isinstance(content, (bytes, bytearray)):
        raise _Refused("has an array whose numbers are no bytes")
    if len(content) != real.itemsize * math.prod(shape):
        raise ValueError("an array's bytes and its shape must agree")
    if not len(content):
        return np.zeros(shape, real)
    if isinstance(content, bytes):
        array = np.empty(0, real)  # which its own state, checked by now, makes writable
        array.__setstate__((1, shape, real, order == "F", content))
        return array
    # Unlike numpy.ndarray, this keeps the pickle from growing, and so moving, the bytearray.
    return np.frombuffer(content, real).reshape(shape, order=order)


def _real(dtype: Any) -> np.dtype:
    if not isinstance(dtype, _Dtype):
        raise _Refused("has an array without a dtype")
    return dtype.value


def _checked(shape: Any) -> tuple[int, ...]:
    shape = (shape,) if type(shape) is int else shape
    if type(shape) is not tuple or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"an array's shape must be whole numbers, got {shape!r}")
    return shape


def _encode(text: Any, encoding: Any = None) -> bytes:
    """Python 3 writes bytes so with protocols up to 2; other codecs would be imported."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"encodes with {encoding!r}")
    return text.encode("latin1")


def _make_bytes(content: Any = b"", encoding: Any = None) -> bytes:
    """A number would be a size, and make a short file fill the memory."""
    return content if type(content) is bytes else _encode(content, encoding)


def _resolve(value: Any, done: dict[int, Any]) -> Any:
    """Returns `value` with the arrays in the place of `_Array`; what is not plain is refused.

    `done` maps the ids of containers to what they became, which keeps shared ones shared.
    """
    kind = type(value)
    if kind in PLAIN or isinstance(value, np.generic):
        return value
    if id(value) in done:
        return done[id(value)][1]
    if kind is _Array and value.value is not None:
        result = value.value
    elif kind in (list, dict, OrderedDict):
        result = kind()
    elif kind in (tuple, set, frozenset):
        result = kind(_resolve(entry, done) for entry in value)
    else:
        what = value._name if kind is _Name else "a dtype or an unfinished array"
        raise _Refused(f"holds {what}")
    done[id(value)] = value, result  # `value` is kept, or another could take its id
    if kind is list:
        result.extend(_resolve(entry, done) for entry in value)
    elif kind in (dict, OrderedDict):
        for key, entry in kind.items(value):
            result[_resolve(key, done)] = _resolve(entry, done)
    elif kind is _Array and result.dtype.hasobject:
        for index in np.ndindex(result.shape):
            result[index] = _resolve(result[index], done)
    return result


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _no_array,
    ("numpy", "dtype"): _Dtype,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "bytes"): _make_bytes,
    ("builtins", "bytearray"): lambda *args: bytearray(_make_bytes(*args)),
    **{("builtins", kind.__name__): kind for kind in (set, frozenset, complex)},
}
