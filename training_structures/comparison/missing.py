"""Modalities that are missing: of samples, and when a trained model is used."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def without(fusions: Iterable[nn.Module], modality: int) -> Iterator[None]:
    """Lets the fusions work as if that modality's features had not come.

    A fusion whose forward has a parameter `present`, (batch, N) bool, is told so, besides what
    the model tells it already; any other gets zeros for the features. A sample that has no other
    modality keeps it, as zeros: such a fusion takes no sample without any.
    """
    with ExitStack() as stack:
        for fusion in fusions:
            handle = fusion.register_forward_pre_hook(_hook(modality), with_kwargs=True)
            stack.callback(handle.remove)
        yield


@contextmanager
def zeroed(fusions: Iterable[nn.Module], modality: int) -> Iterator[None]:
    """Lets the fusions meet zeros for that modality's features, also those that take `present`."""

    def hide(fusion: nn.Module, args: tuple) -> tuple:
        return (_zeroed(args[0], modality), *args[1:])

    with ExitStack() as stack:
        for fusion in fusions:
            stack.callback(fusion.register_forward_pre_hook(hide).remove)
        yield


def knows_absence(fusion: nn.Module) -> bool:
    """Returns whether the fusion has a way of its own to do without a modality."""
    return "present" in inspect.signature(fusion.forward).parameters


class ZeroWhereAbsent:
    """A hook that gives a fusion without a parameter `present` zeros for absent modalities.

    So a model may tell any fusion, also one of the user's, which modalities its samples have.
    """

    def __call__(
        self, fusion: nn.Module, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        kwargs = dict(kwargs)
        present = kwargs.pop("present", None)
        if present is None:
            return args, kwargs
        features, *rest = args
        for modality, here in enumerate(present.unbind(-1)):
            features = _zeroed(features, modality, ~here)
        return (features, *rest), kwargs

    @classmethod
    def put_on(cls, fusion: nn.Module) -> None:
        """Gives the fusion this hook, unless its forward may take `present`."""
        takes = inspect.signature(fusion.forward).parameters.values()
        if not knows_absence(fusion) and not any(p.kind is p.VAR_KEYWORD for p in takes):
            fusion.register_forward_pre_hook(cls(), with_kwargs=True)


def _hook(modality: int) -> Callable[..., tuple[tuple, dict[str, Any]]]:
    def hide(fusion: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict[str, Any]]:
        if not knows_absence(fusion):
            return (_zeroed(args[0], modality), *args[1:]), kwargs
        given = inspect.signature(fusion.forward).bind(*args, **kwargs)
        features, present = args[0], given.arguments.get("present")
        if present is None:
            shape = len(features[0]), len(features)
            present = torch.ones(shape, dtype=torch.bool, device=features[0].device)
        left = present.clone()
        left[..., modality] = False
        nothing = ~left.any(-1)
        if nothing.any():
            left[..., modality] = nothing
            features = _zeroed(features, modality, nothing)
        given.arguments["present"] = left
        return (features, *given.args[1:]), given.kwargs

    return hide


def _zeroed(features: Iterable[Tensor], modality: int, rows: Tensor | None = None) -> list[Tensor]:
    """Returns the features with zeros for a modality, in these rows or in all."""
    features = list(features)
    if rows is None:
        features[modality] = torch.zeros_like(features[modality])
    else:
        own = features[modality]
        rows = rows.reshape(rows.shape + (1,) * (own.dim() - rows.dim()))
        features[modality] = own.masked_fill(rows, 0)
    return features
