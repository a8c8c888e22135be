"""Fusions that are tried before the runs, so that what is wrong with one is told at once."""

import argparse
import traceback
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from ...batches import split_last
from ...checkpoint import seeded
from ..methods import Method, met, refusal
from ..recipe import Fusion, Recipe
from ..single_run import build_model
from ..systems import System, is_system


def try_fusions(
    args: argparse.Namespace, recipe: Recipe, chosen: Mapping[str, Fusion | System], run: int
) -> None:
    """Raises ValueError unless what is the user's own, or has options that are asked for, can be
    built; and unless a fusion of the user's own fuses a batch.

    Args:
        args: the arguments, with `own` and `option`.
        recipe: the benchmark, with these options.
        chosen: name -> fusion or system, of all that are to be compared.
        run: the number of the first run, whose data are read.
    """
    own = {name for name, fusion in args.own if refusal(fusion, recipe) is None}
    asked = own | {method for method, _, _ in args.option}
    if not asked:
        return
    for method, option, _ in args.option:
        if method not in chosen:
            raise ValueError(f"--option {method}.{option} must be of a fusion in {list(chosen)}")
    with seeded(run):
        train = recipe.loaders(run)[0]
        for name in sorted(asked):
            model = _built(name, chosen[name], recipe, train)
            if name in own:
                _try_batch(name, model, train)


def _built(name: str, fusion: Fusion | System, recipe: Recipe, train: DataLoader) -> nn.Module:
    try:
        as_met = met(name, fusion, recipe) if is_system(fusion) else recipe
        return build_model(Method(name, as_met, fusion), train)[0]
    except (TypeError, ValueError) as error:
        options = dict(recipe.fusion_options.get(name, {}))
        given = options or "(input_dims, dim)"
        raise ValueError(f"{name} cannot be built with {given}: {error}") from error


def _try_batch(name: str, model: nn.Module, train: DataLoader) -> None:
    inputs, _ = split_last(next(iter(train)))
    try:
        with torch.no_grad():
            model(inputs)
    except Exception as error:  # whatever a user's module raises
        last = traceback.extract_tb(error.__traceback__)[-1]
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        where = f"{Path(last.filename).name}, line {last.lineno}"
        raise ValueError(f"{name} cannot fuse a batch: {kind}{error} ({where})") from error
