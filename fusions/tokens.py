"""Vectors and sequences as tokens, for fusions that attend to them: (batch, time, width) each."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .equilibrium.fusion_map.features import check_present, check_tensor
from .modalities import check_tensors


def as_tokens(
    module: nn.Module,
    features: Sequence[Tensor],
    input_dims: Sequence[int],
    present: Tensor | None = None,
) -> list[Tensor]:
    """Returns the features, checked, as tokens (batch, time_i, d_i); an absent modality is zeros.

    Args:
        module: gives the dtype that the features must have, that of its parameters.
        features: a vector, (batch, d_i), or a sequence, (batch, time_i, d_i), for each modality;
            the lengths may differ, and a vector is a sequence of one step.
        input_dims: their widths d_i.
        present: (batch, N) bool, the modalities that a sample has; None: all.

    Raises:
        ValueError: for inputs that do not fit or are not finite, or a sample without any
            modality.
        TypeError: for inputs of another type or dtype.
    """
    like = next(module.parameters())
    _check(features, input_dims, like)
    if present is not None:
        check_present(present, [x.flatten(1) for x in features])
        features = [
            torch.where(here.view(-1, *[1] * (x.dim() - 1)), x, 0)
            for here, x in zip(present.unbind(-1), features, strict=True)
        ]
    features = check_tensors(features, like=like, normed=True)
    return [x if x.dim() == 3 else x.unsqueeze(1) for x in features]


def _check(features: Sequence[Tensor], widths: Sequence[int], like: Tensor) -> None:
    if not isinstance(features, list | tuple) or len(features) != len(widths):
        came = len(features) if isinstance(features, list | tuple) else type(features).__name__
        raise ValueError(
            f"features must be a list of {len(widths)} tensors, one for each of "
            f"input_dims={tuple(widths)}, got {came}"
        )
    for i, (x, width) in enumerate(zip(features, widths, strict=True)):
        check_tensor(f"features[{i}]", x, like)
        if x.dim() > 3 or x.shape[-1] != width:
            raise ValueError(
                f"features[{i}] must have shape (batch, {width}) or (batch, time, {width}), got "
                f"{tuple(x.shape)}; input_dims gives the widths, in the order of the features"
            )
    if len({len(x) for x in features}) > 1:
        raise ValueError(f"features must have one batch size, got {[len(x) for x in features]}")


def sinusoids(count: int, like: Tensor) -> Tensor:
    """Returns sines and cosines of the positions 0 to count - 1, (count, width).

    Entries 2 k and 2 k + 1 at position t are sin and cos of t / 10000^(2 k / width) (Vaswani et
    al., 2017, section 3.5).

    Args:
        count: how many positions.
        like: (..., width), of whose dtype and device they are.
    """
    width = like.shape[-1]
    rates = torch.arange(0, width, 2, dtype=like.dtype, device=like.device)
    rates = (-math.log(10000.0) / width * rates).exp()
    angles = torch.arange(count, dtype=like.dtype, device=like.device).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]
