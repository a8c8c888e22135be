"""Maps made to be solved for their fixed point, as pure functions of all their tensors.

A cell's `step(z, ..., *tensors)` takes the weights of its map as arguments, in the order of
`tensors()`, as `implicit_fixed_point` wants it. Both cells start as contractions: zero
biases, and a recurrent term that is a fraction (`recurrent_scale`) of the injected one when
states and injection have unit scale.

A weight of the map is a constant times a parameter whose entries have the usual size,
1 / sqrt(d). With the constant inside the parameter, optimisers that take steps of a fixed
size, like Adam, would multiply a recurrence that starts small within a few steps, and end
contraction and training.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .half import affine, linear, wide


class ResidualCells(nn.Module):
    """N residual cells side by side, as one batched map (Ni et al., 2023, equation 8).

    two_layer: h = ReLU(Norm(A z + a)), step = Norm(ReLU(Norm(B h + b + x) [+ z])).
    one_layer: step = ReLU(B Norm(A z + a + x) + b).

    Args:
        n: number of cells; each has its own parameters.
        dim: width d of the states.
        groups: groups of each GroupNorm.
        kind: "two_layer" or "one_layer".
        residual: add z before the last ReLU (two_layer only).
        recurrent_scale: see the module's docstring.
    """

    KINDS = ("two_layer", "one_layer")

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

    def tensors(self, bare: Sequence[Tensor] | None = None) -> tuple[Tensor, ...]:
        """The weights of the map, in the order in which `step` takes them.

        Args:
            bare: what `bare_tensors` returned, where more than one use is made of it.
        """
        w1, b1, w2, b2, *norms = self.bare_tensors() if bare is None else bare
        return (self.scales[0] * w1, b1, self.scales[1] * w2, b2, *norms)

    def bare_tensors(self) -> tuple[Tensor, ...]:
        """The parameters in the same order, without the constants `scales`, as `wide` has them."""
        layers = (self.weight1, self.bias1, self.weight2, self.bias2)
        return tuple(wide(x) for x in (*layers, self.norm_weight, self.norm_bias))

    def step(self, z: Tensor, x: Tensor, mask: Tensor | None, *tensors: Tensor) -> Tensor:
        """Returns the next states; z, x (n, batch, d), mask (n, batch, 1) zeroes states."""
        w1, b1, w2, b2, scale, shift = tensors
        if self.kind == "two_layer":
            h = F.relu(self._norm(affine(z, w1, b1), scale[0], shift[0]))
            u = self._norm(affine(h, w2, b2) + x, scale[1], shift[1])
            image = self._norm(F.relu(u + z if self.residual else u), scale[2], shift[2])
        else:
            h = self._norm(affine(z, w1, b1) + x, scale[0], shift[0])
            image = F.relu(affine(h, w2, b2))
        return image if mask is None else image * mask

    def _norm(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return torch.addcmul(shift, F.group_norm(x.flatten(0, 1), self.groups).view_as(x), scale)


class GatedCell(nn.Module):
    """A cell whose state is gated by itself and by n others (Ni et al., 2023, eqs. 9 to 11).

        step = Norm(ReLU(V s + v + x)),    s = sum_i m_i G(z + z_i) z,    G(y) = W y + w.

    The gate G is linear and shared, so that with m = sum_i m_i

        s = z (W (m z + sum_i z_i) + m w)              if no m_i differs from entry to entry,
        s = z (m (W z + w) + sum_i m_i W z_i)          in any case,

    where the sums are constant during a solve (`context`): a step costs the same for any n. The
    z_i of absent modalities must be zero. Without gate, s = sum_i z_i, and the state does not
    depend on itself.

    Args:
        n, dim, groups, recurrent_scale: as in `ResidualCells`.
        norm_order: "relu_norm" for Norm(ReLU()), "norm_relu" for ReLU(Norm()).
        gate: whether there is a gate.
    """

    NORM_ORDERS = ("relu_norm", "norm_relu")

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

    def tensors(self, bare: Sequence[Tensor | None] | None = None) -> tuple[Tensor | None, ...]:
        """The weights of the map, in the order in which `step` takes them (see `ResidualCells`)."""
        gate_weight, gate_bias, weight, *others = self.bare_tensors() if bare is None else bare
        return (gate_weight, gate_bias, self.scale * weight, *others)

    def bare_tensors(self) -> tuple[Tensor | None, ...]:
        """The parameters in the same order, without the constant `scale`, as `wide` has them."""
        gate = (self.gate_weight, self.gate_bias) if self.gate else (None, None)
        others = self.weight, self.bias, self.norm_weight, self.norm_bias
        return tuple(x if x is None else wide(x) for x in (*gate, *others))

    def context(
        self, states: Tensor, masks: Tensor | None, weight: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Returns sum_i z_i and sum_i m_i W z_i, (batch, d), of states (n, batch, d).

        One of them is None: the second without masks (n, batch, d), else the first.
        """
        if masks is None or weight is None:
            return states.sum(0), None
        return None, (masks * linear(states, weight)).sum(0)

    def step(
        self,
        z: Tensor,  # shape: (batch, d)
        total: Tensor | None,  # shape: (batch, d)
        lifted: Tensor | None,  # shape: (batch, d)
        m: Tensor,  # shape: (batch or 1, d or 1)
        dropped: Tensor | None,  # shape: (batch, d), a mask on V s + v
        x: Tensor,  # shape: (batch, d)
        *tensors: Tensor | None,
    ) -> Tensor:
        """Returns the next state; `total` and `lifted` are the context."""
        gate_weight, gate_bias, weight, bias, scale, shift = tensors
        if not self.gate:
            s = total
        elif lifted is None:
            gates = linear(torch.addcmul(total, m, z), gate_weight)
            s = z * torch.addcmul(gates, m, gate_bias)
        else:
            s = z * torch.addcmul(lifted, m, linear(z, gate_weight, gate_bias))
        u = linear(s, weight, bias)
        u = (u if dropped is None else u * dropped) + x
        if self.norm_order == "relu_norm":
            return F.group_norm(F.relu(u), self.groups, scale, shift)
        return F.relu(F.group_norm(u, self.groups, scale, shift))

    def gates(self, z: Tensor, states: Tensor) -> Tensor:
        """Returns G(z + z_i), (batch, n, d), of z (batch, d) and states (n, batch, d)."""
        gate_weight, gate_bias, *_ = self.bare_tensors()
        return linear(z + states, gate_weight, gate_bias).transpose(0, 1)
