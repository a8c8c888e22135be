"""One equilibrium, or several: do the solver and the start decide what a fusion returns?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .deq import DEQFusion
from .equilibrium import SOLVERS, spectral_radius
from .equilibrium.checks import check_choice, check_count
from .equilibrium.solve import Map
from .fixed_points import ends, random_starts, spread_of, told_apart, whole_map


@dataclass(frozen=True)
class Uniqueness:
    """Where solves by K solvers from S starts ended, of B samples; `print` says it in words.

    The first start is zero, from which a fusion solves. Shares are of the samples that at least
    two of the solves converged for, the `judged`: of others nothing can be told.

    Attributes:
        solvers: names of the K solvers.
        states: (K, S, B, ...) the ends.
        label: (K, S, B) which of the sample's fixed points it is, from 0; -1 where the solve did
            not converge.
        radius: (B,) spectral radius of the Jacobian at the solution, which is the end from zero
            by the first solver that converged; NaN where none did.
        spread: (B,) largest relative distance of two ends that converged, see
            `FixedPoints.spread`.
        fused: (K, S, B, d) what the fusion would return from each end; None of a map alone.
    """

    solvers: tuple[str, ...]
    states: Tensor
    label: Tensor
    radius: Tensor
    spread: Tensor
    fused: Tensor | None = None

    @property
    def count(self) -> Tensor:
        """(B,) distinct fixed points found, 0 where nothing converged. There may be more."""
        return self.label.amax((0, 1)) + 1

    @property
    def judged(self) -> Tensor:
        """(B,) bool, whether two solves or more converged."""
        return (self.label >= 0).sum((0, 1)) > 1

    @property
    def several(self) -> Tensor:
        """(B,) bool, whether more than one fixed point was found."""
        return self.count > 1

    @property
    def starts_differ(self) -> Tensor:
        """(B,) bool, whether some one solver ends at two fixed points from two starts."""
        return _differ(self.label, 1).any(0)

    @property
    def solvers_differ(self) -> Tensor:
        """(B,) bool, whether from some one start two solvers end at two fixed points."""
        return _differ(self.label, 0).any(0)

    @property
    def solvers_differ_from_zero(self) -> Tensor:
        """(B,) bool, the same from zero alone: whether the solver decides what is returned."""
        return _differ(self.label[:, :1], 0).any(0)

    @property
    def converged(self) -> dict[str, float]:
        """Solver -> share of its solves that converged."""
        shares = _mean((self.label >= 0).flatten(1))
        return dict(zip(self.solvers, shares.tolist(), strict=True))

    def share(self, samples: Tensor) -> float:
        """Returns the share of these samples, (B,) bool, among the judged; NaN without any."""
        return float(_mean((samples & self.judged)[self.judged]))

    def __str__(self) -> str:
        solves = "by " + ", ".join(self.solvers)
        starts, judged = self.label.shape[1] - 1, int(self.judged.sum())
        lines = [
            f"{self.label.shape[2]} samples, solved {solves}, from zero and {starts} random "
            f"states; for {judged} of them two solves or more converged",
            f"several fixed points: {self._told(self.several)}{self._apart()}",
            f"starts differ: {self._told(self.starts_differ)}",
            f"solvers differ: {self._told(self.solvers_differ)}; from zero: "
            f"{self._told(self.solvers_differ_from_zero)}",
            "solves that converged: "
            + ", ".join(f"{name} {share:.1%}" for name, share in self.converged.items()),
            f"spectral radius at the solution: {_told_radius(self.radius)}",
        ]
        if judged and not bool(self.several.any()):
            lines.append("That all solves agree is no proof that there is no other fixed point.")
        return "\n".join(lines)

    def _told(self, samples: Tensor) -> str:
        judged = int(self.judged.sum())
        share = f" ({self.share(samples):.1%})" if judged else ""
        return f"{int((samples & self.judged).sum())} of {judged} samples{share}"

    def _apart(self) -> str:
        if not bool(self.several.any()):
            return ""
        most, far = int(self.count.max()), float(self.spread.max())
        return f", up to {most} of a sample, up to {far:.0%} apart"


def uniqueness(
    fusion: DEQFusion,
    features: Sequence[Tensor],
    *,
    present: Tensor | None = None,
    starts: int = 8,
    solvers: Sequence[str] = tuple(SOLVERS),
    seed: int = 0,
    **settings: Any,
) -> Uniqueness:
    """Looks whether solvers and starts agree on the equilibria of these features.

    As `fixed_points`, in float64 and with all states of a sample together, but by several
    solvers, each to a tight tolerance.

    Args:
        fusion: any DEQ fusion, before or after training; it stays as it is.
        features: as its `forward` takes them, (batch, d_i) each.
        present: likewise, (batch, N) bool.
        starts: random starts beside zero, normal and of the size of the state zero leads to.
        solvers: names of `equilibrium.SOLVERS`; "picard" is plain iteration.
        seed: of the random starts.
        settings: tol, max_steps and distance of `settle`.

    Raises:
        ValueError: for settings or features that make no sense.
        TypeError: for features of another type or dtype.
        FloatingPointError: if an iterate is not finite.
    """
    f, zero = whole_map(fusion, features, present)
    found = settle(f, zero, starts=starts, solvers=solvers, seed=seed, **settings)
    parts: dict[str, Any] = vars(found) | {"fused": _fused(fusion, found.states)}
    return Uniqueness(**parts)


def settle(
    f: Map,
    zero: Tensor,  # shape: (batch, ...)
    *,
    starts: int = 8,
    solvers: Sequence[str] = tuple(SOLVERS),
    seed: int = 0,
    tol: float = 1e-9,
    max_steps: int = 1000,
    distance: float = 1e-3,
) -> Uniqueness:
    """Does for any map, (batch, ...) -> (batch, ...), what `uniqueness` does for a fusion.

    Args:
        f: the map, sample by sample.
        zero: the first start.
        starts: random ones beside it.
        solvers: see `uniqueness`.
        seed: likewise.
        tol: bound on the relative residual, of every solve.
        max_steps: bound on its evaluations.
        distance: see `ends`.
    """
    check_count("starts", starts)
    for name in solvers:
        check_choice("solvers", name, SOLVERS)
    if not solvers or len(set(solvers)) < len(solvers):
        raise ValueError(f"solvers must be names, each once, at least one, got {list(solvers)}")
    settings: dict[str, Any] = {"tol": tol, "max_steps": max_steps, "distance": distance}
    begun = random_starts(f, zero, starts, seed=seed, solver=solvers[0], **settings)
    found = [ends(f, begun, solver=name, **settings) for name in solvers]
    states = torch.stack([each.states for each in found])
    arrived = torch.stack([each.label >= 0 for each in found])
    solves = states.flatten(0, 1), arrived.flatten(0, 1)
    label, spread = told_apart(*solves, distance), spread_of(*solves)
    radius = _radius(f, states[:, 0], arrived[:, 0])
    return Uniqueness(tuple(solvers), states, label.view_as(arrived), radius, spread)


def _radius(f: Map, states: Tensor, arrived: Tensor) -> Tensor:
    """Returns the spectral radius at the first of the states (K, B, ...) that arrived."""
    first = arrived.byte().argmax(0)  # the first of the largest
    radius = spectral_radius(f, states[first, torch.arange(len(first), device=first.device)])
    return torch.where(arrived.any(0), radius, torch.nan)


def _fused(fusion: DEQFusion, states: Tensor) -> Tensor:
    """Returns what the fusion returns from states (K, S, B, ...)."""
    if fusion.unimodal is None:
        return states
    return states.sum(-2) if fusion.fuse is None else states[..., -1, :]


def _differ(label: Tensor, along: int) -> Tensor:
    """Returns whether labels, (K, S, B), of solves that converged differ along an axis."""
    there = label >= 0
    highest = label.amax(along)
    lowest = torch.where(there, label, torch.iinfo(label.dtype).max).amin(along)
    return lowest < highest


def _mean(x: Tensor) -> Tensor:
    return x.double().mean(-1)


def _told_radius(radius: Tensor) -> str:
    there = radius[~radius.isnan()]
    if not len(there):
        return "unknown, for no solve from zero converged"
    below = float((there < 1).double().mean())
    return f"median {there.median():.2f}, largest {there.max():.2f}, below 1 for {below:.1%}"
