"""The interface of a map that is solved for its fixed point and differentiated there.

A map f has states (..., batch, size): each sample has one part, or several that converge on their
own (the states of several modalities, say). Any function of torch becomes a map by `AutogradMap`;
one whose transposed Jacobian is written out, as those of `fusion_map`, offers the same by fewer
operations.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Pace(NamedTuple):
    """The pace of a map's solves; the result depends on `plain` and `rough` alone.

    Attributes:
        first: steps until the host asks whether all have converged. It waits for the device
            then; what has converged stays as it was.
        then: steps between later questions.
        plain: first steps that are plain iteration, if the rule can be told of them afterwards.
        rough: those of them that `FixedPointMap.rough` takes in place of the map itself.
    """

    first: int = 1
    then: int = 1
    plain: int = 0
    rough: int = 0


Residual = Callable[[Tensor, Tensor], Tensor]  # (z, f(z)) -> how far f(z) is from z, (..., batch)


class FixedPointMap(Protocol):
    """A map at work on some samples, all of them at first.

    Attributes:
        pace: the pace of its solves.
        residual: `relative_residual`, or `normal_residual` where that will do; of an adjoint
            map its own.
        narrows: whether samples can leave.
        trace: intermediate results of the last evaluation, for `at`.
    """

    @property
    def pace(self) -> Pace: ...

    @property
    def residual(self) -> Residual: ...

    @property
    def narrows(self) -> bool: ...

    @property
    def trace(self) -> tuple[Tensor, ...]: ...

    def start(self) -> Tensor:
        """Returns the first iterate, (..., batch, size)."""

    def __call__(self, z: Tensor) -> Tensor:
        """Returns f(z)."""

    def rough(self, z: Tensor) -> Tensor:
        """Returns f(z) with less precision and in less time."""

    def narrow(self, rows: Tensor) -> None:
        """Goes on with the samples of the given indices, in ascending order, only."""

    def at(self, z: Tensor, trace: Sequence[Tensor] = ()) -> "Linearised":
        """Returns the map of all samples, linearised at z; `trace` is of an evaluation there."""


class Linearised(Protocol):
    """A map at a state z: products with its transposed Jacobian J^T."""

    def pull(self, u: Tensor, plus: Tensor | None, rough: bool = False) -> Tensor:
        """Returns J^T u + plus; if `rough` with less precision and in less time."""

    def gradients(self, u: Tensor, scale: Tensor, *, latest: bool) -> Sequence[Tensor | None]:
        """Returns (df/dx)^T (scale u) for every input x, None where it needs no gradient.

        The scale is a number a part; `latest`: whether u was the last that `pull` was given.
        """


class Function:
    """A function of (batch, ...) as a map of (batch, size) that cannot be differentiated."""

    def __init__(self, f: Callable[[Tensor], Tensor], start: Tensor) -> None:
        self._f: Any = f  # it may have a method `narrow`
        self._start = start.detach()
        self.narrows, self.residual = hasattr(f, "narrow"), relative_residual
        self.pace = Pace() if start.is_cpu else Pace(first=5, then=4)

    def start(self) -> Tensor:
        return self._start.flatten(1)

    def __call__(self, z: Tensor) -> Tensor:
        return self._f(z.view(len(z), *self._start.shape[1:])).flatten(1).to(z.dtype)

    def rough(self, z: Tensor) -> Tensor:
        return self(z)

    def narrow(self, rows: Tensor) -> None:
        self._f.narrow(rows)


class AutogradMap(Function):
    """Any function f(z, *inputs) of torch; its Jacobian is autograd's.

    Args:
        f: maps (batch, ...) and the inputs to (batch, ...), sample by sample; evaluated again
            when it is linearised, under the autocast state of that moment.
        start: first iterate, (batch, ...).
        inputs: every tensor that f depends on and that shall receive a gradient, parameters
            included; None entries are passed through.
    """

    trace: tuple[Tensor, ...] = ()

    def __init__(
        self, f: Callable[..., Tensor], start: Tensor, inputs: Sequence[Tensor | None]
    ) -> None:
        # detached, for autocast may otherwise keep casts of parameters that have no graph
        fixed = [x if x is None else x.detach() for x in inputs]
        super().__init__(lambda z: f(z, *fixed), start)
        self._whole, self._inputs = f, inputs

    def at(self, z: Tensor, trace: Sequence[Tensor] = ()) -> "AutogradLinearised":
        shaped = z.view(len(z), *self._start.shape[1:])
        return AutogradLinearised(self._whole, shaped, self._inputs)


class AutogradLinearised:
    """f(z, *inputs) at a state, by autograd: one evaluation is recorded."""

    def __init__(
        self, f: Callable[..., Tensor], z: Tensor, inputs: Sequence[Tensor | None]
    ) -> None:
        self._z = z.detach().requires_grad_()
        self._inputs = [
            x.detach().requires_grad_() if x is not None and x.is_floating_point() else x
            for x in inputs
        ]
        with torch.enable_grad():
            self._image = f(self._z, *self._inputs)

    def pull(self, u: Tensor, plus: Tensor | None, rough: bool = False) -> Tensor:
        product = self._product(u, [self._z])[0].view_as(u)
        return product if plus is None else product + plus

    def gradients(self, u: Tensor, scale: Tensor, *, latest: bool) -> list[Tensor | None]:
        wanted = [x for x in self._inputs if x is not None and x.requires_grad]
        found = iter(self._product(u * scale, wanted))
        return [None if x is None or not x.requires_grad else next(found) for x in self._inputs]

    def _product(self, u: Tensor, to: Sequence[Tensor]) -> Sequence[Tensor]:
        if not self._image.requires_grad or not to:
            return [torch.zeros_like(x) for x in to]
        u = u.view_as(self._image).to(self._image.dtype)
        return torch.autograd.grad(self._image, to, u, retain_graph=True, materialize_grads=True)


class Adjoint:
    """u -> J^T u + g as a map; its fixed point is the cotangent of the implicit gradient."""

    narrows = False  # a linearised map keeps its samples together

    def __init__(self, linear: Linearised, g: Tensor, f: FixedPointMap) -> None:
        self._linear, self._g, self.pace = linear, g, f.pace
        least = torch.finfo(g.dtype).tiny ** 0.4  # whose square is in range
        self._size = torch.linalg.vector_norm(g, dim=-1).clamp_min(least)

    def residual(self, u: Tensor, fu: Tensor) -> Tensor:
        """Returns |f(u) - u| / |g|, as of any linear system: relative to its right-hand side.

        Relative to f(u), an iterate that grows without end would seem to come near; of a solve
        that does not converge it would be kept, and be a gradient of any size.
        """
        return torch.linalg.vector_norm(fu - u, dim=-1).div_(self._size)

    def start(self) -> Tensor:
        return self._g

    def __call__(self, u: Tensor) -> Tensor:
        return self._linear.pull(u, self._g)

    def rough(self, u: Tensor) -> Tensor:
        return self._linear.pull(u, self._g, rough=True)


def relative_residual(z: Tensor, fz: Tensor) -> Tensor:
    """Returns |fz - z| / |fz| over the last axis, at any scale; NaN where fz is not finite."""
    # Rows are brought to unit size first, or some squares might leave the range of the dtype; by
    # a power of two, which rounds nothing.
    limits = torch.finfo(fz.dtype)
    largest = fz.abs().amax(-1)
    finite = largest.isfinite()
    bound = math.frexp(limits.max)[1] - 2  # so that no factor leaves the range
    exponent = torch.frexp(torch.where(finite, largest, 1)).exponent.clamp(-bound, bound)
    factor = torch.ldexp(torch.ones_like(largest), -exponent).unsqueeze(-1)
    change = torch.linalg.vector_norm((fz - z) * factor, dim=-1)
    size = torch.linalg.vector_norm(fz * factor, dim=-1)
    return torch.where(finite, change / size.clamp_min(limits.tiny), torch.nan)


def normal_residual(z: Tensor, fz: Tensor) -> Tensor:
    """Returns the same for states of usual size, with fewer operations.

    A size that squares could not hold counts as the next that they can: the residual of what is
    larger comes out larger, so that it is never taken for converged, and what is smaller counts
    as zero. It is infinite or NaN where fz is not finite.
    """
    limits = torch.finfo(fz.dtype)
    change = torch.linalg.vector_norm(fz - z, dim=-1)
    size = torch.linalg.vector_norm(fz, dim=-1)
    return change.div_(size.clamp_(limits.tiny**0.4, limits.max**0.4))
