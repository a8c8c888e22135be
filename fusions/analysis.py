"""Why a DEQ fusion does what it does: traces of solves, gates, spectral radius, fixed points.

    traces = trace(fusion, features, solver="anderson", joint=True)["joint"]
    traces.difference.mean(1)                     (steps,) how fast z settles
    gate_shares(traces.gates)                     (steps, N) which modality the gate lets through
    spectral_radii(fusion, features)["z_fuse"]    (batch,) whether the trained map contracts there
    fixed_points(fusion, features).count          (batch,) how many equilibria were found
    print(uniqueness(fusion, features))           one, or several, and do solvers agree: in words

    with solved_with(fusion, tol=0.1):            how early may one stop?
        evaluate(model, ...)

Nothing here trains: dropout is off, and no gradient is recorded. Pictures are drawn elsewhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .deq import DEQFusion
from .equilibrium.checks import check_count
from .equilibrium.jacobian import spectral_radius
from .equilibrium.record import SolveRecord
from .fixed_points import FixedPoints as FixedPoints
from .fixed_points import ends as ends
from .fixed_points import fixed_points as fixed_points
from .traces import Trace as Trace
from .traces import posed
from .traces import trace as trace
from .uniqueness import Uniqueness as Uniqueness
from .uniqueness import settle as settle
from .uniqueness import uniqueness as uniqueness


def gate_shares(gates: Tensor) -> Tensor:
    """Returns each modality's share of the gates, (steps, N), which sum to 1 over modalities.

    The mean of |alpha_i| over entries and samples, over the sum of the modalities' (Ni et al.,
    2023, Figure 3).

    Args:
        gates: `Trace.gates`, or those of some of its samples, (steps, samples, N).
    """
    mean = gates.nanmean(-2)
    return mean / mean.sum(-1, keepdim=True)


def spectral_radii(
    fusion: DEQFusion,
    features: Sequence[Tensor],
    *,
    present: Tensor | None = None,
    tol: float = 1e-5,
    max_steps: int = 200,
    steps: int = 100,
) -> dict[str, Tensor]:
    """Estimates the spectral radius of the map's Jacobian at the equilibrium of these features.

    Plain iteration settles locally where it is below 1. The joint Jacobian is block-triangular,
    so that its radius is the largest of these.

    Args:
        fusion: see `trace`.
        features: likewise.
        present: likewise.
        tol: bound on the relative residual of the solve for the equilibrium.
        max_steps: bound on its evaluations.
        steps: of the power iteration (see `equilibrium.jacobian.spectral_radius`).

    Returns:
        "z_1", ..., "z_N", "z_fuse" -> (batch,), those that the fusion has; zero for absent
        modalities, and NaN for samples whose solve did not converge.
    """
    settings: dict[str, Any] = {"tol": tol, "max_steps": max_steps, "on_failure": "ignore"}
    equilibrium = replace(fusion.equilibrium, **settings)
    found: dict[str, Tensor] = {}
    with posed(fusion, features, present) as system:
        batch = len(system.constants.x_fuse)
        record = SolveRecord([batch])
        states, fused = system.solve_blocks(equilibrium, record, None)
        for part in system.maps(states, fused):
            radii = spectral_radius(part, part.state, steps=steps)
            if part.block == "unimodal":
                found |= {f"z_{i}": r for i, r in enumerate(radii.view(-1, batch), start=1)}
            else:
                found["z_fuse"] = radii
    arrived = {name: stats.converged for name, stats in record.forward.items()}
    return {name: torch.where(arrived[name], r, torch.nan) for name, r in found.items()}


@contextmanager
def solved_with(
    fusion: DEQFusion, *, joint: bool | None = None, unroll: int | None = None, **settings: Any
) -> Iterator[DEQFusion]:
    """Lets a trained fusion solve in another way, as in `with solved_with(fusion, tol=0.1):`.

    Args:
        fusion: is as before afterwards.
        joint: see `DEQFusion`; None: as it is.
        unroll: steps of a fusion that takes steps in place of a solve, at least 1; it has no
            other setting.
        settings: those of `Equilibrium`: solver, tol, max_steps, gradient, ...

    Raises:
        TypeError: for settings that there are not.
        ValueError: for settings that do not fit, or that the fusion has no use of.
    """
    if unroll is not None:
        with _unrolled(fusion, unroll, joint, settings):
            yield fusion
        return
    if fusion.unroll is not None:
        raise ValueError(
            f"the fusion must solve for its equilibrium, and this one takes {fusion.unroll} steps "
            "(unroll); set these, by unroll=, and nothing else"
        )
    before = fusion.equilibrium, fusion.joint
    fusion.equilibrium = replace(fusion.equilibrium, **settings)
    if joint is not None:
        fusion.joint = joint and fusion.unimodal is not None and fusion.fuse is not None
    try:
        yield fusion
    finally:
        fusion.equilibrium, fusion.joint = before


@contextmanager
def _unrolled(
    fusion: DEQFusion, unroll: int, joint: bool | None, settings: Mapping[str, Any]
) -> Iterator[None]:
    check_count("unroll", unroll)
    if fusion.unroll is None or joint is not None or settings:
        kind = "that solves" if fusion.unroll is None else f"of {fusion.unroll} steps"
        raise ValueError(
            "unroll must be given alone, to a fusion that was made with it, got one "
            f"{kind}, and joint={joint}, {settings}"
        )
    before, fusion.unroll = fusion.unroll, unroll
    try:
        yield
    finally:
        fusion.unroll = before
