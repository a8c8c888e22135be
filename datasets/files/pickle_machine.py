"""The operations of the machine that a pickle is a program of.

Python's own can be made to hang by a hundred bytes, and to take gigabytes by eight. What names,
calls and states mean is left to a subclass: by itself this one refuses them all.
"""

import copyreg
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .pickle_stack import EMPTY, HEAVY, LARGE, LINE, Buffer, Stack
from .reading import shown

INTEGER = 1024  # bytes of an integer; turning more into text would take long


class Machine(Stack):
    """Reads one pickle from a stream: `run()` returns what it holds."""

    def run(self) -> Any:
        """Returns what the pickle holds.

        Raises:
            pickle.UnpicklingError: if it is damaged, or goes beyond a bound.
            EOFError: if it is cut off.
            TypeError: if a call or an operation does not fit what it is given.
            ValueError: if a number or an array of it is none.
            BufferError: if it changes what an array holds.
            WrongEncoding: if a string of Python 2 is of another encoding.
        """
        read, operations = self._read, self._operations()
        while (code := read(1)) != pickle.STOP:
            try:
                operation, cost = operations[code]
            except KeyError:
                what = f"the unknown operation {code!r}" if code else "no end"
                raise (pickle.UnpicklingError if code else EOFError)(f"it has {what}") from None
            self._left = left = self._left - cost
            if left < 0:
                self.charge(0)
            operation()
        if read(1):
            raise pickle.UnpicklingError("more follows behind its end")
        return self._take(1)[0]

    # What follows are the operations, each named after what it leaves on the stack or does to it.

    def _fixed(self, form: struct.Struct) -> None:
        self._push(form.unpack(self._get_bytes(form.size))[0])

    def _sized(self, width: int, convert: Callable[[bytes], Any], *, signed: bool = False) -> None:
        self._push(convert(self._get_bytes(self._get_number(width, signed=signed))))

    def _short(self, convert: Callable[[bytes], Any]) -> None:
        size = self._read(1)  # most operations are this one, so it calls no others
        content = self._read(size[0] if size else 1)
        if not size or len(content) < size[0]:
            raise EOFError("it ends too early")
        self._push(convert(content))

    def _bytearray(self) -> None:
        count = self._get_number(8)
        self._check_room(count)
        content = bytearray(count) if count < LARGE else Buffer(np.empty(count, np.uint8))
        if self._stream.readinto(content if count < LARGE else content.array) < count:
            raise EOFError("it ends too early")
        self._push(content)

    def _line(self, convert: Callable[[bytes], Any], *, limit: int = LINE) -> None:
        self._push(convert(self._get_line(limit)))

    def _put(self, index: Callable[[], int]) -> None:
        if len(self._stack) <= self._marks[-1]:
            raise pickle.UnpicklingError(EMPTY)
        self._memo[index()] = self._stack[-1]

    def _get(self, index: Callable[[], int]) -> None:
        place = index()
        if place not in self._memo:
            raise pickle.UnpicklingError(f"it remembers nothing as number {shown(place)}")
        self._push(self._memo[place])

    def _tuple(self, count: int) -> None:
        self._push(tuple(self._take(count)))

    def _marked(self, kind: Callable[[list], Any]) -> None:
        self._push(kind(self._take_marked()))

    def _duplicate(self) -> None:
        self._stack.extend(self._take(1) * 2)

    def _pop(self) -> None:
        if len(self._stack) > self._marks[-1]:
            self._take(1)
        else:  # a mark may be popped, too
            self._take_marked()

    def _append(self, entries: Callable[[], list]) -> None:
        entries = entries()
        (target,) = self._take(1)
        if type(target) not in (list, bytearray):
            raise pickle.UnpicklingError(f"it appends to {shown(target)}")
        target.extend(entries)
        self._push(target)

    def _set_items(self, entries: Callable[[], list]) -> None:
        entries = entries()
        (target,) = self._take(1)
        self.fill(target, entries)
        self._push(target)

    def fill(self, target: Any, entries: list) -> None:
        """Adds keys and values, which take turns, to a dict."""
        if type(target) not in (dict, OrderedDict) or len(entries) % 2:
            raise pickle.UnpicklingError(f"it sets items of {shown(target)}")
        keys = entries[::2]
        self.check_keys(keys, self._clashes.setdefault(id(target), {}))
        expected = len(target) + len(keys)
        target.update(zip(keys, entries[1::2], strict=True))
        if len(target) < expected:
            raise pickle.UnpicklingError("a key of it occurs twice in a dict")

    def _dict(self) -> None:
        entries, made = self._take_marked(), {}
        self.fill(made, entries)
        self._push(made)

    def _frozenset(self) -> None:
        entries = self._take_marked()
        self.check_keys(entries, {})
        self._push(frozenset(entries))

    def _add_items(self) -> None:
        entries = self._take_marked()
        (target,) = self._take(1)
        if type(target) is not set:
            raise pickle.UnpicklingError(f"it adds to {shown(target)}")
        self.check_keys(entries, self._clashes.setdefault(id(target), {}))
        target.update(entries)
        self._push(target)

    def _global(self) -> None:
        self._push(self.find(self._get_name(), self._get_name()))

    def _stack_global(self) -> None:
        module, name = self._take(2)
        if type(module) is not str or type(name) is not str:
            raise pickle.UnpicklingError("a name of it must be text")
        self._push(self.find(module, name))

    def _extension(self, width: int) -> None:
        code = self._get_number(width)
        # Only the name is taken: what is cached would be handed over without asking for it.
        if code not in copyreg._inverted_registry:
            raise pickle.UnpicklingError(f"it uses the extension {code}, which is not registered")
        self._push(self.find(*copyreg._inverted_registry[code]))

    def _reduce(self) -> None:
        function, args = self._take(2)
        if type(args) is not tuple:
            raise pickle.UnpicklingError(f"it calls with {shown(args)}")
        self._push(self.call(function, args))

    def _instance(self) -> None:
        made = self.find(self._get_name(), self._get_name())
        self._push(self.call(made, tuple(self._take_marked())))

    def _object(self) -> None:
        entries = self._take_marked()
        if not entries:
            raise pickle.UnpicklingError(EMPTY)
        self._push(self.call(entries[0], tuple(entries[1:])))

    def _build(self) -> None:
        target, state = self._take(2)
        self.build(target, state)
        self._push(target)

    def _protocol(self) -> None:
        if (protocol := self._get_number(1)) > pickle.HIGHEST_PROTOCOL:
            raise pickle.UnpicklingError(f"it is of protocol {protocol}, which is unknown")

    def _frame(self) -> None:
        self._check_room(self._get_number(8))  # helps to read ahead, which is not done here

    def _refuse(self, what: str) -> None:
        raise pickle.UnpicklingError(f"it {what}")

    def _operations(self) -> dict[bytes, tuple[Callable[[], None], int]]:
        """Returns what each code does, and how many steps it counts."""
        operations = {code: (light, 1) for code, light in self._light().items()}
        return operations | {code: (heavy, HEAVY) for code, heavy in self._heavy().items()}

    def _light(self) -> dict[bytes, Callable[[], None]]:
        """Returns the operations that leave a constant, a number or a text, or combine them."""
        push, p = self._push, pickle
        text = partial(str, encoding="utf-8", errors="surrogatepass")
        escaped = partial(str, encoding="raw-unicode-escape")
        one, marked = partial(self._take, 1), self._take_marked
        return {
            p.NONE: partial(push, None),
            p.NEWTRUE: partial(push, True),
            p.NEWFALSE: partial(push, False),
            p.EMPTY_TUPLE: partial(push, ()),
            p.BININT: partial(self._fixed, struct.Struct("<i")),
            p.BININT1: partial(self._fixed, struct.Struct("<B")),
            p.BININT2: partial(self._fixed, struct.Struct("<H")),
            p.BINFLOAT: partial(self._fixed, struct.Struct(">d")),
            p.LONG1: partial(self._short, _integer),
            p.LONG4: partial(self._sized, 4, _integer, signed=True),
            p.SHORT_BINUNICODE: partial(self._short, text),
            p.BINUNICODE: partial(self._sized, 4, text),
            p.BINUNICODE8: partial(self._sized, 8, text),
            p.SHORT_BINBYTES: partial(self._short, bytes),
            p.BINBYTES: partial(self._sized, 4, bytes),
            p.BINBYTES8: partial(self._sized, 8, bytes),
            p.BYTEARRAY8: self._bytearray,
            p.SHORT_BINSTRING: partial(self._short, self._string),
            p.BINSTRING: partial(self._sized, 4, self._string, signed=True),
            p.INT: partial(self._line, _int_or_bool),
            p.LONG: partial(self._line, _long),
            p.FLOAT: partial(self._line, float),
            p.STRING: partial(self._line, self._quoted, limit=self.size),
            p.UNICODE: partial(self._line, escaped, limit=self.size),
            p.APPEND: partial(self._append, one),
            p.APPENDS: partial(self._append, marked),
            p.SETITEM: partial(self._set_items, partial(self._take, 2)),
            p.SETITEMS: partial(self._set_items, marked),
            p.ADDITEMS: self._add_items,
            p.POP: self._pop,
            p.POP_MARK: self._take_marked,
            p.PROTO: self._protocol,
            p.FRAME: self._frame,
            p.BINGET: partial(self._get, partial(self._get_number, 1)),
            p.LONG_BINGET: partial(self._get, partial(self._get_number, 4)),
            p.GET: partial(self._get, lambda: int(self._get_line())),
        }

    def _heavy(self) -> dict[bytes, Callable[[], None]]:
        """Returns the operations that make an object, or remember one."""
        p = pickle
        return {
            p.MARK: lambda: self._marks.append(len(self._stack)),
            p.DUP: self._duplicate,
            p.BINPUT: partial(self._put, partial(self._get_number, 1)),
            p.LONG_BINPUT: partial(self._put, partial(self._get_number, 4)),
            p.PUT: partial(self._put, lambda: int(self._get_line())),
            p.MEMOIZE: partial(self._put, self._memo.__len__),
            p.TUPLE1: partial(self._tuple, 1),
            p.TUPLE2: partial(self._tuple, 2),
            p.TUPLE3: partial(self._tuple, 3),
            p.TUPLE: partial(self._marked, tuple),
            p.LIST: partial(self._marked, list),
            p.EMPTY_LIST: lambda: self._push([]),
            p.EMPTY_DICT: lambda: self._push({}),
            p.EMPTY_SET: lambda: self._push(set()),
            p.DICT: self._dict,
            p.FROZENSET: self._frozenset,
            p.GLOBAL: self._global,
            p.STACK_GLOBAL: self._stack_global,
            p.EXT1: partial(self._extension, 1),
            p.EXT2: partial(self._extension, 2),
            p.EXT4: partial(self._extension, 4),
            p.REDUCE: self._reduce,
            p.INST: self._instance,
            p.OBJ: self._object,
            p.BUILD: self._build,
            p.NEWOBJ: partial(self._refuse, "makes an object of a class"),
            p.NEWOBJ_EX: partial(self._refuse, "makes an object of a class"),
            p.PERSID: partial(self._refuse, "names an object outside of the file"),
            p.BINPERSID: partial(self._refuse, "names an object outside of the file"),
            p.NEXT_BUFFER: partial(self._refuse, "needs a buffer outside of the file"),
            p.READONLY_BUFFER: partial(self._refuse, "needs a buffer outside of the file"),
        }


def _integer(content: bytes) -> int:
    if len(content) > INTEGER:
        raise pickle.UnpicklingError(f"an integer of it has {len(content):,} bytes")
    return int.from_bytes(content, "little", signed=True)


def _long(line: bytes) -> int:
    if len(line) > 2 * INTEGER:
        raise pickle.UnpicklingError(f"an integer of it has {len(line):,} digits")
    return int(line.removesuffix(b"L"), 0)


def _int_or_bool(line: bytes) -> int | bool:
    return line == b"01" if line in (b"00", b"01") else _long(line)
