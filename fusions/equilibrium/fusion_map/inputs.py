"""What a DEQ fusion is injected: features projected and, by default, brought to unit scale."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..half import linear, wide, wide_dtype
from ..transforms import hidden
from .features import check_finite

Combine = Callable[[Tensor, Tensor | None], Tensor]  # (y, scale of y or None) -> x_fuse


class Projection(nn.Linear):
    """The P_i of a modality, orthogonal at the start."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__(width, dim, bias=False)
        nn.init.orthogonal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, width) to (B, dim), both in the dtype that is computed with."""
        return linear(x, wide(self.weight))


def projected(
    features: Sequence[Tensor], projections: Sequence[nn.Module], dtype: torch.dtype
) -> Tensor:
    """Returns the y_i = P_i x_i, (N, B, d), of features (B, d_i), in their dtype.

    A module that somebody has put in the place of a `Projection` is given features of `dtype`,
    that of the parameters.
    """
    ours = Projection, nn.Identity
    pairs = zip(projections, features, strict=True)
    y = [p(x if isinstance(p, ours) else x.to(dtype)).to(x.dtype) for p, x in pairs]
    return torch.stack(y)


def raw(
    features: Sequence[Tensor],
    projections: Sequence[nn.Module],
    combined: Combine,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Returns what the f_i and f_fuse are injected as the paper has it, (N, B, d) and (B, d).

    Args:
        features: (B, d_i) for each modality.
        projections: their P_i.
        combined: makes x_fuse of the y_i.
        dtype: that of the parameters; the results have that which is computed with (`wide`).

    Raises:
        ValueError: if features are not finite, or leave the range of what they are computed in,
            or that of its squares.
    """
    y = projected([x.to(wide_dtype(dtype)) for x in features], projections, dtype)
    check_finite(features, y)
    x_fuse = combined(y, None)
    _check_squares(y, x_fuse)
    return y, x_fuse


def _check_squares(*injected: Tensor) -> None:
    """Raises ValueError for what is so large that its norms have no variance in this dtype.

    A norm makes zeros of it in silence, and gradients that are not finite.
    """
    largest = torch.stack([x.detach().abs().amax() for x in injected]).amax()
    limit = math.sqrt(torch.finfo(largest.dtype).max / injected[0].shape[-1]) / 2
    if not hidden(largest) and largest > limit:
        raise ValueError(
            f"what is injected raw must be at most {limit:.1e} in {largest.dtype}, for the sake of "
            f"its norms, and has entries up to {float(largest):.1e}; scale the features down, or "
            "use injection='scale_free'"
        )


def scale_free(
    features: Sequence[Tensor],
    projections: Sequence[nn.Module],
    combined: Combine,
    dtype: torch.dtype,
    *,
    least: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the same of unit scale, y_i / rms(y_i) and x_fuse, whatever that of the features.

    Args:
        features, projections, dtype: see `raw`.
        combined: makes x_fuse, of unit scale, of the y_i.
        least: the scale of what it adds to them.
    """
    given, features = features, [x.to(wide_dtype(dtype)) for x in features]
    y = projected(features, projections, dtype)
    largest, limits = y.detach().abs().amax(-1), torch.finfo(dtype)
    usual = (largest > limits.tiny**0.9) & (largest < limits.max**0.9)  # NaN is not
    if hidden(y) or bool(usual.all()):
        return rms_normalised(y), combined(y, None)
    # The result does not depend on the scale of the features, but on the way the y_i may leave
    # the range of the dtype, and so may gradients, 1 / rms(y_i). So samples are divided by a
    # power of two first, which rounds nothing: for the f_i each modality by its own, for f_fuse
    # all by one.
    check_finite(given, features)
    peaks = torch.stack([x.detach().abs().amax(-1) for x in features])  # (N, B)
    odd = ~usual & (peaks > 0)
    if not bool(odd.any()):
        return rms_normalised(y), combined(y, None)
    together = peaks.amax(0) if least is None else peaks.amax(0).maximum(least)
    own = torch.where(odd, _reciprocal(peaks), 1).unsqueeze(-1)
    shared = torch.where(odd.any(0), _reciprocal(together), 1).unsqueeze(-1)
    scaled = [times(x, factor, dtype) for x, factor in zip(features, own, strict=True)]
    y = projected(scaled, projections, dtype)
    check_finite(scaled, y)
    together = projected([times(x, shared, dtype) for x in features], projections, dtype)
    return rms_normalised(y), combined(together, shared)


def _reciprocal(x: Tensor) -> Tensor:
    """Returns a power of two near 1 / x, in the range of the dtype; 1 for x = 0."""
    bound = math.frexp(torch.finfo(x.dtype).max)[1] - 2
    exponent = torch.frexp(x).exponent.clamp(-bound, bound)
    return torch.ldexp(torch.ones_like(x), -exponent)


def times(x: Tensor, factor: Tensor, dtype: torch.dtype, parts: int = 2) -> Tensor:
    """Returns the product, whose gradient by x ends at the largest number of `dtype` over `parts`.

    The gradient by a tiny feature may lie beyond the range of the dtype; `parts` of it are added.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        x, limit = x.view_as(x), torch.finfo(dtype).max / parts
        x.register_hook(partial(torch.clamp, min=-limit, max=limit))
    return x * factor


def rms_normalised(x: Tensor) -> Tensor:
    """Returns x / rms(x) over the last axis, for x of any scale; zero stays zero."""
    # Divided by its largest entry first, so that no square leaves the range of the dtype. The
    # result does not depend on that divisor, so neither does its gradient.
    largest = x.detach().abs().amax(-1, keepdim=True)
    x = x / torch.where(largest > 0, largest, 1)
    # now at least 1 / d, but for x = 0
    return x * x.square().mean(-1, keepdim=True).clamp_min(0.5 / x.shape[-1]).rsqrt()
