"""Aligned sequences, one step of every modality at a time, for fusions that recur over them."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .equilibrium import checks
from .modalities import without_absent


def aligned_steps(
    module: nn.Module, features: Sequence[Tensor], input_dims: Sequence[int]
) -> list[Tensor]:
    """Returns the features, checked, with time first: (time, batch, d_i) each.

    Args:
        module: gives the dtype that the features must have, that of its parameters.
        features: (batch, time, d_i) each, of one batch and one time; or vectors, (batch, d_i)
            each, which are sequences of one step.
        input_dims: their widths d_i.

    Raises:
        ValueError: for inputs that do not fit, are not aligned or not finite.
        TypeError: for inputs of another type or dtype.
    """
    _check_lengths(features)
    features = without_absent(module, features, input_dims)
    if features[0].dim() > 3:
        raise ValueError(
            "features must be sequences, (batch, time, width), or vectors, (batch, width), got "
            f"shape {tuple(features[0].shape)}; join the dimensions between, x.flatten(1, -2)"
        )
    return [x.unsqueeze(0) if x.dim() == 2 else x.transpose(0, 1) for x in features]


def _check_lengths(features: Any) -> None:
    """Raises ValueError for sequences that are not aligned; what else is wrong is not seen here."""
    known = isinstance(features, list | tuple)
    if not known or not all(isinstance(x, Tensor) and x.dim() == 3 for x in features):
        return
    steps = [x.shape[1] for x in features]
    if len(set(steps)) > 1:
        raise ValueError(
            f"features must be aligned, with as many steps in each modality, got {steps} steps; "
            "align them, or pad them to one length, first"
        )


def shares(dim: int, count: int) -> list[int]:
    """Returns widths, of one at least, that share out `dim` among `count` modalities evenly."""
    return [max(1, dim // count + (i < dim % count)) for i in range(count)]


def widths_or_shares(
    name: str, widths: Sequence[int] | None, dim: int, input_dims: Sequence[int]
) -> list[int]:
    """Returns `widths` if they are one for each modality, or shares of `dim` for None.

    Raises:
        ValueError: naming the argument, if they are not.
    """
    if widths is None:
        return shares(dim, len(input_dims))
    checks.check_widths(name, widths)
    if len(widths) != len(input_dims):
        raise ValueError(
            f"{name} must list {len(input_dims)} widths, one for each of input_dims, got "
            f"{list(widths)}"
        )
    return list(widths)


def checked_width(name: str, width: int | None, default: int) -> int:
    """Returns a width, or the default for None; raises ValueError, naming it, if it is none."""
    width = default if width is None else width
    checks.check_width(name, width)
    return width
