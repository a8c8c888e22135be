"""A modality that is missing when a trained model is used."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def without(fusions: Iterable[nn.Module], modality: int) -> Iterator[None]:
    """Lets the fusions work as if that modality's features had not come.

    A fusion whose forward has a keyword `present`, (batch, N) bool, is told so; any other gets
    zeros for the features.
    """
    with ExitStack() as stack:
        for fusion in fusions:
            handle = fusion.register_forward_pre_hook(_hook(modality), with_kwargs=True)
            stack.callback(handle.remove)
        yield


def knows_absence(fusion: nn.Module) -> bool:
    """Returns whether the fusion has a way of its own to do without a modality."""
    return "present" in inspect.signature(fusion.forward).parameters


def _hook(modality: int) -> Callable[..., tuple[tuple, dict[str, Any]]]:
    def hide(fusion: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict[str, Any]]:
        features = list(args[0])
        if knows_absence(fusion):
            shape = len(features[0]), len(features)
            present = torch.ones(shape, dtype=torch.bool, device=features[0].device)
            present[:, modality] = False
            return args, kwargs | {"present": present}
        features[modality] = torch.zeros_like(features[modality])
        return (features, *args[1:]), kwargs

    return hide
