"""Pickles of NumPy arrays and plain containers, read without running anything of theirs.

A pickle is a program: it names functions and calls them. Here every name it may use stands for
code of this file, which builds arrays and containers out of checked numbers, text and bytes. Not
even NumPy's own constructors are handed over, since a forged dtype can lie about what lies in
memory. All other names are refused before anything is called.
"""

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from os import fstat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .numbers import count_bytes
from .pickle_contents import check_contents
from .pickle_machine import Machine
from .pickle_stack import HEAVY, Buffer, Refused, WrongEncoding
from .reading import open_regular, shown

MADE = 3  # bytes that calls may make, for each of the file's: Python 2's text becomes bytes so
PLAIN_FLAGS = 0, 8, 128, 136  # of a dtype of numbers or text: NumPy's "init" and "aligned"
ARRAY_VERSIONS, DTYPE_VERSIONS = range(2), range(3, 5)  # of states, as NumPy 1.0 on writes them
NESTED = 20  # arrays of objects directly within one another


def load(path: str | Path, *, encoding: str = "ASCII") -> Any:
    """Returns what the file holds: NumPy arrays and numbers, and plain containers of them.

    Allowed are None, bool, int, float, complex, str, bytes, bytearray (of up to 1 MiB), dict,
    OrderedDict, list, tuple, set, frozenset, and arrays of numbers, text, bytes or (held to the
    same rule) objects, as Python 2 and 3 write them with any protocol. Records, dates and
    subclasses are not.

    Whatever the file, no more memory is taken than a few times its size and 500 MB, and no more
    than a few seconds beyond reading it: see `pickle_stack` for the bounds, and
    `pickle_contents` for those of what is shared. Text may hold halves of surrogate pairs.

    Args:
        path: the file.
        encoding: how to read the strings of Python 2; its arrays need "latin1".

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or no pickle, names anything else, or goes beyond a
            bound; nothing of it has run.
    """
    with open_regular(path, advice="check the path") as stream:
        return _load(stream, path, encoding)


def _load(stream: BinaryIO, path: str | Path, encoding: str) -> Any:
    size = fstat(stream.fileno()).st_size
    machine = _Unpickler(stream, size, encoding=encoding)
    try:
        content = machine.run()
        check_contents(content, unfinished=machine.unfinished, size=size)
        return content
    except Refused as error:
        raise ValueError(
            f"{path} may hold NumPy arrays and plain containers only, but it {error}; nothing of "
            "it was run: get it from its publisher, or save it again as plain arrays"
        ) from error
    except WrongEncoding as error:
        raise ValueError(
            f"the text in {path} must be {encoding}, but {error}; pickles of Python 2 need "
            'encoding="latin1"'
        ) from error
    except DAMAGED as error:
        raise ValueError(
            f"{path} must be a whole pickle, but reading it ended with "
            f"{type(error).__name__}: {shown(str(error), 200)[1:-1]}; get it again"
        ) from error


# TypeError: what stands for a name was called with too many or too few arguments.
DAMAGED = (pickle.UnpicklingError, EOFError, BufferError, TypeError, ValueError)


class _Name:
    """A name in the pickle; unlike on a function or class, nothing can be set on it.

    A pickle may set the attributes of all that it holds, and so change code that others run.
    """

    __slots__ = ("name", "make")

    def __init__(self, name: str, make: Callable[..., Any]):
        self.name, self.make = name, make

    def __str__(self) -> str:
        return self.name


class _Dtype:
    """A dtype of numbers, text, bytes or objects; its byte order comes after the rest."""

    __slots__ = ("value",)

    def __init__(self, code: Any, align: Any = False, copy: Any = False):
        code = code.decode("latin1") if type(code) is bytes else code
        if type(code) is not str or not re.fullmatch(r"[biufcSU][1-9]\d{0,8}|O\d{0,2}", code):
            raise Refused(f"has an array of dtype {shown(code)}")
        self.value = np.dtype(object if code[0] == "O" else code)

    def __str__(self) -> str:
        return "a dtype"

    def set_state(self, state: Any) -> None:
        if type(state) is not tuple or len(state) < 5:
            raise pickle.UnpicklingError(f"a dtype's state is {shown(state)}")
        _check_version(state[0], DTYPE_VERSIONS)
        order, rest = state[1], state[2:]
        # subarray, names and fields of records; then sizes, which the code says; then metadata
        if any(entry is not None for entry in (*rest[:3], *rest[6:])):
            raise Refused("has an array of records, dates or annotated numbers")
        for said, size in zip(rest[3:5], (self.value.itemsize, self.value.alignment), strict=False):
            if said not in (-1, size):
                raise pickle.UnpicklingError(f"a dtype of size {size} has the size {shown(said)}")
        flags = rest[5] if len(rest) > 5 else 0
        if not self.value.hasobject and flags not in PLAIN_FLAGS:
            raise pickle.UnpicklingError(f"a dtype of no objects has the flags {shown(flags)}")
        order = order.decode("latin1") if type(order) is bytes else order
        if type(order) is not str or order not in ("<", ">", "|", "="):
            raise Refused(f"has an array of byte order {shown(order)}")
        self.value = self.value.newbyteorder(order)


class _Unpickler(Machine):
    """The machine, with arrays and containers for names.

    Attributes:
        unfinished: the arrays whose state has not come yet, by their id.
    """

    def __init__(self, stream: BinaryIO, size: int, *, encoding: str):
        super().__init__(stream, size, encoding=encoding)
        self.unfinished: dict[int, np.ndarray] = {}
        self._depths: dict[int, int] = {}
        self._room = MADE * size + 1024

    def find(self, module: str, name: str) -> _Name:
        """Never looks anything up: an unknown name is not even imported."""
        today = module.replace("numpy.core", "numpy._core").replace("__builtin__", "builtins")
        if (today, name) not in ALLOWED:
            raise Refused(f"names {shown(f'{module}.{name}')[1:-1]}")
        return _Name(f"{module}.{name}", ALLOWED[today, name])

    def call(self, function: Any, args: tuple) -> Any:
        if type(function) is not _Name:
            return super().call(function, args)
        return function.make(self, *args)

    def build(self, target: Any, state: Any) -> None:
        if type(target) is _Name:
            raise Refused(f"changes {target}")
        if type(target) is _Dtype:
            target.set_state(state)
        elif id(target) in self.unfinished:
            self._fill_array(target, state)
            del self.unfinished[id(target)]
        else:
            super().build(target, state)

    def make_room(self, size: int) -> None:
        """Counts bytes that a call makes out of others: the same few could be used for ever."""
        self._room -= size
        if self._room < 0:
            raise pickle.UnpicklingError("it makes far more of its bytes than there are")

    def numbers(self, content: Any, dtype: Any, shape: Any, fortran: Any) -> np.ndarray:
        """Returns an array; `content` is bytes, or Python 2's string of them, and not copied."""
        if type(content) in (bytearray, Buffer):
            real, shape = self._measure(content, dtype, shape)
            if not len(content):
                return np.zeros(shape, real)
            # numpy.frombuffer keeps the pickle from growing, and so moving, the bytearray.
            content = content.array if type(content) is Buffer else content
            return np.frombuffer(content, real).reshape(shape, order="F" if fortran else "C")
        array = np.empty(0, np.uint8)
        self._set_numbers(array, content, dtype, shape, fortran)
        return array

    def _measure(self, content: Any, dtype: Any, shape: Any) -> tuple[np.dtype, tuple[int, ...]]:
        """Returns the dtype and shape, which `content` fits."""
        real = _real(dtype)
        if real.hasobject or type(content) not in (bytes, bytearray, Buffer):
            raise Refused("has an array whose numbers are no bytes")
        shape = (shape,) if type(shape) is int else shape
        if len(content) != count_bytes(shape, real.itemsize):
            raise ValueError("an array's bytes and its shape must agree")
        return real, shape

    def _set_numbers(
        self, array: np.ndarray, content: Any, dtype: Any, shape: Any, fortran: Any
    ) -> None:
        if type(content) is str:
            self.make_room(len(content))
            content = content.encode("latin1")
        if type(content) is Buffer:
            raise pickle.UnpicklingError("the numbers of an array are a bytearray")
        real, shape = self._measure(content, dtype, shape)
        self.make_room(len(content))  # which are copied if they are few, or of another byte order
        # Its own state, checked by now, makes it writable without a copy.
        array.__setstate__((1, shape, real, bool(fortran), bytes(content)))

    def _fill_array(self, array: np.ndarray, state: Any) -> None:
        if type(state) is not tuple or len(state) < 4:
            raise pickle.UnpicklingError(f"an array's state is {shown(state)}")
        _check_version(state[0] if len(state) > 4 else 0, ARRAY_VERSIONS)
        shape, dtype, fortran, content = state[-4:]
        if not _real(dtype).hasobject:
            self._set_numbers(array, content, dtype, shape, fortran)
            return
        if type(content) is not list or 8 * len(content) != count_bytes(shape, 8):
            raise ValueError("an array's objects and its shape must agree")
        self.charge(len(content))
        # Unlike a list's, an array's end takes the machine's stack for each array within it.
        inner = [entry for entry in content if type(entry) is np.ndarray]
        depth = 1 + max((self._depths.get(id(entry), 0) for entry in inner), default=0)
        if depth > NESTED or any(id(entry) in self.unfinished for entry in inner):
            raise pickle.UnpicklingError("arrays of objects lie in one another, or in themselves")
        self._depths[id(array)] = depth
        array.__setstate__((1, shape, np.dtype(object), bool(fortran), content))


def _check_version(version: Any, known: range) -> None:
    if type(version) is not int or version not in known:
        raise pickle.UnpicklingError(
            f"a state is of version {shown(version)}, not one of {list(known)}"
        )


def _new_array(machine: _Unpickler, subtype: Any, *_: Any) -> np.ndarray:
    if type(subtype) is not _Name or subtype.make is not _no_array:
        raise Refused("has an array of a class of its own")
    array = np.empty(0, np.uint8)
    machine.unfinished[id(array)] = array
    return array


def _no_array(machine: _Unpickler, *_: Any) -> None:
    raise Refused("calls numpy.ndarray")


def _from_buffer(
    machine: _Unpickler, content: Any, dtype: Any, shape: Any, order: Any = "C", axes: Any = None
) -> np.ndarray:
    array = machine.numbers(content, dtype, shape, type(order) is str and order == "F")
    return array if axes is None else array.transpose(axes)


def _scalar(machine: _Unpickler, dtype: Any, content: Any = None) -> Any:
    return machine.numbers(content, dtype, (), False)[()]


def _real(dtype: Any) -> np.dtype:
    if type(dtype) is not _Dtype:
        raise Refused("has an array without a dtype")
    return dtype.value


def _encode(machine: _Unpickler, text: Any, encoding: Any = None) -> bytes:
    """Python 3 writes bytes so with protocols up to 2; other codecs would be imported."""
    if type(text) is not str or type(encoding) is not str or encoding not in ("latin1", "latin-1"):
        raise Refused(f"encodes with {shown(encoding)}")
    machine.make_room(len(text))
    return text.encode("latin1")


def _make_bytes(machine: _Unpickler, content: Any = b"", encoding: Any = None) -> bytes:
    """A number would be a size, and make a short file fill the memory."""
    return content if type(content) is bytes else _encode(machine, content, encoding)


def _make_bytearray(machine: _Unpickler, *args: Any) -> bytearray:
    content = _make_bytes(machine, *args)
    machine.make_room(len(content))
    return bytearray(content)


def _make_set(machine: _Unpickler, entries: Any = (), *, kind: type = set) -> set | frozenset:
    if type(entries) not in (list, tuple):
        raise pickle.UnpicklingError(f"it makes a set of {shown(entries)}")
    machine.charge(len(entries))
    machine.check_keys(entries, {})
    return kind(entries)


def _make_ordered(machine: _Unpickler, pairs: Any = ()) -> OrderedDict:
    """Python 2 gives the pairs with the call."""
    if type(pairs) not in (list, tuple) or any(
        type(pair) not in (list, tuple) or len(pair) != 2 for pair in pairs
    ):
        raise pickle.UnpicklingError(f"it makes an OrderedDict of {shown(pairs)}")
    machine.charge(HEAVY * len(pairs))
    made = OrderedDict()
    machine.fill(made, [entry for pair in pairs for entry in pair])
    return made


def _make_complex(machine: _Unpickler, real: Any, imaginary: Any = 0.0) -> complex:
    if type(real) not in (int, float) or type(imaginary) not in (int, float):
        raise pickle.UnpicklingError(f"it makes a complex number of {shown(real)}")
    return complex(real, imaginary)


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _no_array,
    ("numpy", "dtype"): lambda machine, *args: _Dtype(*args),
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _make_ordered,
    ("builtins", "bytes"): _make_bytes,
    ("builtins", "bytearray"): _make_bytearray,
    ("builtins", "set"): _make_set,
    ("builtins", "frozenset"): partial(_make_set, kind=frozenset),
    ("builtins", "complex"): _make_complex,
}
