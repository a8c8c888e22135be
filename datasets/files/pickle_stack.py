"""The stack of the machine that a pickle is a program of, and the stream that it reads.

Nothing is read that the file does not hold, no key takes long to hash or compare, and every step
is counted.
"""

import codecs
import pickle
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np

from .reading import shown

STEPS = 4_000_000  # a number or text is one, what makes or remembers an object is HEAVY
HEAVY = 4
LINE = 8192  # bytes of a number or name that is written as text
KEY_TEXT, KEY_PARTS, CLASHES = 1000, 16, 16  # of a key: characters, entries; others of its hash
EMPTY = "an operation finds too little on the stack"
LARGE = 1 << 20  # bytes that may be asked for without a look at what is left


class Refused(ValueError):
    """Completes the sentence "the file may hold arrays and plain containers only, but it ..."."""


class WrongEncoding(ValueError):
    """Completes the sentence "the strings of Python 2 in the file must be ASCII, but ..."."""


class Buffer:
    """A large bytearray, which only an array may use: filling one with zeros first takes long."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray):
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __str__(self) -> str:
        return f"a bytearray of {len(self):,} bytes, more than {LARGE:,}"


class Stack:
    """The stack that the operations of a pickle work on, and its hooks for names and calls.

    Args:
        stream: an open file, at its start.
        size: its bytes.
        encoding: how to read the strings of Python 2; "bytes" leaves them as they are.
    """

    def __init__(self, stream: BinaryIO, size: int, *, encoding: str):
        self.size, self._encoding = size, encoding
        self._stream, self._read = stream, stream.read
        self._left = STEPS
        self._stack: list[Any] = []
        self._marks = [0]  # the last is where the stack must not be taken from below
        self._memo: dict[int, Any] = {}
        self._clashes: dict[int, dict[int, int]] = {}
        self._push = self._stack.append

    def find(self, module: str, name: str) -> Any:
        """Returns what a name stands for."""
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def call(self, function: Any, args: tuple) -> Any:
        """Returns what a call gives."""
        raise pickle.UnpicklingError(f"it calls {shown(function)}")

    def build(self, target: Any, state: Any) -> None:
        """Sets the state of an object."""
        raise pickle.UnpicklingError(f"it sets the state of {shown(target)}")

    def charge(self, steps: int) -> None:
        """Counts further steps; `steps` is what the work at hand takes."""
        self._left -= steps
        if self._left < 0:
            raise pickle.UnpicklingError(
                f"it takes more than {STEPS:,} steps; lists of numbers should be arrays"
            )

    def check_keys(self, keys: Iterable[Any], clashes: dict[int, int]) -> None:
        """Refuses keys that take long to hash or compare, or are not found again.

        `clashes` counts the hashes of one dict's or set's keys: those of tuples can be forged.
        """
        for key in keys:
            if type(key) is str and len(key) <= KEY_TEXT:
                continue
            parts = [key]
            for part in parts:  # which grows on the way
                if type(part) in (tuple, frozenset) and len(parts) + len(part) <= KEY_PARTS:
                    parts.extend(part)
                elif not _is_simple(part):
                    raise pickle.UnpicklingError(f"it uses {shown(part)} as a key")
            if len(parts) > 1:
                clashes[hash(key)] = count = clashes.get(hash(key), 0) + 1
                if count > CLASHES:
                    raise pickle.UnpicklingError("many of its keys have the same hash")
                self.charge(count * len(parts))

    def _take(self, count: int) -> list[Any]:
        start = len(self._stack) - count
        if start < self._marks[-1]:
            raise pickle.UnpicklingError(EMPTY)
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def _take_marked(self) -> list[Any]:
        if len(self._marks) == 1:
            raise pickle.UnpicklingError("a mark is missing on the stack")
        taken = self._take(len(self._stack) - self._marks[-1])
        self._marks.pop()
        return taken

    def _check_room(self, count: int) -> None:
        if count < 0 or count > self.size - self._stream.tell():
            raise EOFError(f"it declares {count:,} bytes, which are not there")

    def _get_bytes(self, count: int) -> bytes:
        if not 0 <= count <= LARGE:
            self._check_room(count)
        content = self._read(count)
        if len(content) < count:
            raise EOFError("it ends too early")
        return content

    def _get_number(self, width: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._get_bytes(width), "little", signed=signed)

    def _get_line(self, limit: int = LINE) -> bytes:
        line = self._stream.readline(limit + 1)
        if not line.endswith(b"\n"):
            raise EOFError("a line of it has no end")
        return line[:-1]

    def _get_name(self) -> str:
        return self._get_line().decode("utf-8")

    def _quoted(self, line: bytes) -> str | bytes:
        line = line.strip()
        if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
            raise pickle.UnpicklingError("a string of it is not in quotes")
        return self._string(codecs.escape_decode(line[1:-1])[0])

    def _string(self, content: bytes) -> str | bytes:
        try:
            return content if self._encoding == "bytes" else content.decode(self._encoding)
        except UnicodeDecodeError as error:
            raise WrongEncoding(error) from error


def _is_simple(key: Any) -> bool:
    """Whether a key is text, bytes or a number, none that can be made to clash or is not equal
    to itself."""
    key = key.item() if isinstance(key, np.generic) else key
    if type(key) in (str, bytes):
        return len(key) <= KEY_TEXT
    if type(key) is int:
        return key.bit_length() < 64
    return key is None or type(key) is bool or type(key) is float and key == key
