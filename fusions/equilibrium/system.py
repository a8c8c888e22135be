"""A block-triangular system of cells: N residual cells, and a gated cell that sees them all.

    z_i = r_i(z_i; x_i),    z = g(z; z_1, ..., z_N, x)

No r_i sees z or another z_k. So the z_i can be solved first, as one batch of N * B samples,
and z then with the z_i given (`solve_blocks`); `solve_joint` solves all of them together, and
`unroll` takes steps without solving. Either block may be missing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .cells import GatedCell, ResidualCells
from .equilibrium import Equilibrium
from .jacobian import jacobian_penalty
from .observed import SystemStep as SystemStep
from .observed import observer
from .record import SolveRecord


class CellMap(NamedTuple):
    """A map at a state, both as one batch of rows: `f(state, *inputs)`."""

    block: str  # "unimodal", "fuse" or "joint"
    f: Callable[..., Tensor]
    state: Tensor  # (N * B, d), (B, d) or (B, N + 1, d) with z last
    inputs: tuple[Tensor | None, ...]

    def __call__(self, state: Tensor) -> Tensor:
        return self.f(state, *self.inputs)


class Constants(NamedTuple):
    """What is constant during the solves of one forward."""

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
        self, equilibrium: Equilibrium, record: SolveRecord, observe: Callable | None
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the z_i, (N, B, d), and z, (B, d), solved one block after the other."""
        states = self.constants.x
        if self.unimodal is not None:
            states = self._solve_unimodal(equilibrium, record, observe)
        if self.fuse is None:
            return states, None
        return states, self._solve_fuse(states, equilibrium, record, observe)

    def _solve_unimodal(
        self, equilibrium: Equilibrium, record: SolveRecord, observe: Callable | None
    ) -> Tensor:
        x, mask = self.constants.x, self.constants.mask
        rows, row_mask = x.flatten(0, 1), None if mask is None else mask.flatten(0, 1)
        entry = {
            "record": record,
            "names": [f"z_{i + 1}" for i in range(len(x))],
            "ignored": None if mask is None else mask.flatten() == 0,
        }
        if _takes_fast_engine(equilibrium, x, observe):
            sizes = [x.shape[1]] * len(x)
            return equilibrium.solve_cell(self.unimodal, (rows, row_mask), sizes, **entry).view_as(
                x
            )
        return equilibrium.solve(
            partial(_unimodal_map, self.unimodal),
            torch.zeros_like(rows),
            self._unimodal_inputs(),
            **entry,
            observe=observer(observe, "unimodal", x.shape),
        ).view_as(x)

    def _solve_fuse(
        self,
        states: Tensor,
        equilibrium: Equilibrium,
        record: SolveRecord,
        observe: Callable | None,
    ) -> Tensor:
        inputs, entry = self._fuse_inputs(states), {"record": record, "names": ["z_fuse"]}
        if _takes_fast_engine(equilibrium, states, observe):
            total, lifted, m, dropped, x, *_ = inputs
            constants = total, lifted, m.expand(len(x), -1), dropped, x
            return equilibrium.solve_cell(self.fuse, constants, [len(x)], **entry)
        start = torch.zeros_like(self.constants.x_fuse)
        seen = observer(observe, "fuse", start.shape, self.fuse, lambda state: (state, states))
        return equilibrium.solve(self.fuse.step, start, inputs, **entry, observe=seen)

    def given(self, states: Tensor) -> "TriangularSystem":
        """Returns the system of z alone, with these z_i, (N, B, d)."""
        return replace(self, unimodal=None, constants=self.constants._replace(x=states))

    def solve_joint(
        self, equilibrium: Equilibrium, record: SolveRecord, observe: Callable | None
    ) -> tuple[Tensor, Tensor]:
        """Returns the same, solved as one state; both blocks must be there."""
        n, batch, dim = self.constants.x.shape
        start = self.constants.x.new_zeros(batch, n + 1, dim)
        state = equilibrium.solve(
            partial(_joint_map, self.unimodal, self.fuse),
            start,
            self._joint_inputs(),
            record=record,
            names=["joint"],
            observe=observer(observe, "joint", start.shape, self.fuse, self._gated),
        )
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
        if self.unimodal is not None:
            states, inputs = torch.zeros_like(states), self._unimodal_inputs()
        if self.fuse is not None:
            fused, bare = torch.zeros_like(self.constants.x_fuse), self.fuse.bare_tensors()
        for _ in range(steps):
            if self.unimodal is not None:
                states = self.unimodal.step(states, *inputs)
            if self.fuse is not None:
                total, lifted, m, dropped, _, *tensors = self._fuse_inputs(states, bare)
                x = inject(states)
                fused = self.fuse.step(fused, total, lifted, m, dropped, x, *tensors)
        return states, fused

    def maps(self, states: Tensor, fused: Tensor | None, *, joint: bool = False) -> list[CellMap]:
        """Returns the map of each block, or with `joint` of all states, at z_i and z.

        The Jacobian of the whole is block-triangular: the spectra of the blocks make up its own.
        """
        states = states.detach()  # constant, also where the gated cell sees them
        if joint and self.unimodal is not None and self.fuse is not None:
            state = torch.cat([states, fused.unsqueeze(0)]).transpose(0, 1)
            f = partial(_joint_map, self.unimodal, self.fuse)
            return [CellMap("joint", f, state, self._joint_inputs())]
        maps = []
        if self.unimodal is not None:
            f = partial(_unimodal_map, self.unimodal)
            maps.append(CellMap("unimodal", f, states.flatten(0, 1), self._unimodal_inputs()))
        if self.fuse is not None:
            maps.append(CellMap("fuse", self.fuse.step, fused, self._fuse_inputs(states)))
        return maps

    def penalty(self, states: Tensor, fused: Tensor | None, *, joint: bool, probes: int) -> Tensor:
        """Returns the sum of squares of the Jacobian's entries, per entry of state present.

        With `joint` that of the whole Jacobian; without, that of the blocks on its diagonal (see
        `jacobian_penalty`).
        """
        maps = self.maps(states, fused, joint=joint)
        squares = [
            jacobian_penalty(m.f, m.state, m.inputs, probes=probes) * m.state.numel() for m in maps
        ]
        entries = sum(m.state.numel() for m in maps)
        if self.unimodal is not None and self.constants.mask is not None:
            absent = self.constants.mask.numel() - self.constants.mask.sum()
            entries = entries - absent * states.shape[-1]  # as if they were not there
        return sum(squares) / entries

    def _gated(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Returns z, (B, d), and the new z_i, (N, B, d), that the gate sees in a joint step."""
        states = state[:, :-1].transpose(0, 1)
        return state[:, -1], self.unimodal.step(states, *self._unimodal_inputs())

    def _unimodal_inputs(self) -> tuple[Tensor | None, ...]:
        return (self.constants.x, self.constants.mask, *self.unimodal.tensors())

    def _fuse_inputs(
        self, states: Tensor, bare: Sequence[Tensor | None] | None = None
    ) -> tuple[Tensor | None, ...]:
        tensors = self.fuse.tensors(bare)
        _, _, x_fuse, gate_masks, m, dropped = self.constants
        context = self.fuse.context(states, gate_masks, tensors[0])
        return (*context, m, dropped, x_fuse, *tensors)

    def _joint_inputs(self) -> tuple[Tensor | None, ...]:
        return (*self.constants, *self.unimodal.tensors(), *self.fuse.tensors())


def _takes_fast_engine(equilibrium: Equilibrium, x: Tensor, observe: Callable | None) -> bool:
    # who observes wants to see every step of every sample
    wide = x.dtype in (torch.float32, torch.float64)
    return equilibrium.engine == "fast" and observe is None and wide


# The maps below are handed to the graph, so they hold cells and no tensors of a forward.


def _unimodal_map(
    cells: ResidualCells, z: Tensor, x: Tensor, mask: Tensor | None, *tensors: Tensor
) -> Tensor:
    """All r_i, as a map of (N * B, d)."""
    return cells.step(z.view_as(x), x, mask, *tensors).view_as(z)


def _joint_map(cells: ResidualCells, gated: GatedCell, z: Tensor, *inputs: Tensor | None) -> Tensor:
    """All r_i and, with their results, g, as a map of (B, N + 1, d)."""
    count = len(Constants._fields)
    x, mask, x_fuse, gate_masks, m, dropped = inputs[:count]
    split = count + len(cells.tensors())
    states = cells.step(z[:, :-1].transpose(0, 1), x, mask, *inputs[count:split])
    context = gated.context(states, gate_masks, inputs[split])
    fused = gated.step(z[:, -1], *context, m, dropped, x_fuse, *inputs[split:])
    return torch.cat([states, fused.unsqueeze(0)]).transpose(0, 1)
