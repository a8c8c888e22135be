"""DEQ fusion whose gate multiplies each modality, and sees the sum of the others."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deq_fusion.examples.studies.candidates.depth import (
    SHALLOW,
    UNROLLED,
    Candidate,
    Recorded,
    settled,
    shaped,
    unimodal_states,
)
from deq_fusion.fusions.equilibrium import SolveRecord

STRENGTH = 0.5  # of V s at the start, as a fraction of what is injected


class GatedByOthers(Recorded, Candidate):
    """DEQ fusion with products of modalities in every step, in place of a gate on its own state.

        z = GN(ReLU(V s + v + x_fuse)),  s = sum_i (1 + W (sum_{k != i} z_k + z) + w) z_i

    where (10) of Ni et al. (2023) has s = sum_i (W (z + z_i) + w) z: z_i meets the sum of the
    others, and the sum of the z_i is added, so that s is there at z = 0 too. With T = sum_i z_i,

        s = C + T (W z),    C = sum_i (1 + W (T - z_i) + w) z_i,

    which is affine in z, and C is constant during a solve: a step costs the same for any number
    of modalities. z_i, x_fuse and all parameters are those of DEQ fusion. V is multiplied by a
    constant, so that for states of unit spread V s is half as large at the start as what is
    injected.

    Args:
        input_dims: width of each modality's features.
        dim: width of the fused feature.
        options: of `DEQFusion`; `joint`, dropout and the Jacobian penalty are left out.
    """

    def __init__(self, input_dims: Sequence[int], dim: int, **options: Any) -> None:
        super().__init__(input_dims, dim, **options)
        n = len(self.input_dims)
        # sum_i z_i has the spread sqrt(n), and W of a sum of n states sqrt(n / 2)
        self.scale = STRENGTH / math.sqrt(n * (1 + n / 2))

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to the fused one, (..., dim).

        Args:
            features: see `DEQFusion.forward`.
            present: (..., N) bool, the modalities that a sample has; others take no part.
        """
        system = self.deq.pose(features, present)
        record = SolveRecord(features[0].shape[:-1])
        states = unimodal_states(self.deq, system, self.depth, record)
        gate, bias, weight, *rest = self.deq.fuse.inputs()
        total = states.sum(0)
        constant = (states * (1 + F.linear(total - states, gate, bias))).sum(0)
        x_fuse = system.constants.x_fuse
        fused = settled(
            partial(_step, self.scale, self.deq.fuse.groups),
            x_fuse,
            (constant, total, x_fuse, gate, weight, *rest),
            depth=self.depth,
            deq=self.deq,
            record=record,
            names=["z_fuse"],
        )
        self._record = record if record.forward else None
        return shaped(fused.to(self.deq.weights.dtype), features)


def _step(scale: float, groups: int, z: Tensor, *inputs: Tensor) -> Tensor:
    """The map of z, (B, d); its inputs are C, T, x_fuse, W, V, v and the norm's."""
    constant, total, x_fuse, gate, weight, bias, norm_weight, norm_bias = inputs
    s = constant + total * F.linear(z, gate)
    u = torch.relu(F.linear(s, scale * weight, bias) + x_fuse)
    return F.group_norm(u, groups, norm_weight, norm_bias)


class GatedByOthersUnrolled(GatedByOthers):
    """Its control with the map unrolled."""

    depth = UNROLLED


class GatedByOthersShallow(GatedByOthers):
    """Its control without recurrence."""

    depth = SHALLOW
