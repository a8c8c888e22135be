"""Damage that leaves a file whole: other values, names, shapes and layouts inside of it."""

import copy
from random import Random
from typing import Any

import numpy as np

DEEP = "a text that becomes 100,000 lists in each other"
"""Stands for what JSON's writer cannot write."""
WORDS = ("", " ", "x" * 5000, "nan", "1_0", "١٢", "\ud83d", "\x1b[31m\a", "a\x00b", "../x", "-1")
NUMBERS = (-1, 0, 1, 7.5, True, 2**31, 2**63, 10**400, 1e300, -1e39, float("nan"), float("inf"))
ODD = (*WORDS, *NUMBERS, None, [], {}, [[]], {"a": 1}, ["a", 1])


def mutate_tree(rng: Random, tree: Any, *, plain: bool = False) -> tuple[Any, str]:
    """Returns a copy of nested containers in which one thing is another, and says what.

    Args:
        plain: whether the tree holds what JSON can hold, and must go on doing so.
    """
    holder = [copy.deepcopy(tree)]
    parent, key = rng.choice(list(_places(holder, 0)))
    value, name = _other(rng, parent[key], plain)
    if parent is not holder and rng.random() < 0.3:
        return _take(rng, holder, parent, key)
    parent[key] = value
    return _frozen(holder[0]), f"{name} at {key!r}"


def _places(parent: Any, depth: int):
    """Yields (container, key) of everything in it; tuples have become lists that are marked."""
    for key in list(parent) if isinstance(parent, dict) else range(len(parent)):
        if type(parent[key]) is tuple:
            parent[key] = _Tuple(parent[key])
        yield parent, key
        if isinstance(parent[key], (dict, list)) and depth < 8:
            yield from _places(parent[key], depth + 1)


class _Tuple(list):
    """A tuple while it is changed."""


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(entry) for key, entry in value.items()}
    if isinstance(value, list):
        entries = [_frozen(entry) for entry in value]
        return tuple(entries) if isinstance(value, _Tuple) else entries
    return value


def _take(rng: Random, holder: list, parent: Any, key: Any) -> tuple[Any, str]:
    """Removes, renames or repeats an entry."""
    if isinstance(parent, list):
        name = rng.choice(("removed", "repeated", "reversed"))
        if name == "removed":
            del parent[key]
        elif name == "repeated":
            parent.insert(key, parent[key])
        else:
            parent.reverse()
    else:
        name = rng.choice(("removed", "renamed", "copied"))
        value = parent[key] if name == "copied" else parent.pop(key)
        if name == "renamed":
            parent[rng.choice(WORDS)] = value
        elif name == "copied":
            parent[rng.choice(list(parent))] = value
    return _frozen(holder[0]), f"{name} {key!r}"


def _other(rng: Random, value: Any, plain: bool) -> tuple[Any, str]:
    if isinstance(value, np.ndarray) and rng.random() < 0.9:
        return mutate_array(rng, value)
    if isinstance(value, (int, float)) and type(value) is not bool and rng.random() < 0.5:
        return rng.choice((-value, value + 1, value * 1e30, str(value), [value])), "near"
    if isinstance(value, str) and rng.random() < 0.5:
        return rng.choice((value + "x", value.upper(), value[:-1], [value], " " + value)), "near"
    if plain and rng.random() < 0.05:
        return DEEP, "deep"
    odd = rng.choice(ODD)
    return odd, f"odd {type(odd).__name__}"


def mutate_array(rng: Random, array: np.ndarray) -> tuple[np.ndarray, str]:
    """Returns another array and what makes it another: dtype, shape, order, or values."""
    array = np.atleast_1d(array)
    name = rng.choice(("dtype", "shape", "values", "rows"))
    change = {"dtype": _dtype, "shape": _shape, "values": _values, "rows": _rows}[name]
    with np.errstate(all="ignore"):
        return change(rng, array), name


def _dtype(rng: Random, array: np.ndarray) -> np.ndarray:
    kinds = ("f8", "f2", ">f4", ">i8", "i8", "u1", "i1", "?", "c8", "U9", "S9", "O", "u8")
    try:
        return array.astype(rng.choice(kinds))
    except (TypeError, ValueError, UnicodeEncodeError):  # text that is no number
        return array.astype(object)


def _shape(rng: Random, array: np.ndarray) -> np.ndarray:
    shapes = [array.T, array.reshape(-1), array[..., None], array[None], np.asfortranarray(array)]
    shapes += [array.reshape(array.shape[::-1]), array[..., :0], array.reshape(len(array), -1)]
    shapes += [array[..., :1], np.concatenate([array, array], axis=-1), array[..., ::-1]]
    return rng.choice(shapes)


def _values(rng: Random, array: np.ndarray) -> np.ndarray:
    odd = (np.nan, np.inf, -np.inf, 1e300, -1e39, 1e39, 70000, -1, 2**40, 0, 0.5, 4, 1e-45, 1e-310)
    changed = (
        array.astype(np.float64) if array.dtype.kind in "iuf" and rng.random() < 0.5 else array
    )
    changed = np.array(changed)
    flat, place = changed.reshape(-1), rng.randrange(max(1, changed.size))
    if not flat.size:
        return changed
    if rng.random() < 0.3:
        flat[place] = flat[rng.randrange(flat.size)]
    elif flat.dtype.kind in "US":
        word = rng.choice(WORDS[4:])
        flat[place] = word if flat.dtype.kind == "U" else word.encode("utf-8", "replace")
    elif flat.dtype.kind == "f":
        flat[place] = rng.choice(odd)
    elif flat.dtype.kind in "iu":
        bounds = np.iinfo(flat.dtype)
        flat[place] = rng.choice((bounds.min, bounds.max, 0, 1, 2, 100))
    return changed


def _rows(rng: Random, array: np.ndarray) -> np.ndarray:
    place = rng.randrange(len(array)) if array.ndim and len(array) else 0
    rows = (array[:-1], array[1:], array[:0], np.concatenate([array, array[place : place + 1]]))
    shuffled = array[np.array(rng.sample(range(len(array)), len(array)), dtype=int)]
    repeated = array[np.minimum(np.arange(len(array)), place)]
    return rng.choice((*rows, shuffled, repeated, array[::-1]))
