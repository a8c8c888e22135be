"""The unimodal map: one residual cell for each modality (Ni et al., 2023, equation 8).

    two_layer   step(z) = Norm(ReLU(Norm(B h + b + x) [+ z])),    h = ReLU(Norm(A z + a))
    one_layer   step(z) = ReLU(B Norm(A z + a + x) + b)           (the release's, for CMU-MOSI)

A cell's step and, beside it, the products with its transposed Jacobian, written out.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..half import wide
from .products import Norm, NormAt, Product, SteppedMap


class ResidualCells(nn.Module):
    """The parameters of N cells. They start as contractions.

    Biases are zero, and the recurrent term is a fraction (`recurrent_scale`) of the injected one
    when states and injection have unit scale. A weight of the map is a constant times a parameter
    whose entries have the usual size, 1 / sqrt(d): with the constant inside the parameter,
    optimisers that take steps of a fixed size, like Adam, would multiply a recurrence that starts
    small within a few steps, and end contraction and training.

    Args:
        n: number of cells; each has its own parameters.
        dim: width d of the states.
        groups: groups of each GroupNorm.
        kind: "two_layer" or "one_layer".
        residual: add z before the last ReLU (two_layer only).
        recurrent_scale: see above.
    """

    def __init__(
        self, n: int, dim: int, *, groups: int, kind: str, residual: bool, recurrent_scale: float
    ) -> None:
        super().__init__()
        self.groups, self.kind, self.residual = groups, kind, residual
        first, second = (1.0, recurrent_scale) if kind == "two_layer" else (recurrent_scale, 1.0)
        self.scales = first, second * math.sqrt(2)  # the ReLU halves the second moment
        self.weight1 = nn.Parameter(torch.randn(n, dim, dim) / math.sqrt(dim))
        self.bias1 = nn.Parameter(torch.zeros(n, 1, dim))
        self.weight2 = nn.Parameter(torch.randn(n, dim, dim) / math.sqrt(dim))
        self.bias2 = nn.Parameter(torch.zeros(n, 1, dim))
        norms = 3 if kind == "two_layer" else 1
        self.norm_weight = nn.Parameter(torch.ones(norms, n, 1, dim))
        self.norm_bias = nn.Parameter(torch.zeros(norms, n, 1, dim))

    def tensors(self) -> tuple[Tensor, ...]:
        """The weights of the map, constants included: A, a, B, b and the norms' scale and shift."""
        w1, b1, w2, b2, *norms = self.inputs()
        return self.scales[0] * w1, b1, self.scales[1] * w2, b2, *norms

    def inputs(self) -> tuple[Tensor, ...]:
        """The parameters as `map` takes them, in the dtype that is computed with."""
        linear = (self.weight1, self.bias1, self.weight2, self.bias2)
        # of four dimensions, so that .to(memory_format=torch.channels_last) takes them for images
        norms = (self.norm_weight.contiguous(), self.norm_bias.contiguous())
        return tuple(wide(x) for x in (*linear, *norms))

    def map(self, x: Tensor, mask: Tensor | None, *tensors: Tensor) -> "TwoLayer | OneLayer":
        """Returns the map with these parameters, injections (N, B, d) and mask (N, B, 1).

        A mask of 0 makes states zero.
        """
        kind = TwoLayer if self.kind == "two_layer" else OneLayer
        return kind(self, x, mask, tensors)


class ResidualMap(SteppedMap):
    """The map of either kind but for its step: a `maps.FixedPointMap` with states (N, B, d)."""

    linearised: Callable[..., "TwoLayerAt | OneLayerAt"]

    def __init__(
        self, cells: ResidualCells, x: Tensor, mask: Tensor | None, tensors: Sequence[Tensor]
    ) -> None:
        w1, b1, w2, b2, scales, shifts = tensors
        self.x, self.mask, self.adds_state = x, mask, cells.residual
        self.first = Product(w1, cells.scales[0], b1)
        self.second = Product(w2, cells.scales[1], b2)
        pairs = zip(scales.unbind(), shifts.unbind(), strict=True)
        self.norms = [Norm(cells.groups, *pair) for pair in pairs]

    def at(self, z: Tensor, trace: Sequence[Tensor] = ()) -> "TwoLayerAt | OneLayerAt":
        return self.linearised(self, z, trace or self.step(z)[1])

    def narrow(self, rows: Tensor) -> None:
        self.x = self.x.index_select(1, rows)
        self.mask = None if self.mask is None else self.mask.index_select(1, rows)
        for product in (self.first, self.second):
            assert product.bias is not None
            if product.bias.shape[1] > 1:
                product.bias = product.bias.index_select(1, rows)

    def masked(self, x: Tensor) -> Tensor:
        """Returns x, with zeros where a modality is absent."""
        return x if self.mask is None else x * self.mask

    def gradients_of_parameters(
        self, first: Sequence[Tensor], second: Sequence[Tensor], norms: Sequence[Sequence[Any]]
    ) -> tuple[Tensor, ...]:
        """Returns the gradients in the order of the parameters.

        Args:
            first: factor and cotangent of the first product.
            second: those of the second.
            norms: of every norm its linearisation, and the cotangent of its result.
        """
        scale = [(u * norm.normalised()).sum(1, keepdim=True) for norm, u in norms]
        shift = [u.sum(1, keepdim=True) for _, u in norms]
        linear: tuple[Tensor, ...]
        linear = (self.first.gradient(*first), first[1].sum(1, keepdim=True))
        linear += (self.second.gradient(*second), second[1].sum(1, keepdim=True))
        return *linear, torch.stack(scale), torch.stack(shift)


class TwoLayer(ResidualMap):
    """h = ReLU(Norm(A z + a)), step = Norm(ReLU(Norm(B h + b + x) [+ z]))."""

    def __init__(self, cells: ResidualCells, x: Tensor, *rest: Any) -> None:
        super().__init__(cells, x, *rest)
        assert self.second.bias is not None
        self.second.bias = self.second.bias + x

    def start(self) -> Tensor:
        """Returns the image of zero, in which the first product has no part."""
        assert self.first.bias is not None
        h = self.norms[0](self.first.bias)[0].relu_()
        return self._above(self.second(h.expand_as(self.x)), None)[0]

    def step(self, z: Tensor, rough: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns f(z) and the trace."""
        a = self.first(z, rough)
        h, *of_a = self.norms[0](a)
        h = h.relu_()
        image, trace = self._above(self.second(h, rough), z)
        return image, (a, *of_a, h, *trace)

    def _above(self, e: Tensor, z: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns f(z) and the trace from e = B h + b + x on; z: None for zero."""
        v, *of_e = self.norms[1](e)
        v = v.relu_() if z is None or not self.adds_state else torch.relu_(v + z)
        image, *of_v = self.norms[2](v)
        return self.masked(image), (e, *of_e, v, *of_v)


class TwoLayerAt:
    """`TwoLayer` at a state z: a `maps.Linearised`."""

    _cuts: tuple[Tensor, ...]

    def __init__(self, f: TwoLayer, z: Tensor, trace: Sequence[Tensor]) -> None:
        a, mean_a, rstd_a, h, e, mean_e, rstd_e, v, mean_v, rstd_v = trace
        self._f, self._z, self._h, self._v = f, z, h, v
        groups = f.norms[0].groups
        self._norms = [
            NormAt(a, mean_a, rstd_a, groups),
            NormAt(e, mean_e, rstd_e, groups),
            NormAt(v, mean_v, rstd_v, groups),
        ]
        self._slopes = [
            (h > 0) * f.norms[0].scale,
            self._norms[1].grouped((v > 0) * f.norms[1].scale),
            f.masked(f.norms[2].scale),
        ]

    def pull(self, u: Tensor, plus: Tensor | None, rough: bool = False) -> Tensor:
        self._cuts = ()  # makes room for the next
        self._cuts = dv, _, _, da = self._cut(u, rough)
        product = self._f.first.pull(da, plus, rough)
        return product.add_(self._of_second_relu(dv)) if self._f.adds_state else product

    def _cut(self, u: Tensor, rough: bool = False) -> tuple[Tensor, ...]:
        """Returns the cotangents of v, e, h and a, that of v as groups."""
        norm_a, norm_e, norm_v = self._norms
        slope_h, slope_e, slope_v = self._slopes
        dv = norm_v.pull(norm_v.grouped(u * slope_v))
        de = norm_e.pull(dv * slope_e).view(u.shape)
        dh = self._f.second.pull(de, None, rough)
        da = norm_a.pull(norm_a.grouped(dh * slope_h)).view(u.shape)
        return dv, de, dh, da

    def _of_second_relu(self, dv: Tensor) -> Tensor:
        """Returns the cotangent before the second ReLU, of that after it."""
        return torch.ops.aten.threshold_backward(dv.view(self._v.shape), self._v, 0)

    def gradients(self, u: Tensor, scale: Tensor, *, latest: bool) -> tuple[Tensor | None, ...]:
        u = u * scale
        if latest:
            dv, *rest = self._cuts
            dv, de, dh, da = (cut * scale for cut in (dv.view(u.shape), *rest))
        else:
            dv, de, dh, da = self._cut(u)
        of_first_relu = torch.ops.aten.threshold_backward(dh, self._h, 0)
        cotangents = of_first_relu, self._of_second_relu(dv), self._f.masked(u)
        norms = list(zip(self._norms, cotangents, strict=True))
        return de, None, *self._f.gradients_of_parameters((self._z, da), (self._h, de), norms)


class OneLayer(ResidualMap):
    """h = Norm(A z + a + x), step = ReLU(B h + b)."""

    def __init__(self, cells: ResidualCells, x: Tensor, *rest: Any) -> None:
        super().__init__(cells, x, *rest)
        assert self.first.bias is not None
        self.first.bias = self.first.bias + x

    def start(self) -> Tensor:
        """Returns the image of zero."""
        assert self.first.bias is not None
        return self._above(self.first.bias, False)[0]

    def step(self, z: Tensor, rough: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns f(z) and the trace."""
        return self._above(self.first(z, rough), rough)

    def _above(self, a: Tensor, rough: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns f(z) and the trace from a = A z + a + x on."""
        h, *of_a = self.norms[0](a)
        v = self.second(h, rough).relu_()
        return self.masked(v), (a, *of_a, h, v)


class OneLayerAt:
    """`OneLayer` at a state z: a `maps.Linearised`."""

    _cuts: tuple[Tensor, ...]

    def __init__(self, f: OneLayer, z: Tensor, trace: Sequence[Tensor]) -> None:
        a, mean, rstd, h, v = trace
        self._f, self._z, self._h = f, z, h
        self._norm = NormAt(a, mean, rstd, f.norms[0].groups)
        self._slope = f.masked((v > 0).to(v.dtype))

    def pull(self, u: Tensor, plus: Tensor | None, rough: bool = False) -> Tensor:
        self._cuts = ()  # makes room for the next
        self._cuts = self._cut(u, rough)
        return self._f.first.pull(self._cuts[-1], plus, rough)

    def _cut(self, u: Tensor, rough: bool = False) -> tuple[Tensor, ...]:
        """Returns the cotangents of v, h and a."""
        dv = u * self._slope
        dh = self._f.second.pull(dv, None, rough)
        da = self._norm.pull(self._norm.grouped(dh * self._f.norms[0].scale)).view(u.shape)
        return dv, dh, da

    def gradients(self, u: Tensor, scale: Tensor, *, latest: bool) -> tuple[Tensor | None, ...]:
        cuts = [cut * scale for cut in self._cuts] if latest else self._cut(u * scale)
        dv, dh, da = cuts
        linear = (self._z, da), (self._h, dv)
        return da, None, *self._f.gradients_of_parameters(*linear, [(self._norm, dh)])


TwoLayer.linearised, OneLayer.linearised = TwoLayerAt, OneLayerAt
