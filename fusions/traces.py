"""Traces of DEQ fusion's solves: what happens step by step, sample by sample."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .deq import DEQFusion
from .equilibrium import Equilibrium
from .equilibrium.checks import check_count
from .equilibrium.fusion_map.system import SystemStep, TriangularSystem
from .equilibrium.maps import relative_residual
from .equilibrium.record import SolveRecord


@dataclass(frozen=True)
class Trace:
    """One solve, step by step and sample by sample.

    Step k = 1, 2, ... is about the iterate that the solver made of k evaluations of the map, from
    zero. A trace ends with the last iterate of its slowest sample; of samples whose solve ended
    sooner the rest is NaN.

    Attributes:
        difference: |z(k+1) - z(k)| / |z(k)|, Euclidean norms over the d entries of a state
            (Ni et al., 2023, section 3.2); NaN at a sample's last iterate, which has no
            successor. (steps, batch), of the fused state; (steps, N, batch) of a solve of the
            z_i.
        residual: |F(s) - s| / |F(s)| of the joint state s = (z_1, ..., z_N, z), (steps, batch),
            whichever states the solver moves (z alone, without f_theta); (steps, N, batch), of
            each z_i on its own, of a solve of the z_i.
        gates: mean over the d entries of |alpha_i| (equation 9) in the evaluation that led to the
            iterate, (steps, batch, N), zero of an absent modality; None where no gate takes part,
            or no step. The first is of z = 0.
    """

    difference: Tensor
    residual: Tensor
    gates: Tensor | None


def trace(
    fusion: DEQFusion,
    features: Sequence[Tensor],
    *,
    present: Tensor | None = None,
    joint: bool | None = None,
    solver: str | Callable | None = None,
    tol: float = 0.0,
    steps: int = 100,
) -> dict[str, Trace]:
    """Solves for the equilibrium of these features, and returns a trace of the solve.

    A fusion that was trained unrolled (weight-tied) has the same map: `joint=True,
    solver="picard"` iterates it as its training did.

    Args:
        fusion: any DEQ fusion.
        features: as its `forward` takes them, (batch, d_i) each.
        present: likewise, (batch, N) bool.
        joint: whether all states are solved together; None: as the fusion does.
        solver: None: the fusion's. A solve by blocks takes its first six steps as plain
            iteration, and hands them to "anderson" then; a joint one has the method at once.
        tol: bound on the relative residual that ends a sample's solve. That of zero is
            1, so that a larger bound gives an empty trace. 0: an exact fixed point alone ends
            it, such as the first z without a gate.
        steps: the most steps.

    Returns:
        Block of states -> trace: "joint", or "unimodal" (the z_i) and then "fuse" (z, with the
        z_i where their solve ended); only the blocks that the fusion has.

    Raises:
        ValueError: for settings or features that make no sense.
        FloatingPointError: if an iterate is not finite.
    """
    check_count("steps", steps)
    # a solve starts at the image of zero, and the last iterate's change takes its successor
    settings: dict[str, Any] = {"tol": tol, "max_steps": steps + 1, "on_failure": "ignore"}
    settings |= {} if solver is None else {"solver": solver}
    equilibrium = replace(fusion.equilibrium, **settings)
    with posed(fusion, features, present) as system:
        whole = system.unimodal is not None and system.fuse is not None
        if whole and (fusion.joint if joint is None else joint):
            return {"joint": _followed(system, equilibrium, steps, joint=True)[1]}
        traces, states = {}, system.constants.x
        if system.unimodal is not None:
            alone = replace(system, fuse=None)
            states, traces["unimodal"] = _followed(alone, equilibrium, steps)
        if system.fuse is not None:
            # z alone is solved for, but judged with the maps of all
            _, traces["fuse"] = _followed(system.given(states), equilibrium, steps, whole=system)
    return traces


@contextmanager
def posed(
    fusion: DEQFusion, features: Sequence[Tensor], present: Tensor | None
) -> Iterator[TriangularSystem]:
    """Yields the system that a fusion solves for these features in evaluation, without graph."""
    if fusion.unroll is not None and fusion.equations.unroll_injection == "states":
        raise ValueError(
            "the map must be that of an equilibrium, and unroll_injection='states' has none: "
            "what its f_fuse is injected changes with every step"
        )
    training = [module for module in fusion.modules() if module.training]
    fusion.eval()
    try:
        with torch.no_grad():
            yield fusion.pose(features, present)
    finally:
        for module in training:
            module.training = True


class _Seen:
    """An observer of a solve that keeps of every evaluation what `Trace` holds."""

    z: Tensor  # the state before, its gates, and which samples had not converged then
    gates_before: Tensor | None
    going: Tensor

    def __init__(self, whole: TriangularSystem, states: Tensor, tol: float) -> None:
        self.whole, self.states, self.tol = whole, states, tol
        self.difference: list[Tensor] = []
        self.residual: list[Tensor] = []
        self.gates: list[Tensor] = []

    def __call__(self, seen: SystemStep) -> None:
        z = seen.state[:, -1] if seen.block == "joint" else seen.state
        if seen.step == 1:  # the image of zero, whose own residual is 1, or 0 of a fixed point
            moved = seen.state.flatten(1) if seen.block == "joint" else z
            self.going = moved.any(-1).to(z.dtype) > self.tol
            gates = self._gates_of_zero(seen, z)
        else:
            change = (z - self.z).norm(dim=-1) / self.z.norm(dim=-1)
            self.difference.append(self._of_those_going(change))
            gates = self.gates_before
        if bool(self.going.any()):
            residual = seen.residual
            if seen.block == "fuse":
                residual = _joint_residual(self.whole, self.states, z)
            self.residual.append(self._of_those_going(residual))
            if gates is not None:
                self.gates.append(self._mean_gates(gates))
        self.going &= seen.residual > self.tol
        self.z, self.gates_before = z, seen.gates

    def _gates_of_zero(self, seen: SystemStep, z: Tensor) -> Tensor | None:
        """Returns G(0 + z_i), (B, N, d), which the evaluation before the first had."""
        if seen.gates is None:
            return None
        assert self.whole.fuse is not None
        joint = seen.block == "joint"  # the image of zero holds the z_i that are new
        states = seen.state[:, :-1].transpose(0, 1) if joint else self.states
        return self.whole.fuse.gates(torch.zeros_like(z), states)

    def _of_those_going(self, values: Tensor) -> Tensor:
        return torch.where(self.going, values, torch.nan)

    def _mean_gates(self, gates: Tensor) -> Tensor:
        mean = gates.abs().mean(-1)  # (batch, N)
        if self.whole.constants.mask is not None:
            mean = mean * self.whole.constants.mask.squeeze(2).T
        return torch.where(self.going.unsqueeze(1), mean, torch.nan)

    def trace(self, steps: int) -> Trace:
        """Returns what was seen of the first `steps` iterates."""
        if not self.residual:  # zero was the fixed point
            none = self.z.new_empty(0, *self.going.shape)
            return Trace(none, none, None)
        residual = torch.stack(self.residual)
        last = torch.full_like(residual[0], torch.nan)
        difference = torch.stack([*self.difference, last])
        gates = torch.stack(self.gates)[:steps] if self.gates else None
        return Trace(difference[:steps], residual[:steps], gates)


def _followed(
    system: TriangularSystem,
    equilibrium: Equilibrium,
    steps: int,
    *,
    joint: bool = False,
    whole: TriangularSystem | None = None,
) -> tuple[Tensor, Trace]:
    """Returns the z_i where the solve of a system ended, and its trace.

    Args:
        joint: whether to solve all states together.
        whole: the system that it is part of.
    """
    seen = _Seen(whole or system, system.constants.x, equilibrium.tol)
    solve = system.solve_joint if joint else system.solve_blocks
    states, _ = solve(equilibrium, SolveRecord([system.constants.x.shape[1]]), seen)
    return states, seen.trace(steps)


def _joint_residual(system: TriangularSystem, states: Tensor, z: Tensor) -> Tensor:
    whole = system.maps(states, z, joint=True)[-1]
    return relative_residual(whole.state.flatten(1), whole(whole.state).flatten(1))
