"""The kernel of the gated cell (see kernels.py)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .cells import GatedCell
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
)


class GatedWeights(NamedTuple):
    """Prepared parameters of `GatedCell`, as of one cell."""

    gate: Weights | None
    gate_bias: Tensor | None
    weight: Weights
    bias: Tensor
    scale: Tensor
    shift: Tensor


class GatedKernel:
    """`GatedCell.step`; constants total, lifted, m, dropped and x, (R, d or 1) each or None."""

    def __init__(self, cell: GatedCell) -> None:
        self.norm, self.factor = Norm(cell.groups), cell.scale
        self.gate, self.relu_first = cell.gate, cell.norm_order == "relu_norm"

    def prepare(self, parameters: Sequence[Tensor | None], precision: torch.dtype | None):
        """Returns the weights that the other methods take."""
        gate, gate_bias, weight, *vectors = parameters
        if self.gate:
            gate = Weights(gate.unsqueeze(0), 1.0, precision, transposed=True)
            gate_bias = gate_bias.view(1, 1, -1)
        weight = Weights(weight.unsqueeze(0), self.factor, precision, transposed=True)
        return GatedWeights(gate, gate_bias, weight, *(t.view(1, 1, -1) for t in vectors))

    def start(self, w: GatedWeights, sizes: Sizes, total, lifted, m, dropped, x: Tensor) -> Tensor:
        """Returns the image of zero, where the gate closes."""
        if not self.gate:
            return self.image(w, x, sizes, total, lifted, m, dropped, x)[0]
        return self._from_product(w, repeated(w.bias[0], sizes), sizes, dropped, x)[0]

    def image(self, w: GatedWeights, z: Tensor, sizes: Sizes, total, lifted, m, dropped, x: Tensor):
        """Returns the next rows, and the trace."""
        gates = s = total
        if self.gate:
            if lifted is None:
                gates = w.gate.times(torch.addcmul(total, m, z), sizes)
                gates = gates.addcmul_(m, w.gate_bias[0])
            else:
                gates = torch.addcmul(lifted, m, w.gate.times(z, sizes, w.gate_bias))
            s = z * gates
        product = w.weight.times(s, sizes, w.bias)
        image, trace = self._from_product(w, product, sizes, dropped, x)
        return image, (gates, *trace)

    def _from_product(self, w: GatedWeights, u: Tensor, sizes: Sizes, dropped, x: Tensor):
        """Returns the next rows and the trace from u = V s + v on."""
        u = (u if dropped is None else u.mul_(dropped)).add_(x)
        u = u.relu_() if self.relu_first else u
        image, *stats = self.norm.affine(u, w.scale, w.shift, sizes)
        return (image, (u, *stats)) if self.relu_first else (image.relu_(), (u, *stats, image))

    def cuts(
        self,
        w: GatedWeights,
        u: Tensor,
        sizes: Sizes,
        z: Tensor,
        constants: Constants,
        trace: Trace,
    ):
        """Returns the cotangents of s and, through the gate, of what W multiplies."""
        _, lifted, m, dropped, _ = constants
        _, ds = self._above(w, u, sizes, trace)
        ds = ds if dropped is None else ds.mul_(dropped)
        ds = w.weight.pull(ds, sizes)  # under one name, which frees memory
        if not self.gate:
            return (ds,)
        dgates = ds * z
        return ds, w.gate.pull(dgates if lifted is None else dgates * m, sizes)

    def product(
        self,
        w: GatedWeights,
        u: Tensor,
        sizes: Sizes,
        constants: Constants,
        trace: Trace,
        cuts: Trace,
    ):
        """Returns J^T u."""
        if not self.gate:
            return torch.zeros_like(u)
        ds, dsum = cuts
        _, lifted, m, _, _ = constants
        return (dsum * m if lifted is None else dsum).addcmul(ds, trace[0])

    def _above(self, w: GatedWeights, u: Tensor, sizes: Sizes, trace: Trace):
        """Returns the cotangents of the affine norm's result and of V s + v + x."""
        _, before, mean, rstd, *image = trace
        dn = u if self.relu_first else relu_pull(u, *image)
        dx = self.norm.pull(scaled(dn, w.scale, sizes), before, mean, rstd)
        return dn, relu_pull_(dx, before) if self.relu_first else dx

    def gradients(
        self,
        w: GatedWeights,
        u: Tensor,
        sizes: Sizes,
        z: Tensor,
        constants: Constants,
        trace: Trace,
        cuts: Trace,
    ):
        """Returns the gradients of the constants, and those of the parameters."""
        total, lifted, m, dropped, _ = constants
        gates, before, *_ = trace
        s = z * gates if self.gate else total
        dn, dx = self._above(w, u, sizes, trace)
        linear = dx if dropped is None else dx * dropped
        of_context, of_gate = (cuts[0], None), (None, None)
        if self.gate:
            ds, dsum = cuts
            dgates = ds * z
            shift = dgates * m
            if lifted is None:
                of_context = dsum, None
                weight = w.gate.gradient(torch.addcmul(total, m, z), dgates)
            else:
                of_context = None, dgates
                weight = w.gate.gradient(z, shift)
            of_gate = weight[0], shift.sum(0)
        of_norm = (dn * self.norm(before)[0]).sum(0), dn.sum(0)
        of_linear = w.weight.gradient(s, linear)[0], linear.sum(0)
        return (*of_context, None, None, dx), (*of_gate, *of_linear, *of_norm)
