"""The injection of a DEQ fusion: features projected and, by default, brought to unit scale."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Injection:
    """Features on their way into a solve; odd ones, which need a closer look, are made NaN first.

    Odd features are not finite, or of a scale at which something on the way would leave the range
    of the dtype. To look at values would stop the device and wait for it, so they are not looked
    at: NaN is, by the solve that meets it, and `careful` then refuses the features or injects them.

    Args:
        features: (B, d_i) for each modality.
        projections: their P_i.
        combined: makes x_fuse of the y_i.
        dtype: that of the parameters; the results have that which is computed with (`wide`).
        least: the scale of what `combined` adds to the y_i, if it adds something.
    """

    features: Sequence[Tensor]
    projections: Sequence[nn.Module]
    combined: Combine
    dtype: torch.dtype
    least: Tensor | None = None

    def _projected(self, features: Sequence[Tensor]) -> Tensor:
        """Returns the y_i = P_i x_i, (N, B, d), in the dtype of the features.

        A module of another kind in the place of a `Projection` is given features of `dtype`.
        """
        ours = Projection, nn.Identity
        pairs = zip(self.projections, features, strict=True)
        y = [p(x if isinstance(p, ours) else x.to(self.dtype)).to(x.dtype) for p, x in pairs]
        return torch.stack(y)

    @property
    def _computed(self) -> list[Tensor]:
        return [x.to(wide_dtype(self.dtype)) for x in self.features]


class RawInjection(Injection):
    """The paper's injection: y_i, (N, B, d), for the f_i and x_fuse for f_fuse, as they are."""

    def quick(self) -> tuple[Tensor, Tensor]:
        """Returns both, NaN where they are not finite or have squares out of range."""
        y = self._projected(self._computed)
        return self._within_range(y), self._within_range(self.combined(y, None))

    def careful(self, x: Tensor, x_fuse: Tensor) -> None:
        """Raises ValueError for features as described; there is no other way to inject them."""
        y = self._projected(self._computed)
        check_finite(self.features, y)
        largest = torch.stack([_largest(x).amax() for x in (y, self.combined(y, None))]).amax()
        if largest > self._limit(y):
            raise ValueError(
                f"what is injected raw must be at most {self._limit(y):.1e} in {y.dtype}, for the "
                f"sake of its norms, and has entries up to {float(largest):.1e}; scale the "
                "features down, or use equations=Equations(injection='scale_free')"
            )

    def _limit(self, x: Tensor) -> float:
        """Returns the largest entry that norms take; beyond, they make zeros, and gradients NaN."""
        return math.sqrt(torch.finfo(x.dtype).max / x.shape[-1]) / 2

    def _within_range(self, x: Tensor) -> Tensor:
        return x if hidden(x) else x.masked_fill(_largest(x) > self._limit(x), torch.nan)


class ScaleFreeInjection(Injection):
    """The injection of unit scale: y_i / rms(y_i), and x_fuse likewise."""

    def quick(self) -> tuple[Tensor, Tensor]:
        """Returns both, NaN where they are of an unusual scale."""
        features = self._computed
        y = self._projected(features)
        x_fuse = self.combined(y, None)
        if hidden(y):
            return rms_normalised(y), rms_normalised(x_fuse)
        zero = torch.stack([_largest(x) for x in features]) == 0
        together = zero.all(0) if self.least is None else torch.zeros_like(zero[0])
        (rms, odd), (rms_fuse, odd_fuse) = self._rms(y), self._rms(x_fuse)
        # what is odd together as well, so that the first of the solves meets it
        rms = rms.masked_fill(odd | odd_fuse, torch.nan).masked_fill(zero, 1)
        rms_fuse = rms_fuse.masked_fill(odd_fuse, torch.nan).masked_fill(together, 1)
        return y / rms, x_fuse / rms_fuse

    def _rms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns rms(x), (..., 1), and where gradients or squares may leave their range."""
        given, computed = torch.finfo(self.dtype), torch.finfo(x.dtype)
        least = max(given.tiny**0.9, computed.tiny**0.4)
        most = min(given.max**0.9, computed.max**0.4)
        rms = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * x.shape[-1] ** -0.5
        return rms, rms.clamp(least, most) != rms

    def careful(self, x: Tensor, x_fuse: Tensor) -> tuple[Tensor, Tensor] | None:
        """Returns both with features of any scale; None if what `quick` returned is finite.

        The result does not depend on the scale of the features, but on the way the y_i may leave
        the range of the dtype, and so may gradients, 1 / rms(y_i). So samples are divided by a
        power of two first, which rounds nothing: for the f_i each modality by its own, for f_fuse
        all by one.

        Raises:
            ValueError: if features are not finite, or leave the range of what they are computed in.
        """
        features = self._computed
        check_finite(self.features, features)
        odd = ~x.isfinite().all(-1)
        if not bool(odd.any() | ~x_fuse.isfinite().all()):
            return None
        peaks = torch.stack([_largest(x).squeeze(-1) for x in features])  # (N, B)
        together = peaks.amax(0) if self.least is None else peaks.amax(0).maximum(self.least)
        own = torch.where(odd, _reciprocal(peaks), 1).unsqueeze(-1)
        shared = torch.where(odd.any(0), _reciprocal(together), 1).unsqueeze(-1)
        pairs = zip(features, own, strict=True)
        scaled = [times(x, factor, self.dtype) for x, factor in pairs]
        y = self._projected(scaled)
        check_finite(scaled, y)
        together = self._projected([times(x, shared, self.dtype) for x in features])
        return rms_normalised(y), rms_normalised(self.combined(together, shared))


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
    largest = _largest(x)
    x = x / torch.where(largest > 0, largest, 1)
    # now at least 1 / d, but for x = 0
    return x * x.square().mean(-1, keepdim=True).clamp_min(0.5 / x.shape[-1]).rsqrt()


def _largest(x: Tensor) -> Tensor:
    """Returns the largest absolute entry over the last axis, (..., 1), as a constant."""
    with torch.no_grad():
        return torch.linalg.vector_norm(x, torch.inf, dim=-1, keepdim=True)
