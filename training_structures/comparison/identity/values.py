"""Digests of values: functions with what they are bound to, objects with what they hold.

A value is the same where its code is the same, wherever that lies, and all that it holds. A
function of the project is known by its source, see `code`; one without a file, as of a notebook,
by its bytecode and the globals it names; one of a library by its name (of those whose versions
are not compared by its file, too). Each with the values that it is bound to: closure, defaults,
attributes. Other objects are known by what pickle would write of them, taken apart: that is
deterministic where a pickle's bytes are not, and needs no importable names. What pickle cannot
take apart (a lock, a generator, an open file) holds something that nobody can compare, and is
refused.
"""

import functools
import hashlib
import os
import sys
import types
import warnings
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .code import WHOLE, Code
from .modules import Module

VERSIONED = {"torch", "numpy", "sklearn", *sys.stdlib_module_names} - {"__main__"}
PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
WEIGHTS = 1 << 30  # bytes of files that are read whole; of larger ones the size is compared
BLOCK = 1 << 20
NOT_BOUND = {"__module__", "__dict__", "__weakref__", "__doc__", "__qualname__", "__annotations__"}


class Unidentified(ValueError):
    """Something that decides a run cannot be compared with another run's."""


class Values:
    """Digests of values, each object digested once.

    Args:
        code: of which functions and classes are.
        paths: whether files and folders that are named are read; else they do not count, as
            where what is read from them is digested itself.
        strict: whether what cannot be compared is refused; else it is left out, and so is code.
    """

    def __init__(self, code: Code, *, paths: bool = True, strict: bool = True) -> None:
        self.code, self.paths, self.strict = code, paths, strict
        self.used: set[tuple[Path, str]] = set()  # the definitions that were met
        self._left = WEIGHTS
        self._open: dict[int, int] = {}
        self._done: dict[int, tuple[Any, bytes]] = {}  # keeps them alive, so that ids stay theirs

    def digest(self, value: Any) -> bytes:
        """Returns the digest of a value.

        Raises:
            Unidentified: if it holds what cannot be compared.
        """
        if type(value) in PLAIN:
            return _hashed(type(value).__name__, repr(value).encode())
        known = self._done.get(id(value))
        if known is not None:
            return known[1]
        if id(value) in self._open:  # it holds itself
            return _hashed("again", str(self._open[id(value)]).encode())
        self._open[id(value)] = len(self._open)
        try:
            found = self._digest(value)
        finally:
            del self._open[id(value)]
        self._done[id(value)] = value, found
        return found

    def _all(self, kind: str, values: Iterable[Any]) -> bytes:
        return _hashed(kind, *map(self.digest, values))

    def _digest(self, value: Any) -> bytes:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if type(value) is np.ndarray and value.dtype != object:
            return _hashed("array", str((value.dtype.str, value.shape)).encode(), _buffer(value))
        if type(value) in (tuple, list):
            return self._all(type(value).__name__, value)
        if type(value) in (set, frozenset):
            return _hashed("set", *sorted(map(self.digest, value)))
        if type(value) in (dict, types.MappingProxyType):
            return self._all("dict", (part for item in value.items() for part in item))
        if isinstance(value, PurePath):
            return self._path(Path(value))
        if isinstance(value, (types.ModuleType, types.FunctionType, type)) and not self.strict:
            return b""
        if isinstance(value, types.ModuleType):
            return self._module(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, (staticmethod, classmethod)):
            return self._all(type(value).__name__, [value.__func__])
        if isinstance(value, property):
            return self._all("property", [value.fget, value.fset, value.fdel])
        return self._object(value)

    def _tensor(self, value: Tensor) -> bytes:
        if value.layout != torch.strided or value.is_quantized:
            value = value.to_dense() if not value.is_quantized else value.dequantize()
        value = value.detach().cpu().contiguous()
        kind = str((value.dtype, tuple(value.shape))).encode()
        return _hashed("tensor", kind, _buffer(value.reshape(-1).view(torch.uint8).numpy()))

    def _object(self, value: Any) -> bytes:
        if type(value).__module__.startswith("scipy.stats") and hasattr(value, "dist"):
            # it also holds the global random generator, which moves on
            return self._all("distribution", [value.dist.name, value.args, value.kwds])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reduced = value.__reduce_ex__(4)
        except Exception as error:  # whatever an object says instead
            if not self.strict:
                return b""
            raise Unidentified(
                "what decides a run must be functions, classes and values that can be compared "
                f"with another run's, but it holds a {type(value).__qualname__} ({error}); make "
                "it where it is needed"
            ) from error
        if isinstance(reduced, str):
            wrapped = getattr(value, "__wrapped__", None)
            named = f"{getattr(value, '__module__', None)}.{reduced}"
            return self._all("named", [named if wrapped is None else wrapped])
        make, args, *state = reduced
        items = [list(part) if i and part is not None else part for i, part in enumerate(state)]
        return self._all("object", [make, args, *items[:3]])

    def _path(self, path: Path) -> bytes:
        """Digests what is there, not its name."""
        if not self.strict and path.is_file():
            stat = path.stat()
            self._left -= stat.st_size
            said = _contents(path, stat.st_size, stat.st_mtime_ns) if self._left >= 0 else b""
            return _hashed("file", said or f"{stat.st_size} {stat.st_mtime_ns}".encode())
        if not self.paths:
            return b""
        if not path.exists():
            return _hashed("path", str(path).encode())
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        parts, left = [], WEIGHTS
        for file in files:
            stat = file.stat()
            left -= stat.st_size
            whole = left >= 0
            said = _contents(file, stat.st_size, stat.st_mtime_ns) if whole else b"large"
            parts += [file.relative_to(path).as_posix().encode(), str(stat.st_size).encode(), said]
        return _hashed("files", *parts)

    def _module(self, module: types.ModuleType) -> bytes:
        found = self.code.module(module.__name__)
        if found is not None:
            return self._defined(found, WHOLE)
        return _hashed("module", module.__name__.encode())

    def _defined(self, module: Module, name: str) -> bytes:
        self.used.add((module.path, name))
        return self.code.digest(module, name)

    def _function(self, function: types.FunctionType) -> bytes:
        return _hashed("function", self._said(function), self._bound(function))

    def _bound(self, function: types.FunctionType) -> bytes:
        cells = [c.cell_contents for c in function.__closure__ or () if not _is_empty(c)]
        own = {k: v for k, v in vars(function).items() if k != "__wrapped__"}
        return self._all("bound", [cells, function.__defaults__, function.__kwdefaults__, own])

    def _said(self, function: types.FunctionType) -> bytes:
        code = function.__code__
        module = self.code.file(code.co_filename, function.__globals__.get("__package__") or "")
        if module is not None:
            inside = b""
            if "<" in function.__qualname__:  # one among those of a definition
                found = module.functions_at(code.co_firstlineno, code.co_name)
                inside = "".join(self.code.said(module, node) for node in found).encode()
                inside += _bytecode(code) if len(found) != 1 else b""
            return _hashed("said", self._defined(module, module.at(code.co_firstlineno)), inside)
        if _is_library(function, code.co_filename):
            return self._named(function)
        names = {name for each in _codes(code) for name in each.co_names}
        there = {n: function.__globals__[n] for n in sorted(names) if n in function.__globals__}
        return _hashed("code", _bytecode(code), self.digest(there))

    def _named(self, value: Any) -> bytes:
        """Digests a function or class of a library by its name, and its file where need be."""
        top = (value.__module__ or "").partition(".")[0]
        own = b""
        file = getattr(sys.modules.get(value.__module__ or ""), "__file__", None)
        if top not in VERSIONED and file is not None and os.path.isfile(file):
            own = Path(file).read_bytes()
        return _hashed("library", f"{value.__module__}.{value.__qualname__}".encode(), own)

    def _class(self, kind: type) -> bytes:
        module, top = self.code.module(kind.__module__), kind.__qualname__.partition(".")[0]
        there = module and self.code.resolved(module, (top,), module.imports)
        if isinstance(there, tuple):
            own = self._members(kind) if "<locals>" in kind.__qualname__ else b""
            return _hashed("class", self._defined(*there), kind.__qualname__.encode(), own)
        file = getattr(sys.modules.get(kind.__module__), "__file__", None)
        if module is None and (file or kind.__module__.partition(".")[0] in VERSIONED):
            return self._named(kind)
        return _hashed("class", kind.__qualname__.encode(), self._members(kind))

    def _members(self, kind: type) -> bytes:
        """Digests what a class holds that was made inside of a function, or has no file."""
        own = {k: v for k, v in vars(kind).items() if k not in NOT_BOUND}
        slots = (types.MemberDescriptorType, types.GetSetDescriptorType)
        own = {k: v for k, v in sorted(own.items()) if not isinstance(v, slots)}
        return self.digest([kind.__bases__, own])


def _hashed(kind: str, *parts: Any) -> bytes:
    digest = hashlib.sha256(kind.encode())
    for part in parts:
        digest.update(f"\0{len(part)}\0".encode())
        digest.update(part)
    return digest.digest()


@functools.cache
def _contents(file: Path, size: int, changed: int) -> bytes:
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(BLOCK):
            digest.update(block)
    return digest.digest()


def _buffer(array: np.ndarray) -> memoryview:
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _is_empty(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def _codes(code: types.CodeType) -> Iterable[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _bytecode(code: types.CodeType) -> bytes:
    """Digests what a function does, without where it is written."""
    parts = []
    for each in _codes(code):
        constants = [  # of a set in the order of its texts, for its own differs between processes
            sorted(map(repr, c)) if isinstance(c, frozenset) else repr(c)
            for c in each.co_consts
            if not isinstance(c, types.CodeType)
        ]
        parts += [each.co_code, repr((each.co_names, each.co_varnames, constants)).encode()]
    return _hashed("bytecode", *parts)


def _is_library(function: types.FunctionType, file: str) -> bool:
    """Says whether a function is found by its name in a module that has a file."""
    found: Any = sys.modules.get(function.__module__ or "")
    if found is None or getattr(found, "__file__", None) is None:
        return False
    try:
        return functools.reduce(getattr, function.__qualname__.split("."), found) is not None
    except AttributeError:
        return os.path.isfile(file)
