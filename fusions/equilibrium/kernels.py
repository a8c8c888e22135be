"""The steps of the cells and their vector-Jacobian products, written out for speed.

A kernel computes what its cell's `step` computes, and without autograd the products with the
transposed Jacobian. Each evaluation also returns what it worked out on the way (its trace), and
each product the cotangents that took it a matrix product (its cuts). So no matrix product is
computed twice: the last evaluation of a solve serves the backward pass, and the last product of
the adjoint solve the gradients of the parameters.

    start(weights, sizes, *constants) -> the next rows after zero
    image(weights, z, sizes, *constants) -> next rows, trace
    cuts(weights, u, sizes, z, constants, trace) -> cuts
    product(weights, u, sizes, constants, trace, cuts) -> J^T u
    gradients(weights, u, sizes, z, constants, trace, cuts) -> of the constants, of the parameters

Rows and `sizes` are as in products.py. `weights` are the parameters, prepared once a solve.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .cells import GatedCell, ResidualCells
from .gated_kernel import GatedKernel
from .products import (
    Constants,
    Norm,
    Sizes,
    Trace,
    Weights,
    relu_pull,
    relu_pull_,
    repeated,
    scaled,
    scaled_,
    summed,
)


class ResidualWeights(NamedTuple):
    """Prepared parameters of `ResidualCells`."""

    w1: Weights
    b1: Tensor
    w2: Weights
    b2: Tensor
    scale: Tensor
    shift: Tensor


class ResidualKernel:
    """What both kinds of `ResidualCells` have in common; constants x (R, d), mask (R, 1)."""

    def __init__(self, cells: ResidualCells) -> None:
        self.norm, self.factors, self.residual = Norm(cells.groups), cells.scales, cells.residual

    def prepare(self, parameters: Sequence[Tensor], precision: torch.dtype | None):
        """Returns the weights that the other methods take."""
        w1, b1, w2, b2, scale, shift = parameters
        w1, w2 = (Weights(w, f, precision) for w, f in zip((w1, w2), self.factors, strict=True))
        return ResidualWeights(w1, b1, w2, b2, scale, shift)

    def product(
        self,
        w: ResidualWeights,
        u: Tensor,
        sizes: Sizes,
        constants: Constants,
        trace: Trace,
        cuts: Trace,
    ) -> Tensor:
        """Returns J^T u, but for what passes z by."""
        return w.w1.pull(self._below(w, sizes, trace, cuts), sizes)

    def _below(self, w: ResidualWeights, sizes: Sizes, trace: Trace, cuts: Trace) -> Tensor:
        """Returns the cotangent of what the first norm takes."""
        a, mean, rstd, *_ = trace
        return self.norm.pull(scaled(cuts[0], w.scale[0], sizes), a, mean, rstd)

    def _parameter_gradients(self, w: ResidualWeights, linear, norms) -> tuple[Tensor, ...]:
        """Returns the gradients in the order of the parameters.

        `linear` holds (rows, cotangent) of both products, `norms` (input, cotangent of the
        affine result) of all norms.
        """
        n = len(w.b1)
        (z, da), (h, de) = linear
        scale = torch.stack([summed(cut * self.norm(x)[0], n) for x, cut in norms])
        shift = torch.stack([summed(cut, n) for _, cut in norms])
        products = w.w1.gradient(z, da), summed(da, n), w.w2.gradient(h, de), summed(de, n)
        return *products, scale, shift


class TwoLayerTrace(NamedTuple):
    """Inputs of the norms with their statistics, and the results of the ReLUs, v among the former.

    a = A z + a, h, e = B h + b + x and v, which the last norm takes.
    """

    a: Tensor
    mean_a: Tensor
    rstd_a: Tensor
    h: Tensor
    e: Tensor
    mean_e: Tensor
    rstd_e: Tensor
    v: Tensor
    mean_v: Tensor
    rstd_v: Tensor


class TwoLayerKernel(ResidualKernel):
    """h = ReLU(Norm(A z + a)), step = Norm(ReLU(Norm(B h + b + x) [+ z]))."""

    def start(self, w: ResidualWeights, sizes: Sizes, x: Tensor, mask: Tensor | None) -> Tensor:
        """Returns the image of zero, whose products are the same for all rows of a cell."""
        ones = [1] * len(sizes)
        h = self.norm.affine(w.b1.flatten(0, 1), w.scale[0], w.shift[0], ones)[0].relu_()
        e = repeated(w.w2.times(h, ones, w.b2), sizes).add_(x)
        return self._from_injected(w, e, None, sizes, mask)[0]

    def image(self, w: ResidualWeights, z: Tensor, sizes: Sizes, x: Tensor, mask: Tensor | None):
        """Returns the next rows, and the trace."""
        a = w.w1.times(z, sizes, w.b1)
        h, *stats = self.norm.affine(a, w.scale[0], w.shift[0], sizes)
        e = w.w2.times(h.relu_(), sizes, w.b2).add_(x)
        image, trace = self._from_injected(w, e, z, sizes, mask)
        return image, (a, *stats, h, *trace)

    def _from_injected(self, w: ResidualWeights, e: Tensor, z: Tensor | None, sizes: Sizes, mask):
        """Returns the next rows and the trace from e = B h + b + x on."""
        v, *stats_e = self.norm.affine(e, w.scale[1], w.shift[1], sizes)
        v = (v.add_(z) if self.residual and z is not None else v).relu_()
        image, *stats_v = self.norm.affine(v, w.scale[2], w.shift[2], sizes)
        return (image if mask is None else image.mul_(mask)), (e, *stats_e, v, *stats_v)

    def cuts(
        self,
        w: ResidualWeights,
        u: Tensor,
        sizes: Sizes,
        z: Tensor,
        constants: Constants,
        trace: Trace,
    ):
        """Returns the cotangent before the first ReLU."""
        t = TwoLayerTrace(*trace)
        de = scaled_(self._above(w, u, sizes, constants, trace), w.scale[1], sizes)
        de = self.norm.pull(de, t.e, t.mean_e, t.rstd_e)  # under one name, which frees memory
        return (relu_pull_(w.w2.pull(de, sizes), t.h),)

    def product(
        self,
        w: ResidualWeights,
        u: Tensor,
        sizes: Sizes,
        constants: Constants,
        trace: Trace,
        cuts: Trace,
    ):
        """Returns J^T u."""
        product = super().product(w, u, sizes, constants, trace, cuts)
        if self.residual:
            product += self._above(w, u, sizes, constants, trace)
        return product

    def _above(
        self, w: ResidualWeights, u: Tensor, sizes: Sizes, constants: Constants, trace: Trace
    ) -> Tensor:
        """Returns the cotangent before the second ReLU."""
        _, mask = constants
        t = TwoLayerTrace(*trace)
        dq = scaled(u if mask is None else u * mask, w.scale[2], sizes)
        return relu_pull_(self.norm.pull(dq, t.v, t.mean_v, t.rstd_v), t.v)

    def gradients(
        self,
        w: ResidualWeights,
        u: Tensor,
        sizes: Sizes,
        z: Tensor,
        constants: Constants,
        trace: Trace,
        cuts: Trace,
    ):
        """Returns the gradients of x and mask, and those of the parameters."""
        _, mask = constants
        t = TwoLayerTrace(*trace)
        dq = self._above(w, u, sizes, constants, trace)
        de = self.norm.pull(scaled(dq, w.scale[1], sizes), t.e, t.mean_e, t.rstd_e)
        da = self._below(w, sizes, trace, cuts)
        norms = (t.a, cuts[0]), (t.e, dq), (t.v, u if mask is None else u * mask)
        return (de, None), self._parameter_gradients(w, ((z, da), (t.h, de)), norms)


class OneLayerKernel(ResidualKernel):
    """h = Norm(A z + a + x), step = ReLU(B h + b)."""

    def start(self, w: ResidualWeights, sizes: Sizes, x: Tensor, mask: Tensor | None) -> Tensor:
        """Returns the image of zero."""
        return self._from_injected(w, repeated(w.b1.flatten(0, 1), sizes), sizes, x, mask)[0]

    def image(self, w: ResidualWeights, z: Tensor, sizes: Sizes, x: Tensor, mask: Tensor | None):
        """Returns the next rows, and the trace."""
        return self._from_injected(w, w.w1.times(z, sizes, w.b1), sizes, x, mask)

    def _from_injected(self, w: ResidualWeights, a: Tensor, sizes: Sizes, x: Tensor, mask):
        """Returns the next rows and the trace from a = A z + a on, which becomes A z + a + x."""
        h, *stats = self.norm.affine(a.add_(x), w.scale[0], w.shift[0], sizes)
        v = w.w2.times(h, sizes, w.b2).relu_()
        return (v if mask is None else v * mask), (a, *stats, h, v)

    def cuts(
        self,
        w: ResidualWeights,
        u: Tensor,
        sizes: Sizes,
        z: Tensor,
        constants: Constants,
        trace: Trace,
    ):
        """Returns the cotangent of h."""
        return (w.w2.pull(self._above(u, constants, trace), sizes),)

    def _above(self, u: Tensor, constants: Constants, trace: Trace) -> Tensor:
        """Returns the cotangent before the ReLU."""
        _, mask = constants
        return relu_pull(u if mask is None else u * mask, trace[4])

    def gradients(
        self,
        w: ResidualWeights,
        u: Tensor,
        sizes: Sizes,
        z: Tensor,
        constants: Constants,
        trace: Trace,
        cuts: Trace,
    ):
        """Returns the gradients of x and mask, and those of the parameters."""
        a, _, _, h, _ = trace
        da, dv = self._below(w, sizes, trace, cuts), self._above(u, constants, trace)
        norms = [(a, cuts[0])]
        return (da, None), self._parameter_gradients(w, ((z, da), (h, dv)), norms)


def make_kernel(cell: ResidualCells | GatedCell) -> TwoLayerKernel | OneLayerKernel | GatedKernel:
    """Returns the kernel of a cell."""
    if isinstance(cell, GatedCell):
        return GatedKernel(cell)
    return TwoLayerKernel(cell) if cell.kind == "two_layer" else OneLayerKernel(cell)
