"""A map like Ni et al.'s (2023) that has one fixed point, whatever its weights.

Which guarantee can be had for their map as it is? None that leaves a recurrence.

- Non-negative weights and concave activations (pcDEQ, arXiv:2402.04029) need a map that is
  monotone and concave. GroupNorm takes the mean off, so that a larger entry makes the others of
  its group smaller; and the gate's product z (W z) is convex along a ray, where it is monotone.
- A monotone operator (monDEQ, arXiv:2006.08591) needs a state that enters linearly, below a
  proximal map. The gate's product is quadratic, and GroupNorm with the usual eps = 1e-5 is no
  proximal map: it expands what is small by up to 1 / sqrt(eps) = 316.
- A bound on the weights' norms makes any Lipschitz map contract, but has to undo that factor: of
  the three norms of f_i, that of f_fuse, and the gate, whose slope grows with sqrt(d). ||A|| ||B||
  below 316^-3 is no recurrence to speak of. Away from 0 the norms expand less, but nothing keeps
  what they see away from 0.

So two things change here: the GroupNorms of the map have eps = 1 and no scale of their own, and
the gates are bounded (tanh), averaged, and multiply a state that is clipped. Then the third
guarantee holds with weights of usual size; `ContractiveFusion` has the proof.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deq_fusion.examples.studies.candidates.depth import (
    SHALLOW,
    UNROLLED,
    Candidate,
    Recorded,
    settled,
    shaped,
)
from deq_fusion.fusions.equilibrium import SolveRecord
from deq_fusion.fusions.equilibrium.checks import check_range
from deq_fusion.fusions.equilibrium.fusion_map.building import norm_groups

CONTRACTION = 0.9
CLIP = 2.0  # of the state that the gates multiply; its entries spread by about a half
SQUARINGS = 6  # of the bound on a norm: at d = 512 it is at most 2.5 % above it
LARGEST_CONTRACTION = 0.99  # what is left to 1 is more than rounding takes


class ContractiveFusion(Recorded, Candidate):
    """Fuses modality features into the one equilibrium of a map that contracts by construction.

        z_i = n(ReLU(B_i h + b_i + x_i)),  h = ReLU(n(A_i z_i + a_i))
        z = n(ReLU(V s + v + x_fuse)),  s = clip(z) mean_i tanh(W (z + z_i) + w)

    n is GroupNorm with eps = 1 and without scale and shift, clip to [-c, c]; x_i and x_fuse are
    as `DEQFusion` injects them. The result is a learnt scale and shift of z, outside the map. The
    matrices are those of the parameters A', B', V' divided so that, for the bound r < 1,

        |A_i| <= 1,    |B_i| <= r,    |V| (1 + c |W|) <= r        (spectral norms),

    which leaves W, all biases and all of what is injected free.

    One fixed point, proved: (1) n has Lipschitz constant 1. Within a group of k entries, with P
    taking the mean off, u = P y and t = sqrt(|u|^2 / k + 1) >= 1, n(y) = u / t has the
    Jacobian P / t - u u^T / (k t^3), which is symmetric with the eigenvalues 0, 1 / t, and
    1 / t - |u|^2 / (k t^3) = 1 / t^3, all in [0, 1]. (2) ReLU and clip have the constant 1. So
    each f_i has at most |B_i| |A_i| <= r. (3) |mean tanh| <= 1 and |clip(z)| <= c entry by entry,
    and tanh has the slope 1 at most, so that

        |s(z) - s(z')| <= |clip(z) - clip(z')| + c |W (z - z')| <= (1 + c |W|) |z - z'|

    and f_fuse has at most |V| (1 + c |W|) <= r. (4) By Banach's theorem each z_i is unique, and so
    is z with these z_i; a fixed point of the whole map is one of every f_i, and of f_fuse with
    them. The mask of absent modalities multiplies by 0 or 1, and leaves all constants. In
    exact arithmetic: the norms are bounded from above, not estimated (`norm_bound`), and
    1 - r is kept above what rounding adds.

    The same bounds give the cost: plain iteration k has a relative error of r^k at most, and the
    adjoint solve, with the transposed Jacobians, the same.

    Args:
        input_dims: width of each modality's features.
        dim: width d of the states and of the fused feature.
        contraction: the bound r, above 0 and at most 0.99.
        options: of `DEQFusion`, for the injection and the solves; those of its cells, dropout
            and the penalty do nothing.
    """

    def __init__(
        self,
        input_dims: Sequence[int],
        dim: int,
        *,
        contraction: float = CONTRACTION,
        **options: Any,
    ) -> None:
        super().__init__(input_dims, dim, **options)
        check_range("contraction", contraction, 0, LARGEST_CONTRACTION, above=True)
        self.contraction, n = contraction, len(self.input_dims)
        self.deq.unimodal = self.deq.fuse = None  # the injection is all that is taken of it
        self.groups = norm_groups(self.deq.groups, self.dim)
        self.first = nn.Parameter(torch.randn(n, dim, dim) / math.sqrt(dim))
        self.second = nn.Parameter(torch.randn(n, dim, dim) / math.sqrt(dim))
        self.first_bias = nn.Parameter(torch.zeros(n, 1, dim))
        self.second_bias = nn.Parameter(torch.zeros(n, 1, dim))
        self.gate = nn.Parameter(torch.randn(dim, dim) / math.sqrt(dim))
        self.gate_bias = nn.Parameter(torch.zeros(dim))
        self.update = nn.Parameter(torch.randn(dim, dim) / math.sqrt(dim))
        self.update_bias = nn.Parameter(torch.zeros(dim))
        self.scale = nn.Parameter(torch.ones(dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to the fused one, (..., dim).

        Args:
            features: see `DEQFusion.forward`.
            present: (..., N) bool, the modalities that a sample has; others take no part.
        """
        constants = self.deq.pose(features, present).constants
        x, x_fuse, mask = constants.x, constants.x_fuse, constants.mask
        of_states, of_fused = self.bounded()
        record = SolveRecord(features[0].shape[:-1])
        options: dict[str, Any] = {"depth": self.depth, "deq": self.deq, "record": record}
        states = settled(
            partial(self._unimodal_rows, x.shape),
            x.flatten(0, 1),
            (x, mask, *of_states),
            names=[f"z_{i + 1}" for i in range(len(x))],
            **options,
        ).view_as(x)
        fuse = partial(_fuse, self.groups)
        inputs = states, mask, x_fuse, *of_fused
        fused = settled(fuse, x_fuse, inputs, names=["z_fuse"], **options)
        self._record = record if record.forward else None
        return shaped(torch.addcmul(self.shift, self.scale, fused), features)

    def bounded(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Returns A, a, B, b and W, w, V, v, of which the products are bounded as above."""
        first = self.first / norm_bound(self.first).clamp_min(1)
        second = self.second * (self.contraction / norm_bound(self.second).clamp_min(1))
        update = self.update * (self.contraction / norm_bound(self.update).clamp_min(1))
        update = update / (1 + CLIP * norm_bound(self.gate))
        of_states = first, self.first_bias, second, self.second_bias
        return of_states, (self.gate, self.gate_bias, update, self.update_bias)

    def whole_map(self, features: Sequence[Tensor], present: Tensor | None = None) -> Any:
        """Returns the map of all states, (B, N + 1, dim) with z last, and zero, without graph.

        Args:
            features: those of `forward`.
            present: likewise.
        """
        with torch.no_grad():
            constants = self.deq.pose(features, present).constants
            of_states, of_fused = self.bounded()
        x, x_fuse, mask = constants.x, constants.x_fuse, constants.mask

        def whole(state: Tensor) -> Tensor:
            states = _unimodal(self.groups, state[:, :-1].transpose(0, 1), x, mask, *of_states)
            z = _fuse(self.groups, state[:, -1], states, mask, x_fuse, *of_fused)
            return torch.cat([states, z.unsqueeze(0)]).transpose(0, 1)

        return whole, x.new_zeros(x.shape[1], len(x) + 1, self.dim)

    def of_states(self, states: Tensor) -> Tensor:
        """Returns what the fusion returns of states (..., N + 1, dim), (..., dim)."""
        return torch.addcmul(self.shift, self.scale, states[..., -1, :])

    def _unimodal_rows(self, shape: Sequence[int], z: Tensor, *inputs: Any) -> Tensor:
        return _unimodal(self.groups, z.view(shape), *inputs).flatten(0, 1)


def _unimodal(groups: int, z: Tensor, x: Tensor, mask: Tensor | None, *tensors: Tensor) -> Tensor:
    """All f_i, a map of (N, B, d)."""
    first, a, second, b = tensors
    h = soft_norm(torch.baddbmm(a, z, first.mT), groups).relu()
    image = soft_norm((torch.baddbmm(b, h, second.mT) + x).relu(), groups)
    return image if mask is None else image * mask


def _fuse(groups: int, z: Tensor, states: Tensor, mask: Tensor | None, *tensors: Tensor) -> Tensor:
    """f_fuse, a map of (B, d)."""
    x_fuse, gate, w, update, v = tensors
    gates = F.linear(z + states, gate, w).tanh()
    if mask is None:
        mean = gates.mean(0)
    else:
        mean = (mask * gates).sum(0) / mask.sum(0).clamp_min(1)
    u = F.linear(z.clamp(-CLIP, CLIP) * mean, update, v) + x_fuse
    return soft_norm(u.relu(), groups)


def soft_norm(x: Tensor, groups: int) -> Tensor:
    """GroupNorm with eps = 1 of the last dimension, whose Lipschitz constant is 1."""
    return F.group_norm(x.flatten(0, -2), groups, eps=1.0).view_as(x)


def norm_bound(weight: Tensor) -> Tensor:
    """Returns an upper bound of the spectral norm of matrices (..., m, n), (..., 1, 1).

    With G = W^T W it is |G^(2^k)|_F^(1 / 2^(k + 1)), which is at least |W| and at most
    n^(1 / 2^(k + 2)) times it (Gram iteration: Delattre et al., 2023), and a little is added for
    rounding. Differentiable.
    """
    limits = torch.finfo(weight.dtype)
    unit = weight / _size(weight)
    gram, power = unit.mT @ unit, 2.0
    # |W|^power = exp(total) |gram| all along: factors are taken out, or entries would leave the
    # range of the dtype. They cancel, so that they may be constants of the gradient
    total = 2 * _size(weight).log()
    for _ in range(SQUARINGS):
        size = _size(gram)
        gram = gram / size
        gram, total, power = gram @ gram, 2 * (total + size.log()), 2 * power
    last = gram.flatten(-2).norm(dim=-1).clamp_min(limits.tiny)[..., None, None]
    return ((total + last.log()) / power).exp() * (1 + 128 * limits.eps)


def _size(weight: Tensor) -> Tensor:
    """Returns the Frobenius norm of matrices, (..., 1, 1), above zero, as a constant."""
    size = weight.detach().flatten(-2).norm(dim=-1)[..., None, None]
    return size.clamp_min(torch.finfo(weight.dtype).tiny)


class ContractiveFusionUnrolled(ContractiveFusion):
    """Its control with the map unrolled."""

    depth = UNROLLED


class ContractiveFusionShallow(ContractiveFusion):
    """Its control without recurrence."""

    depth = SHALLOW
