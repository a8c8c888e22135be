"""Fusions that are tried before the runs, so that what is wrong with one is told at once."""

import argparse
import traceback
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from ...batches import split_last
from ...checkpoint import seeded
from ..methods import Method, refusal
from ..recipe import Recipe
from ..single_run import build_model


def try_fusions(args: argparse.Namespace, recipe: Recipe, run: int) -> None:
    """Raises ValueError unless fusions can be built that are the user's own, or have options that
    are asked for; and unless one of the user's own fuses a batch."""
    own = {name for name, fusion in args.own if refusal(fusion, recipe) is None}
    asked = own | {method for method, _, _ in args.option}
    if not asked:
        return
    with seeded(run):
        train = recipe.loaders(run)[0]
        for name in sorted(asked):
            model = _built(Method(name, recipe, args.chosen[name]), train)
            if name in own:
                _try_batch(name, model, train)


def _built(method: Method, train: DataLoader) -> nn.Module:
    try:
        return build_model(method, train)[0]
    except (TypeError, ValueError) as error:
        options = dict(method.recipe.fusion_options.get(method.name, {}))
        given = options or "(input_dims, dim)"
        raise ValueError(f"{method.name} cannot be built with {given}: {error}") from error


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
