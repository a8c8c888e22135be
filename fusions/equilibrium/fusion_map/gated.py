"""The fusing map: a state gated by itself and by N others (Ni et al., 2023, equations 9 to 11).

    step(z) = Norm(ReLU(V s + v + x)),    s = sum_i m_i G(z + z_i) z,    G(y) = W y + w.

The gate G is linear and shared, so that with m = sum_i m_i

    s = z (W (m z + sum_i z_i) + m w)              if no m_i differs from entry to entry,
    s = z (m (W z + w) + sum_i m_i W z_i)          in any case,

where the sums are constant during a solve (`context`): a step costs the same for any N. The z_i
of absent modalities must be zero. Without gate, s = sum_i z_i, and the state does not depend on
itself. The step and, beside it, the products with its transposed Jacobian, written out.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..half import linear, wide
from .products import Norm, NormAt, Product, SteppedMap


class GatedCell(nn.Module):
    """The parameters of the map. It starts as a contraction (see `ResidualCells`).

    Args:
        n: number of the states that the gate sees beside its own.
        dim: width d of the states.
        groups: groups of the GroupNorm.
        norm_order: "relu_norm" for Norm(ReLU()), "norm_relu" for ReLU(Norm()).
        gate: whether there is a gate.
        recurrent_scale: the recurrent term as a fraction of the injected, as in `ResidualCells`.
    """

    def __init__(
        self, n: int, dim: int, *, groups: int, norm_order: str, gate: bool, recurrent_scale: float
    ) -> None:
        super().__init__()
        self.groups, self.norm_order, self.gate = groups, norm_order, gate
        if gate:
            self.gate_weight = nn.Parameter(torch.randn(dim, dim) / math.sqrt(2 * dim))
            self.gate_bias = nn.Parameter(torch.zeros(dim))
        # For states of unit spread the gates have unit spread, and their sum over i has the
        # spread sqrt((n^2 + n) / 2). s is quadratic in z, hence half of the scale.
        self.scale = recurrent_scale / 2 / math.sqrt((n**2 + n) / 2)
        self.weight = nn.Parameter(torch.randn(dim, dim) / math.sqrt(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.norm_weight = nn.Parameter(torch.ones(dim))
        self.norm_bias = nn.Parameter(torch.zeros(dim))

    def tensors(self) -> tuple[Any, ...]:
        """The weights of the map, the constant included: W, w, V, v, the norm's scale and shift.

        W and w are None without gate.
        """
        *gate, weight, bias, scale, shift = self.inputs()
        return *gate, self.scale * weight, bias, scale, shift

    def inputs(self) -> tuple[Any, ...]:
        """The parameters as `map` takes them, in the dtype that is computed with."""
        gate = (self.gate_weight, self.gate_bias) if self.gate else (None, None)
        others = self.weight, self.bias, self.norm_weight, self.norm_bias
        return tuple(x if x is None else wide(x) for x in (*gate, *others))

    def context(
        self, states: Tensor, masks: Tensor | None, weight: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Returns sum_i z_i and sum_i m_i W z_i, (B, d), of states (N, B, d).

        One of them is None: the second without masks (N, B, d), else the first.
        """
        if masks is None or weight is None:
            return states.sum(0), None
        return None, (masks * linear(states, weight)).sum(0)

    def map(
        self,
        total: Tensor | None,  # shape: (B, d)
        lifted: Tensor | None,  # shape: (B, d)
        m: Tensor,  # shape: (B or 1, d or 1)
        dropped: Tensor | None,  # shape: (B, d), a mask on V s + v
        x: Tensor,  # shape: (B, d)
        *tensors: Tensor | None,
    ) -> "GatedMap":
        """Returns the map with these constants and parameters."""
        return GatedMap(self, total, lifted, m, dropped, x, tensors)

    def gates(self, z: Tensor, states: Tensor) -> Tensor:
        """Returns G(z + z_i), (B, N, d), of z (B, d) and states (N, B, d)."""
        gate_weight, gate_bias, *_ = self.inputs()
        return linear(z + states, gate_weight, gate_bias).transpose(0, 1)


class GatedMap(SteppedMap):
    """A `maps.FixedPointMap` with states (B, d)."""

    def __init__(
        self,
        cell: GatedCell,
        total: Tensor | None,
        lifted: Tensor | None,
        m: Tensor,
        dropped: Tensor | None,
        x: Tensor,
        tensors: Sequence[Tensor | None],
    ) -> None:
        # those of the gate are None where there is none
        gate, gate_bias, weight, bias, scale, shift = cast(Sequence[Tensor], tensors)
        self.total: Any = total  # None where `lifted` takes its place
        self.lifted, self.m, self.dropped, self.x = lifted, m, dropped, x
        self.has_gate, self.relu_first = cell.gate, cell.norm_order == "relu_norm"
        if cell.gate:
            self.gate = Product(gate, 1.0, transposed=True)
            if lifted is None:
                self.gate.bias = m * gate_bias
            else:
                self.lifted = torch.addcmul(lifted, m, gate_bias)
        bias = bias + x if dropped is None else bias
        self.update = Product(weight, cell.scale, bias, transposed=True)
        self.norm = Norm(cell.groups, scale, shift)

    def start(self) -> Tensor:
        """Returns the image of zero, where the gate closes."""
        if not self.has_gate:
            return self._normed(self._updated(self.total, False))[0]
        bias = self.update.bias
        assert bias is not None
        if self.dropped is None:
            return self._normed(bias, in_place=False)[0]
        return self._normed(torch.addcmul(self.x, bias, self.dropped))[0]

    def step(self, z: Tensor, rough: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns f(z) and the trace."""
        gates = s = self.total
        if self.has_gate:
            gates = self.gate(self.gated(z), rough)
            if self.lifted is not None:
                gates = torch.addcmul(self.lifted, self.m, gates)
            s = z * gates
        image, trace = self._normed(self._updated(s, rough))
        return image, (gates, s, *trace)

    def gated(self, z: Tensor) -> Tensor:
        """Returns the states that the gate's matrix multiplies."""
        return z if self.lifted is not None else torch.addcmul(self.total, self.m, z)

    def _updated(self, s: Tensor, rough: bool) -> Tensor:
        """Returns V s + v + x."""
        u = self.update(s, rough)
        return u if self.dropped is None else torch.addcmul(self.x, u, self.dropped)

    def _normed(self, u: Tensor, in_place: bool = True) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns Norm(ReLU(u)) or ReLU(Norm(u)), perhaps computed in place of u, and the trace."""
        if self.relu_first:
            u = u.relu_() if in_place else u.relu()
            image, *of_u = self.norm(u)
            return image, (u, *of_u)
        image, *of_u = self.norm(u)
        image = image.relu_()
        return image, (u, *of_u, image)

    def at(self, z: Tensor, trace: Sequence[Tensor] = ()) -> "GatedAt":
        return GatedAt(self, z, trace or self.step(z)[1])

    def narrow(self, rows: Tensor) -> None:
        def kept(x: Any) -> Any:
            return x if x is None or x.ndim == 1 or len(x) == 1 else x.index_select(0, rows)

        self.total, self.lifted, self.m = kept(self.total), kept(self.lifted), kept(self.m)
        self.dropped, self.x = kept(self.dropped), kept(self.x)
        self.update.bias = kept(self.update.bias)
        if self.has_gate:
            self.gate.bias = kept(self.gate.bias)


class GatedAt:
    """`GatedMap` at a state z: a `maps.Linearised`."""

    _above: Any  # None where the ReLU is below the norm
    _cuts: tuple[Any, ...]

    def __init__(self, f: GatedMap, z: Tensor, trace: Sequence[Tensor]) -> None:
        self._f, self._z = f, z
        self._gates, self._s, before, mean, rstd, *image = trace
        self._norm = NormAt(before, mean, rstd, f.norm.groups)
        # of the ReLU below the norm its image, or of that above it the slope
        self._below = before if f.relu_first else None
        self._above = None if f.relu_first else image[0] > 0
        self._slope = f.norm.scale if f.relu_first else self._above * f.norm.scale

    def pull(self, u: Tensor, plus: Tensor | None, rough: bool = False) -> Tensor:
        f, self._cuts = self._f, ()  # makes room for the next
        self._cuts = self._cut(u, rough)
        _, ds, dgates, dtotal = self._cuts
        if not f.has_gate:
            return torch.zeros_like(u) if plus is None else plus.clone()
        if f.lifted is None:
            of_gate = dtotal * f.m if plus is None else torch.addcmul(plus, dtotal, f.m)
            return of_gate.addcmul_(ds, self._gates)
        return f.gate.pull(dgates * f.m, plus, rough).addcmul_(ds, self._gates)

    def _cut(self, u: Tensor, rough: bool = False) -> tuple[Any, ...]:
        """Returns the cotangents of x, s, the gates, and what the gate's matrix multiplies."""
        f, norm = self._f, self._norm
        dx = norm.pull(norm.grouped(u * self._slope)).view(u.shape)
        if self._below is not None:
            dx = torch.ops.aten.threshold_backward(dx, self._below, 0)
        ds = f.update.pull(dx if f.dropped is None else dx * f.dropped, None, rough)
        if not f.has_gate:
            return dx, ds, None, None
        dgates = ds * self._z
        return dx, ds, dgates, f.gate.pull(dgates, None, rough) if f.lifted is None else None

    def gradients(self, u: Tensor, scale: Tensor, *, latest: bool) -> tuple[Tensor | None, ...]:
        u = u * scale
        cuts: Iterable[Any] = self._cuts if latest else self._cut(u)
        if latest:
            cuts = (cut if cut is None else cut * scale for cut in cuts)
        f, (dx, ds, dgates, dtotal) = self._f, cuts
        dn = u if self._above is None else u * self._above
        du = dx if f.dropped is None else dx * f.dropped
        of_update = f.update.gradient(self._s, du), du.sum(0)
        of_norm = (dn * self._norm.normalised()).sum(0), dn.sum(0)
        if not f.has_gate:
            return ds, None, None, None, dx, None, None, *of_update, *of_norm
        shift = dgates * f.m
        dproduct = dgates if f.lifted is None else shift
        of_gate = f.gate.gradient(f.gated(self._z), dproduct), shift.sum(0)
        of_context = (dtotal, None) if f.lifted is None else (None, dgates)
        return *of_context, None, None, dx, *of_gate, *of_update, *of_norm
