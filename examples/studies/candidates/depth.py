"""A recurrence at three depths: solved for its fixed point, unrolled, or not there at all.

The second and the third are the matched controls of the first: they have its parameters, all of
which take part, and its map. `shallow` evaluates the map once, at what is injected in place of the
state, so that nothing is fed back.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.equilibrium import AutogradMap, SolveRecord
from deq_fusion.fusions.equilibrium.fusion_map.system import TriangularSystem

SOLVED, UNROLLED, SHALLOW = "solved", "unrolled", "shallow"
STEPS = 4  # of a recurrence that is unrolled


class Recorded(nn.Module):
    """A module that keeps the record of its last solves, `_record`, for as long as it is in use."""

    _record: SolveRecord | None = None

    @property
    def info(self) -> SolveRecord | None:
        """The record of the last forward's solves; None where nothing was solved."""
        return self._record

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_record": None}


class Candidate(nn.Module):
    """A fusion around the map of DEQ fusion, `self.deq`, whose options it takes.

    Args:
        input_dims: width of each modality's features.
        dim: width of the states.
        options: of `DEQFusion`; what does not converge is ignored where they do not say otherwise.
    """

    depth = SOLVED

    def __init__(self, input_dims: Sequence[int], dim: int, **options: Any) -> None:
        super().__init__()
        unrolled = {"unroll": STEPS} if self.depth == UNROLLED else {}
        self.deq = DEQFusion(input_dims, dim, **{"on_failure": "ignore", **unrolled, **options})
        self.input_dims, self.dim = self.deq.input_dims, self.deq.dim

    def equilibrium(self, features: Sequence[Tensor], present: Tensor | None) -> Tensor:
        """Returns DEQ fusion's z, (..., dim), or what is in its place at another depth."""
        if self.depth != SHALLOW:
            return self.deq(features, present=present)
        system = self.deq.pose(features, present)
        return shaped(once(system)[1], features)

    def projected(self, features: Sequence[Tensor], present: Tensor | None) -> list[Tensor]:
        """Returns the y_i = P_i x_i of DEQ fusion, (..., dim) each, zero of absent modalities."""
        if present is not None:
            here = present.unsqueeze(-1).unbind(-2)
            features = [torch.where(p, x, 0) for p, x in zip(here, features, strict=True)]
        return [project(x) for project, x in zip(self.deq.projections, features, strict=True)]


def once(system: TriangularSystem) -> tuple[Tensor, Tensor]:
    """Returns the z_i, (N, B, d), and z, (B, d), of the map evaluated at what it is injected."""
    x, x_fuse = system.constants.x, system.constants.x_fuse
    (whole,) = system.maps(x, x_fuse, joint=True)
    state = torch.cat([x, x_fuse.unsqueeze(0)]).transpose(0, 1)
    image = whole.f(state, *whole.inputs)
    return image[:, :-1].transpose(0, 1), image[:, -1]


def unimodal_states(
    deq: DEQFusion, system: TriangularSystem, depth: str, record: SolveRecord
) -> Tensor:
    """Returns the z_i of DEQ fusion's own cells at a depth, (N, B, d)."""
    alone = replace(system, fuse=None)
    if depth == SHALLOW:
        return once(system)[0]
    if depth == UNROLLED:
        return alone.unroll(STEPS, lambda states: states)[0]
    return alone.solve_blocks(deq.equilibrium, record, None)[0]


def settled(
    f: Callable[..., Tensor],
    at: Tensor,  # shape: (rows, d)
    inputs: Sequence[Tensor | None],
    *,
    depth: str,
    deq: DEQFusion,
    record: SolveRecord,
    names: Sequence[str],
) -> Tensor:
    """Returns z = f(z, *inputs), or what is in its place at another depth.

    Args:
        f: the map of (rows, d); the first of the inputs has its dtype and device.
        at: what stands for the state where there is no recurrence.
        inputs: every tensor that f depends on.
        depth: `SOLVED`, `UNROLLED` or `SHALLOW`.
        deq: whose settings of a solve are taken.
        record: gets the solve's statistics.
        names: of the states in it, as many as rows are of a sample.
    """
    if depth == SHALLOW:
        return f(at, *inputs)
    if depth == UNROLLED:
        z = torch.zeros_like(at)
        for _ in range(STEPS):
            z = f(z, *inputs)
        return z
    make = partial(_from_image_of_zero, f, at.shape)
    return deq.equilibrium.solve(make, inputs, record=record, names=names)


def _from_image_of_zero(f: Callable[..., Tensor], shape: Sequence[int], *inputs: Any) -> Any:
    with torch.no_grad():
        start = f(inputs[0].new_zeros(shape), *inputs)
    return AutogradMap(f, start, inputs)


def shaped(fused: Tensor, features: Sequence[Tensor]) -> Tensor:
    """Returns (B, d) with the leading dimensions of the features."""
    return fused.view(*features[0].shape[:-1], fused.shape[-1])
