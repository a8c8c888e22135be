"""A fusion by its name, or one's own, as a network is built around it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison import Fusion
from deq_fusion.training_structures.comparison.methods import unsuited
from deq_fusion.training_structures.comparison.report.text import meant
from deq_fusion.training_structures.comparison.sized import sized

from .training import FUSION_OPTIONS


def choose_fusion(
    fusion: str | Callable[..., Any], options: Mapping[str, Any] | None, *, count: int, task: str
) -> Fusion:
    """Returns the fusion that `build_network` takes.

    Args:
        fusion: a name out of `fusions.registry.FUSIONS`, or a class or function (input_dims, dim,
            **options) that returns the fusion, or (fusion, width of its result) if that is
            another than dim. One with a true attribute `predicts` also gets `outputs` and `task`,
            and returns the width None.
        options: of it, in place of the defaults.
        count: how many modalities it is to fuse.
        task: "classification", "multilabel" or "regression".

    Raises:
        ValueError: for a name that there is not, or a fusion that does not take these.
    """
    if isinstance(fusion, str):
        if fusion not in FUSIONS:
            near = meant([fusion], FUSIONS)
            raise ValueError(f"unknown fusion {fusion!r}; {near}choose from {', '.join(FUSIONS)}")
        reason = unsuited(FUSIONS[fusion], count, "vectors", task)  # which encoders make of all
        if reason is not None:
            raise ValueError(f"fusion={fusion!r} {reason}; take another fusion, or `modalities`")
        options = FUSION_OPTIONS.get(fusion, {}) if options is None else options
        fusion = FUSIONS[fusion]
    elif isinstance(fusion, nn.Module) or not callable(fusion):
        raise ValueError(
            "fusion must be a name, or a class or function (input_dims, dim) -> nn.Module, got "
            f"{type(fusion).__name__}; give the class, so that every fit starts anew"
        )
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(f"fusion_options must be a dict, got {type(options).__name__}")
    return partial(_built, fusion, dict(options or {}), task)


def _built(
    fusion: Callable[..., Any],
    options: dict[str, Any],
    task: str,
    input_dims: Sequence[int],
    dim: int,
    outputs: int,
) -> tuple[nn.Module, int | None]:
    if getattr(fusion, "predicts", False):
        options = {"outputs": outputs, "task": task} | options
    try:
        built = fusion(input_dims, dim, **options)
    except TypeError as error:
        raise ValueError(
            f"fusion_options must suit the fusion, got {sorted(options)}: {error}"
        ) from error
    return sized(built, dim)
