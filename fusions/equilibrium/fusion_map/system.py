"""A block-triangular system of cells: N residual cells, and a gated cell that sees them all.

    z_i = r_i(z_i; x_i),    z = g(z; z_1, ..., z_N, x)

No r_i sees z or another z_k. So the z_i can be solved first, as one batch of N * B samples,
and z then with the z_i given (`solve_blocks`); `solve_joint` solves all of them together, and
`unroll` takes steps without solving. Either block may be missing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..jacobian import jacobian_penalty, map_penalty
from ..maps import AutogradMap
from ..record import SolveRecord
from ..settings import Equilibrium
from .gated import GatedCell
from .observed import SystemStep as SystemStep
from .observed import observer
from .residual import ResidualCells


class CellMap(NamedTuple):
    """A map at a state, both as one batch of rows: `f(state, *inputs)`."""

    block: str  # "unimodal", "fuse" or "joint"
    f: Callable[..., Tensor]
    state: Tensor  # (N * B, d), (B, d) or (B, N + 1, d) with z last
    inputs: tuple[Tensor | None, ...]

    def __call__(self, state: Tensor) -> Tensor:
        return self.f(state, *self.inputs)


class Constants(NamedTuple):
    """The tensors that stay constant during the solves of one forward."""

    x: Tensor  # (N, B, d) injected into the residual cells; zero where masked
    mask: Tensor | None  # (N, B, 1) of 0 and 1: which z_i there are
    x_fuse: Tensor  # (B, d) injected into the gated cell
    gate_masks: Tensor | None  # (N, B, d) factors of the gates
    m: Tensor  # (B or 1, d or 1) sum over i of mask times gate_masks
    dropped: Tensor | None  # (B, d) factor of the gated cell's update


@dataclass(frozen=True)
class TriangularSystem:
    """The cells and the constants of one forward.

    Without `unimodal`, z_i = x_i; without `fuse` there is no z.
    """

    unimodal: ResidualCells | None
    fuse: GatedCell | None
    constants: Constants

    def solve_blocks(
        self,
        equilibrium: Equilibrium,
        record: SolveRecord,
        observe: Callable[[SystemStep], None] | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the z_i, (N, B, d), and z, (B, d), solved one block after the other."""
        states, mask = self.constants.x, self.constants.mask
        if self.unimodal is not None:
            states = equilibrium.solve(
                self.unimodal.map,
                self._unimodal_inputs(),
                record=record,
                names=[f"z_{i + 1}" for i in range(len(states))],
                ignored=None if mask is None else mask.squeeze(2) == 0,
                observe=observer(observe, "unimodal", states.shape),
            )
        if self.fuse is None:
            return states, None
        shape, sees = self.constants.x_fuse.shape, partial(_given_states, states)
        fused = equilibrium.solve(
            self.fuse.map,
            self._fuse_inputs(states),
            record=record,
            names=["z_fuse"],
            observe=observer(observe, "fuse", shape, self.fuse, sees),
        )
        return states, fused

    def injected(self, x: Tensor, x_fuse: Tensor) -> "TriangularSystem":
        """Returns the same system with other injections."""
        return replace(self, constants=self.constants._replace(x=x, x_fuse=x_fuse))

    def given(self, states: Tensor) -> "TriangularSystem":
        """Returns the system of z alone, with these z_i, (N, B, d)."""
        return replace(self, unimodal=None, constants=self.constants._replace(x=states))

    def solve_joint(
        self,
        equilibrium: Equilibrium,
        record: SolveRecord,
        observe: Callable[[SystemStep], None] | None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the same, solved as one state; both blocks must be there."""
        assert self.unimodal is not None and self.fuse is not None
        n, batch, dim = self.constants.x.shape
        f = partial(_joint_map, self.unimodal, self.fuse)
        state = equilibrium.solve(
            partial(_from_image_of_zero, f, (batch, n + 1, dim)),
            self._joint_inputs(),
            record=record,
            names=["joint"],
            observe=observer(observe, "joint", (batch, n + 1, dim), self.fuse, self._gated),
        ).view(batch, n + 1, dim)
        return state[:, :-1].transpose(0, 1), state[:, -1]

    def unroll(
        self, steps: int, inject: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Returns both after `steps` steps from zero, differentiable through the steps.

        Args:
            steps: steps of every cell; the gated one sees the new z_i.
            inject: z_i -> what the gated cell is injected.
        """
        states, fused = self.constants.x, None
        tensors: Sequence[Any]
        if self.unimodal is not None:
            states, inputs = torch.zeros_like(states), self._unimodal_inputs()
        if self.fuse is not None:
            fused, tensors = torch.zeros_like(self.constants.x_fuse), self.fuse.inputs()
        for _ in range(steps):
            if self.unimodal is not None:
                states, _ = self.unimodal.map(*inputs).step(states)
            if self.fuse is not None:
                assert fused is not None
                total, lifted, m, dropped, _, *tensors = self._fuse_inputs(states, tensors)
                x = inject(states)
                fused, _ = self.fuse.map(total, lifted, m, dropped, x, *tensors).step(fused)
        return states, fused

    def maps(self, states: Tensor, fused: Tensor | None, *, joint: bool = False) -> list[CellMap]:
        """Returns the map of each block, or with `joint` of all states, at z_i and z.

        The Jacobian of the whole is block-triangular: the spectra of the blocks make up its own.
        """
        states = states.detach()  # constant, also where the gated cell sees them
        if joint and self.unimodal is not None and self.fuse is not None:
            assert fused is not None
            state = torch.cat([states, fused.unsqueeze(0)]).transpose(0, 1)
            f = partial(_joint_map, self.unimodal, self.fuse)
            return [CellMap("joint", f, state, self._joint_inputs())]
        maps = []
        if self.unimodal is not None:
            f = partial(_unimodal_map, self.unimodal)
            maps.append(CellMap("unimodal", f, states.flatten(0, 1), self._unimodal_inputs()))
        if self.fuse is not None:
            f = partial(_fuse_map, self.fuse)
            assert fused is not None
            maps.append(CellMap("fuse", f, fused, self._fuse_inputs(states)))
        return maps

    def penalty(self, states: Tensor, fused: Tensor | None, *, joint: bool, probes: int) -> Tensor:
        """Returns the sum of squares of the Jacobian's entries, per entry of state present.

        With `joint` that of the whole Jacobian; without, that of the blocks on its diagonal (see
        `jacobian_penalty`).
        """
        states = states.detach()  # constant, also where the gated cell sees them
        if joint and self.unimodal is not None and self.fuse is not None:
            (whole,) = self.maps(states, fused, joint=True)
            mean = jacobian_penalty(whole.f, whole.state, whole.inputs, probes=probes)
            return mean * whole.state.numel() / self._entries(whole.state)
        blocks: list[tuple[Any, ...]] = []
        if self.unimodal is not None:
            blocks.append((self.unimodal.map, states, self._unimodal_inputs()))
        if self.fuse is not None:
            blocks.append((self.fuse.map, fused, self._fuse_inputs(states)))
        squares: list[Any] = [
            map_penalty(*block, probes=probes) * block[1].numel() for block in blocks
        ]
        return sum(squares) / self._entries(*(state for _, state, _ in blocks))

    def _entries(self, *states: Tensor) -> Tensor | int:
        """Returns how many entries these states have, without those of absent modalities."""
        entries: Tensor | int = sum(state.numel() for state in states)
        mask = self.constants.mask
        if self.unimodal is not None and mask is not None:
            entries = entries - (mask.numel() - mask.sum()) * states[0].shape[-1]
        return entries if states[0].numel() else 1

    def _gated(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Returns z, (B, d), and the new z_i, (N, B, d), that the gate sees in a joint step."""
        assert self.unimodal is not None
        states = state[:, :-1].transpose(0, 1)
        return state[:, -1], self.unimodal.map(*self._unimodal_inputs()).step(states)[0]

    def _unimodal_inputs(self) -> tuple[Any, ...]:
        assert self.unimodal is not None
        return (self.constants.x, self.constants.mask, *self.unimodal.inputs())

    def _fuse_inputs(
        self, states: Tensor, tensors: Sequence[Tensor | None] | None = None
    ) -> tuple[Any, ...]:
        assert self.fuse is not None
        tensors = self.fuse.inputs() if tensors is None else tensors
        _, _, x_fuse, gate_masks, m, dropped = self.constants
        context = self.fuse.context(states, gate_masks, tensors[0])
        return (*context, m, dropped, x_fuse, *tensors)

    def _joint_inputs(self) -> tuple[Any, ...]:
        assert self.unimodal is not None and self.fuse is not None
        return (*self.constants, *self.unimodal.inputs(), *self.fuse.inputs())


def _given_states(states: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    return z, states


def pose(
    unimodal: ResidualCells | None,
    fuse: GatedCell | None,
    x: Tensor,
    x_fuse: Tensor,
    *,
    mask: Tensor | None,
    dropout: float,
) -> TriangularSystem:
    """Returns the system of these cells; draws the masks of dropout, one for all of a solve."""
    gate_masks = dropped = None
    if dropout and fuse is not None:
        if fuse.gate:
            gate_masks = F.dropout(torch.ones_like(x), dropout)
        dropped = F.dropout(torch.ones_like(x[0]), dropout)
    factors: list[Any] = [factor for factor in (mask, gate_masks) if factor is not None]
    m = math.prod(factors).sum(0) if factors else x.new_full((1, 1), len(x))
    return TriangularSystem(unimodal, fuse, Constants(x, mask, x_fuse, gate_masks, m, dropped))


# The maps below are handed to the graph, so they hold cells and no tensors of a forward.


def _from_image_of_zero(
    f: Callable[..., Tensor], shape: Sequence[int], *inputs: Any
) -> AutogradMap:
    """Returns f(z, *inputs) as a map; the first of the inputs has its dtype and device."""
    with torch.no_grad():
        start = f(inputs[0].new_zeros(shape), *inputs)
    return AutogradMap(f, start, inputs)


def _unimodal_map(
    cells: ResidualCells, z: Tensor, x: Tensor, mask: Tensor | None, *tensors: Tensor
) -> Tensor:
    """All r_i, as a map of (N * B, d)."""
    return cells.map(x, mask, *tensors).step(z.view_as(x))[0].view_as(z)


def _fuse_map(cell: GatedCell, z: Tensor, *inputs: Any) -> Tensor:
    """g, as a map of (B, d)."""
    return cell.map(*inputs).step(z)[0]


def _joint_map(cells: ResidualCells, gated: GatedCell, z: Tensor, *inputs: Any) -> Tensor:
    """All r_i and, with their results, g, as a map of (B, N + 1, d)."""
    count = len(Constants._fields)
    x, mask, x_fuse, gate_masks, m, dropped = inputs[:count]
    split = count + len(cells.inputs())
    states = cells.map(x, mask, *inputs[count:split]).step(z[:, :-1].transpose(0, 1).contiguous())
    context = gated.context(states[0], gate_masks, inputs[split])
    fused = gated.map(*context, m, dropped, x_fuse, *inputs[split:]).step(z[:, -1])
    return torch.cat([states[0], fused[0].unsqueeze(0)]).transpose(0, 1)
