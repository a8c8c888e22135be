"""Checks of a run's checkpoint, all of them made before anything of the run is changed."""

import random
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .checkpoint import LEFT_ALONE
from .files import Damaged

PLAIN = (type(None), bool, int, float, str)
WRONG = (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError)
"""Errors that torch, numpy and Python raise when a state does not fit what it is given to."""


def demand(holds: bool, source: str, what: str) -> None:
    """Raises Damaged, in our words, unless a checkpoint holds what it must."""
    if not holds:
        raise Damaged(f"{source} must hold {what}, but does not; {LEFT_ALONE}")


def check_parts(saved: Mapping[str, Any], source: str) -> None:
    """Raises Damaged unless there are all parts of a run, each of its kind."""
    kinds = {"settings": dict, "model": dict, "optimizer": dict, "history": dict, "rng": object}
    kinds |= {"scheduler": (dict, type(None)), "generators": (list, tuple)}
    for name, kind in kinds.items():
        there = name in saved and isinstance(saved[name], kind)
        demand(there, source, f"a run with its {name}")
    demand(_is_state(saved["model"]), source, "a model's names and tensors")
    check_history(saved["history"], source)


def check_history(history: Any, source: str, key: str | None = None) -> None:
    """Raises Damaged unless a history is one; `key` is what each of its records must have."""
    names = {"epochs", "best_epoch", "best_state"}  # older ones do not say whether they were ended
    known = isinstance(history, dict) and history.keys() - {"ended"} == names
    demand(known and type(history.get("ended", False)) is bool, source, f"a history of {names}")
    epochs, best = history["epochs"], history["best_epoch"]
    sound = isinstance(epochs, list) and all(_is_record(record, key) for record in epochs)
    demand(sound, source, "numbers by name for every epoch" + (f", {key} too" if key else ""))
    inside = type(best) is int and 1 <= best <= len(epochs)
    demand(best is None or inside, source, f"a best epoch among its {len(epochs)}")
    demand(_is_state(history["best_state"]), source, "the best epoch's names and tensors")


def check_optimizer(saved: Mapping[str, Any], optimizer: Optimizer, source: str) -> None:
    """Raises Damaged unless a state is of such an optimiser, with as many parameters."""
    what = f"the state of a {type(optimizer).__name__} of this very model"
    groups, states = saved.get("param_groups"), saved.get("state")
    mine = optimizer.param_groups
    demand(isinstance(groups, list) and len(groups) == len(mine), source, what)
    for group, own in zip(groups, mine, strict=True):
        demand(isinstance(group, dict) and own.keys() <= group.keys(), source, what)
        members = group["params"]
        demand(isinstance(members, list) and len(members) == len(own["params"]), source, what)
        demand(all(kin(group[k], v) for k, v in own.items() if k != "params"), source, what)
    parameters = [parameter for group in mine for parameter in group["params"]]
    sound = isinstance(states, dict) and all(
        type(number) is int and 0 <= number < len(parameters) and isinstance(state, dict)
        for number, state in states.items()
    )
    demand(sound, source, what)
    for number, state in states.items():  # torch would cast, and lose the imaginary part
        tensors = [value for value in state.values() if isinstance(value, Tensor)]
        real = not parameters[number].is_complex()
        demand(not (real and any(x.is_complex() for x in tensors)), source, what)


def check_steps(optimizer: Optimizer, source: str) -> None:
    """Raises Damaged unless one of torch's optimisers can step on from the state that it has.

    That it is, name by name, like the state after a first step of another one, with parameters
    of zeros, one at a time.
    """
    kind = type(optimizer)
    if not kind.__module__.startswith("torch.optim") or kind is torch.optim.LBFGS:
        return
    what = f"the state of a {kind.__name__} of this very model"
    for group in optimizer.param_groups:
        options = {name: value for name, value in group.items() if name != "params"}
        for parameter in group["params"]:
            if not optimizer.state.get(parameter) or nn.parameter.is_lazy(parameter):
                continue
            probe = nn.Parameter(torch.zeros_like(parameter))
            probe.grad = torch.zeros_like(parameter)
            try:
                fresh = kind([{"params": [probe], **options}])
                fresh.step()
            except (AssertionError, *WRONG):  # options that do not go together
                demand(False, source, what)
            state, like = optimizer.state[parameter], fresh.state[probe]
            sound = state.keys() == like.keys() and all(kin(state[k], like[k]) for k in like)
            demand(sound, source, what)


def check_random(rng: Any, generators: Iterable[Any], expected: int, source: str) -> None:
    """Raises Damaged unless states of random generators can be given to some of their kind."""
    generators = list(generators)
    demand(len(generators) == expected, source, f"the states of {expected} generators of loaders")
    try:
        for state in (rng["torch"], *generators):
            torch.Generator().set_state(state)
        name, keys, *rest = rng["numpy"]
        if keys.dtype != torch.int64:  # as `rng_state` keeps them: others lose by the cast
            raise TypeError("the keys of numpy's generator are no whole numbers")
        np.random.RandomState().set_state((name, keys.numpy().astype(np.uint32), *rest))
        random.Random().setstate(rng["python"])
        sound = all(isinstance(state, Tensor) for state in rng["cuda"])
    except (*WRONG, OverflowError):
        sound = False
    demand(sound, source, "the states of random generators")


def alike(saved: Any, expected: Any) -> bool:
    """Returns whether a setting is the same; of what is no setting at all, that it is not."""
    if isinstance(expected, Mapping):
        same = isinstance(saved, Mapping) and saved.keys() == expected.keys()
        return same and all(alike(saved[key], value) for key, value in expected.items())
    if isinstance(expected, list | tuple):
        same = isinstance(saved, list | tuple) and len(saved) == len(expected)
        return same and all(map(alike, saved, expected))
    return isinstance(saved, (*PLAIN, type(expected))) and bool(saved == expected)


def kin(value: Any, own: Any) -> bool:
    """Returns whether a value can stand where a run has its own: a tensor of its shape, a number
    for a number, and the like for what it consists of. Where a run has None yet, a number can."""
    if isinstance(own, Tensor):
        return isinstance(value, Tensor) and value.shape == own.shape and not value.is_meta
    if isinstance(own, Mapping):
        same = isinstance(value, Mapping) and value.keys() == own.keys()
        return same and all(kin(value[key], entry) for key, entry in own.items())
    if isinstance(own, list | tuple):
        same = type(value) is type(own) and len(value) == len(own)
        return same and all(map(kin, value, own))
    if type(own) in (int, float):
        return type(value) in (int, float)
    if own is None or type(own) is bool:
        return value is None or type(value) in (bool, int, float)
    return type(value) is type(own)


def _is_state(state: Any) -> bool:
    return isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) and not value.is_meta
        for name, value in state.items()
    )


def _is_record(record: Any, key: str | None) -> bool:
    return (
        isinstance(record, dict)
        and (key is None or key in record)
        and all(isinstance(k, str) and type(v) in (int, float) for k, v in record.items())
    )
