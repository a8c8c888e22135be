"""A check of what came out of a pickle: plain, not deep, and no larger than its file.

A pickle may hold one list many times. Nested so, a hundred bytes stand for more entries than any
memory has, once they are copied, compared, printed or made an array of.
"""

import pickle
from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from .pickle_stack import Refused

ROOM, SHARED = 1 << 28, 2  # bytes that all may take without sharing: this, and twice the file's
DEPTH = 100  # containers in one another
NUMBERS = frozenset({type(None), bool, int, float, complex})
TEXTS = frozenset({str, bytes, bytearray})
CONTAINERS = frozenset({list, tuple, dict, OrderedDict, set, frozenset})


def check_contents(content: Any, *, unfinished: Collection[int], size: int) -> None:
    """Looks at everything once, however often it is there.

    Args:
        content: arrays, numbers, text, and containers of them.
        unfinished: ids of arrays that must not be there.
        size: bytes of the file.

    Raises:
        Refused: if something else is there.
        pickle.UnpicklingError: if it lies too deep, takes more than `ROOM` and `SHARED` times the
            size, or holds itself in two places or more.
    """
    room = ROOM + SHARED * size
    weights: dict[int, int] = {}  # of the containers that are done
    path, loops = [_Visit([content])], 0
    inside = {id(path[0].holder)}
    while path:
        visit = path[-1]
        for entry in visit.entries:
            kind = type(entry)
            if kind in NUMBERS:
                continue
            if kind in TEXTS:
                visit.weight += len(entry)
            elif kind is np.ndarray and not entry.dtype.hasobject and id(entry) not in unfinished:
                visit.weight += entry.nbytes
            elif isinstance(entry, np.generic):
                visit.weight += entry.nbytes
            elif kind not in CONTAINERS and (kind is not np.ndarray or id(entry) in unfinished):
                raise Refused(f"holds {'an unfinished array' if kind is np.ndarray else entry}")
            elif id(entry) in weights:
                visit.weight += weights[id(entry)]
            elif id(entry) in inside:
                loops += 1
            elif len(entry):
                path.append(_Visit(entry))
                inside.add(id(entry))
                break
            if visit.weight > room:
                raise pickle.UnpicklingError(
                    f"it holds the same things so often that they make more than {room:,} bytes"
                )
        else:
            path.pop()
            inside.remove(id(visit.holder))
            weights[id(visit.holder)] = visit.weight
            if path:
                path[-1].weight += visit.weight
        if len(path) > DEPTH or loops > 1:
            what = "holds itself in several places" if loops > 1 else f"is more than {DEPTH} deep"
            raise pickle.UnpicklingError(f"it {what}")


class _Visit:
    """A container that is being looked through, and the bytes found in it so far."""

    __slots__ = ("entries", "holder", "weight")

    def __init__(self, holder: Any):
        self.holder = holder
        self.entries, self.weight = iter(_entries(holder)), 8 * len(holder)


def _entries(holder: Any) -> Iterable[Any]:
    if isinstance(holder, dict):  # whose keys are numbers and text: the machine saw to it
        return holder.values()
    return holder.flat if type(holder) is np.ndarray else holder
