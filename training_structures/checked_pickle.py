"""The pickle inside a checkpoint, followed without making anything of it, before torch reads it.

Torch's own reader runs no code, but it can be made to hang or to take all memory: by a tuple that
holds another one twice, and so on, as a key; by keys of one hash; by a bytearray of gigabytes; by
millions of operations of one byte. So only what `save_checkpoint` writes gets there.
"""

import pickle as p
import re
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial

BYTES = 1 << 26  # of a pickle; tensors have their numbers elsewhere
STEPS, HEAVY = 4_000_000, 4  # a number is one step, any other operation is HEAVY
DEPTH = 100  # containers in one another
NAME = 100  # bytes of a name
WORD = 8  # bytes of a whole number that may be a key: of longer ones, many can have one hash
FEW = 8  # entries of which the kinds are known

_OTHER_NAMES = re.compile(
    r"(?P<storage>torch [A-Za-z0-9]{1,20}Storage|torch\.storage UntypedStorage)"
    r"|(?P<dtype>torch (b?float|q?u?int|complex|bool)[0-9a-z_]{0,20})"
)
_TEXT = "(text|digits|metadata)"
_TENSOR = "stored int tuple tuple flag ordered"
_CALLS = {  # what may be called: the arguments that it may have, and what it makes
    "collections OrderedDict": ("", "ordered"),
    "collections Counter": ("dict", "counter"),
    "__builtin__ set": ("list", "set"),
    "__builtin__ complex": ("float float", "complex"),
    "torch Size": ("(tuple|list)", "size"),
    "torch device": (f"{_TEXT}( int)?", "device"),
    "torch._utils _rebuild_tensor_v2": (f"{_TENSOR}( dict)?", "tensor"),
    "torch._utils _rebuild_tensor_v3": (f"{_TENSOR} dtype( dict)?", "tensor"),
    "torch._utils _rebuild_meta_tensor_no_storage": ("dtype tuple tuple flag", "tensor"),
    "torch._utils _rebuild_parameter": ("tensor flag ordered", "tensor"),
}
_CALLS |= {name.replace("__builtin__", "builtins"): call for name, call in _CALLS.items()}
_KEYS = {"text", "digits", "metadata", "int", "float", "flag"}  # quick to hash and compare
_FILLED = {"dict", "ordered"}
_STORED = f"text storage digits {_TEXT} int"  # how a tensor names its numbers
_ATTRIBUTES = "metadata ordered"  # which a module leaves at its state


@lru_cache(1000)
def _matches(form: str, parts: str) -> bool:
    return re.fullmatch(form, parts) is not None


class _Held:
    """A stand-in for an object of the pickle: its `kind`, and of a container also

    - `size`: the entries with all that they hold, 1 for itself;
    - `depth`: containers in one another, 1 for one of numbers and text alone;
    - `parts`: the kinds of its entries, if they are few and came at once;
    - `shared`: whether it is held in two places: it is complete then.
    """

    __slots__ = ("depth", "kind", "parts", "shared", "size")

    def __init__(self, kind: str, *, depth: int = 0) -> None:
        self.kind, self.depth, self.parts, self.size, self.shared = kind, depth, "", 1, False

    def add(self, entries: Sequence["_Held"]) -> None:
        """Puts entries into it."""
        known = self.size == 1 and len(entries) <= FEW
        self.parts = " ".join([e.kind for e in entries]) if known else "many"
        for entry in entries:
            self.size += entry.size
            if entry.depth >= self.depth:
                self.depth = entry.depth + 1
        if self.depth > DEPTH:
            raise ValueError(f"nests them more than {DEPTH} deep")


_SINGLE = {
    kind: _Held(kind)
    for kind in (*_KEYS, "storage", "dtype", *_CALLS, "stored", "tensor", "complex", "device")
}
_INT, _FLOAT, _FLAG, _LONG = *map(_SINGLE.get, ("int", "float", "flag")), _Held("long", depth=1)
_SIMPLE = {  # operations: bytes that follow, what is made
    p.NONE[0]: (0, _FLAG),
    p.NEWTRUE[0]: (0, _FLAG),
    p.NEWFALSE[0]: (0, _FLAG),
    p.BININT[0]: (4, _INT),
    p.BININT1[0]: (1, _INT),
    p.BININT2[0]: (2, _INT),
    p.BINFLOAT[0]: (8, _FLOAT),
}
_PUTS, _GETS = {p.BINPUT[0]: 1, p.LONG_BINPUT[0]: 4}, {p.BINGET[0]: 1, p.LONG_BINGET[0]: 4}
_TUPLES = {p.EMPTY_TUPLE[0]: 0, p.TUPLE1[0]: 1, p.TUPLE2[0]: 2, p.TUPLE3[0]: 3}


def check_pickle(content: bytes) -> None:
    """Follows a pickle of nested dicts, lists and tuples of tensors, numbers and text.

    At most `BYTES` long, of `STEPS` steps (what is used again counts with all that it holds),
    `DEPTH` containers in one another; keys are text or numbers.

    Raises:
        ValueError: for any other; completes the sentence "the file must hold ..., but ...".
    """
    if len(content) > BYTES:
        raise ValueError(f"has more than {BYTES:,} bytes of them beside the tensors' numbers")
    try:
        _Follower(content).run()
    except (IndexError, KeyError) as error:  # the stack, the content or the memo has no more
        raise ValueError("is damaged inside") from error


class _Follower:
    def __init__(self, content: bytes) -> None:
        self.content, self.at, self.left = content, 2, STEPS
        self.stack: list[_Held] = []
        self.marks: list[list[_Held]] = []
        self.memo: dict[int, _Held] = {}
        self.tuples: dict[tuple[_Held, ...], _Held] = {}  # most are alike

    def run(self) -> None:
        content, memo, operations = self.content, self.memo, self._operations()
        if content[:2] != p.PROTO + b"\2":
            raise ValueError("is of another protocol")
        while (code := content[self.at]) != p.STOP[0]:
            self.at += 1
            if code in _SIMPLE:
                size, held = _SIMPLE[code]
                self.at += size
                self.left += HEAVY - 1
                self.stack.append(held)
            elif code in _PUTS:
                memo[self._number(_PUTS[code])] = self.stack[-1]
            elif code in _GETS:
                self._get(memo[self._number(_GETS[code])])
            elif code in operations:
                operations[code]()
            else:
                raise ValueError(f"has the operation {bytes([code])!r}")
            self.left -= HEAVY
            if self.left < 0:
                raise ValueError(f"takes more than {STEPS:,} steps to read")
        if self.marks or len(self.stack) != 1 or self.at + 1 != len(content):
            raise ValueError("does not end where it should")

    def _operations(self) -> dict[int, Callable[[], None]]:
        return {
            p.EMPTY_DICT[0]: lambda: self.stack.append(_Held("dict", depth=1)),
            p.EMPTY_LIST[0]: lambda: self.stack.append(_Held("list", depth=1)),
            **{code: partial(self._tuple, size) for code, size in _TUPLES.items()},
            p.MARK[0]: self._mark,
            p.TUPLE[0]: self._tuple,
            p.APPEND[0]: lambda: self._fill(("list",), self._take(1)),
            p.APPENDS[0]: lambda: self._fill(("list",), self._take_marked()),
            p.SETITEM[0]: lambda: self._set_items(self._take(2)),
            p.SETITEMS[0]: lambda: self._set_items(self._take_marked()),
            p.BINUNICODE[0]: self._text,
            p.LONG1[0]: self._long,
            p.GLOBAL[0]: self._global,
            p.BINPERSID[0]: self._stored,
            p.REDUCE[0]: self._call,
            p.BUILD[0]: self._build,
        }

    def _number(self, size: int) -> int:
        start = self.at
        self.at = start + size
        if size == 1:
            return self.content[start]
        return int.from_bytes(self.content[start : start + size], "little")

    def _take(self, count: int) -> list[_Held]:
        stack = self.stack
        start = len(stack) - count
        if start < 0:
            raise IndexError("the stack has no more")
        taken = stack[start:]
        del stack[start:]
        return taken

    def _mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _take_marked(self) -> list[_Held]:
        taken, self.stack = self.stack, self.marks.pop()
        return taken

    def _get(self, held: _Held) -> None:
        held.shared = True
        self.left -= held.size
        self.stack.append(held)

    def _tuple(self, count: int | None = None) -> None:
        entries = tuple(self._take_marked() if count is None else self._take(count))
        made = self.tuples.get(entries) if len(entries) <= FEW else None
        if made is None:
            made = _Held("tuple", depth=1)
            made.add(entries)
            if made.depth == 1 and len(entries) <= FEW:
                self.tuples[entries] = made
        self.stack.append(made)

    def _fill(self, kinds: Collection[str], entries: list[_Held]) -> None:
        target = self.stack[-1]
        if target.kind not in kinds or target.shared:
            raise ValueError(f"adds to a {target.kind}")
        target.add(entries)

    def _set_items(self, entries: list[_Held]) -> None:
        if len(entries) % 2 or not _KEYS.issuperset([key.kind for key in entries[::2]]):
            raise ValueError("has keys that are no text and no number")
        self._fill(_FILLED, entries)

    def _text(self) -> None:
        size = self._number(4)
        text = self.content[self.at : self.at + size]
        self.at += size
        kind = "digits" if text.isdigit() else "metadata" if text == b"_metadata" else "text"
        self.stack.append(_SINGLE[kind])

    def _long(self) -> None:
        size = self._number(1)
        self.at += size
        self.stack.append(_INT if size <= WORD else _LONG)

    def _global(self) -> None:
        lines = self.content[self.at : self.at + NAME].split(b"\n", 2)
        if len(lines) < 3 or not all(line.isascii() for line in lines[:2]):
            raise ValueError("has a name that it must not have")
        self.at += len(lines[0]) + len(lines[1]) + 2
        name = b" ".join(lines[:2]).decode()
        other = _OTHER_NAMES.fullmatch(name)
        if name not in _CALLS and not other:
            raise ValueError(f"has the name {ascii(name)}")
        self.stack.append(_SINGLE[other.lastgroup if other else name])

    def _stored(self) -> None:
        (names,) = self._take(1)
        if names.kind != "tuple" or not _matches(_STORED, names.parts):
            raise ValueError("has a tensor whose numbers are elsewhere")
        self.stack.append(_SINGLE["stored"])

    def _call(self) -> None:
        called, args = self._take(2)
        form, made = _CALLS.get(called.kind, (None, None))
        flat = args.kind == "tuple" and args.depth <= 2
        if made is None or not flat or not _matches(form, args.parts):
            raise ValueError(f"makes something else than one of a {called.kind}")
        self.stack.append(_SINGLE.get(made) or _Held(made, depth=1))

    def _build(self) -> None:
        target, state = self._take(2)
        if (target.kind, state.kind, state.parts) != ("ordered", "dict", _ATTRIBUTES):
            raise ValueError("has attributes that none of them has")
        self.stack.append(target)
        self._fill(_FILLED, [state])
