"""The equilibria that a fusion has for given features: solves from several starts.

Of 80 samples, 8 of each of 10 fusions as they start (two modalities, dim 32), 0 were found to
have more than one at the default `start`, and 31 at 1.0, up to 87 % apart.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .deq import DEQFusion
from .equilibrium import find_fixed_point, spectral_radius
from .equilibrium.checks import check_count, check_flag, check_range
from .equilibrium.fusion_map.system import TriangularSystem
from .equilibrium.rules import Rule
from .equilibrium.solve import Map
from .traces import posed


@dataclass(frozen=True)
class FixedPoints:
    """Where solves from several starts ended, sample by sample; starts S, samples B.

    Attributes:
        states: (S, B, ...) the ends; those of `fixed_points` are (z_1, ..., z_N, z).
        residual: (S, B) |f(z) - z| / |f(z)| there.
        label: (S, B) which of the sample's fixed points it is, from 0 in the order of the starts;
            -1 where the solve did not converge.
        radius: (S, B) spectral radius of the Jacobian at the end, below 1 where plain iteration
            settles; None where it was not asked for.
    """

    states: Tensor
    residual: Tensor
    label: Tensor
    radius: Tensor | None = None

    @property
    def count(self) -> Tensor:
        """(B,) distinct fixed points found, 0 where nothing converged. There may be more."""
        return self.label.amax(0) + 1

    @property
    def spread(self) -> Tensor:
        """(B,) largest distance of two ends that converged, relative to the larger of them."""
        return spread_of(self.states, self.label >= 0)

    def of(self, sample: int) -> Tensor:
        """Returns the distinct fixed points of a sample, (count, ...)."""
        label = self.label[:, sample]
        firsts = [int((label == k).nonzero()[0]) for k in range(int(label.max()) + 1)]
        return self.states[firsts, sample]


def fixed_points(
    fusion: DEQFusion,
    features: Sequence[Tensor],
    *,
    present: Tensor | None = None,
    starts: int = 8,
    seed: int = 0,
    radius: bool = False,
    **settings: Any,
) -> FixedPoints:
    """Looks for the equilibria of these features, from zero and from random states.

    Where there is one equilibrium, every start that converges finds it; that all do is no proof
    that there is no other. It computes in float64, so that rounding decides nothing, and
    all states of a sample are solved for together.

    Args:
        fusion: any DEQ fusion, before or after training; it stays as it is.
        features: as its `forward` takes them, (batch, d_i) each.
        present: likewise, (batch, N) bool.
        starts: random starts beside zero, normal and of the size of the state zero leads to.
        seed: of their generator.
        radius: see `ends`; it costs 100 products with the Jacobian at every end.
        settings: tol, max_steps, distance and solver of `ends`; the solver is the fusion's
            where none is given.

    Raises:
        ValueError: for settings or features that make no sense.
        TypeError: for features of another type or dtype.
        FloatingPointError: if an iterate is not finite.
    """
    check_count("starts", starts)
    settings = {"solver": fusion.equilibrium.solver, **settings}
    f, zero = whole_map(fusion, features, present)
    return ends(f, random_starts(f, zero, starts, seed=seed, **settings), radius=radius, **settings)


def whole_map(
    fusion: DEQFusion, features: Sequence[Tensor], present: Tensor | None = None
) -> tuple[Map, Tensor]:
    """Returns the map in float64 of all states that a fusion solves for, by sample, and zero.

    Args:
        fusion: see `fixed_points`.
        features: likewise.
        present: likewise.
    """
    fusion = copy.deepcopy(fusion).double()
    given = [x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in features]
    with posed(fusion, given, present) as system:
        return _whole(system)


def random_starts(
    f: Map, zero: Tensor, starts: int, *, seed: int = 0, **settings: Any
) -> Tensor:  # shape: (1 + starts, batch, ...)
    """Returns zero and random states, normal and of the size of the state zero leads to.

    Args:
        f: see `ends`.
        zero: (batch, ...).
        starts: random ones.
        seed: of their generator.
        settings: of `ends`, for the solve from zero.
    """
    first = ends(f, zero.unsqueeze(0), **settings).states
    size = first.flatten(2).square().mean(2).sqrt()
    size = torch.where(size > 0, size, 1).view(1, -1, *[1] * (zero.ndim - 1))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(starts, *zero.shape, generator=generator, dtype=zero.dtype)
    return torch.cat([zero.unsqueeze(0), drawn.to(zero.device) * size])


def ends(
    f: Map,
    starts: Tensor,  # shape: (S, batch, ...)
    *,
    solver: str | Callable[[], Rule] = "anderson",
    tol: float = 1e-7,
    max_steps: int = 1000,
    distance: float = 1e-3,
    radius: bool = False,
) -> FixedPoints:
    """Solves z = f(z) from each of the starts, and tells the fixed points found apart.

    Args:
        f: (batch, ...) -> (batch, ...), see `find_fixed_point`; of one kind at every call.
        starts: where to start.
        solver: see `find_fixed_point`.
        tol: likewise.
        max_steps: likewise.
        distance: relative distance from which on two ends are two fixed points. It must be well
            above tol: an end is as far from the fixed point as tol / (1 - its spectral radius).
        radius: whether to take the spectral radius at every end.
    """
    check_range("distance", distance, 0, 1, above=True)
    check_flag("radius", radius)
    settings: dict[str, Any] = {"solver": solver, "tol": tol, "max_steps": max_steps}
    found = [find_fixed_point(f, start, **settings) for start in starts]
    states = torch.stack([solution.value for solution in found])
    arrived = torch.stack([solution.converged for solution in found])
    label = told_apart(states, arrived, distance)
    radii = torch.stack([spectral_radius(f, z) for z in states]) if radius else None
    return FixedPoints(states, torch.stack([x.residual for x in found]), label, radii)


def told_apart(states: Tensor, arrived: Tensor, distance: float) -> Tensor:
    """Returns which of a sample's fixed points each end is, (S, B), -1 of what is none.

    Args:
        states: the ends, (S, B, ...).
        arrived: (S, B) bool, whether they are fixed points.
        distance: relative distance from which on two ends are two fixed points.
    """
    near = _distances(states.flatten(2)) <= distance
    label, count = torch.full_like(arrived, -1, dtype=torch.long), arrived.new_zeros(len(states[0]))
    count = count.long()
    for s in range(len(states)):  # the label of the first start that ended there, or a new one
        same = near[s, :s] & arrived[:s]
        known = same.any(0)
        earlier = label[:s].gather(0, same.float().argmax(0, keepdim=True))[0] if s else count
        label[s] = torch.where(arrived[s], torch.where(known, earlier, count), -1)
        count = count + (arrived[s] & ~known)
    return label


def spread_of(states: Tensor, arrived: Tensor) -> Tensor:
    """Returns (B,) the largest relative distance of two ends that arrived, see `told_apart`."""
    pairs = arrived.unsqueeze(0) & arrived.unsqueeze(1)
    return torch.where(pairs, _distances(states.flatten(2)), 0).amax((0, 1))


def _whole(system: TriangularSystem) -> tuple[Map, Tensor]:
    """Returns the map of all states that a system solves for, by sample, and zero."""
    n, batch, dim = system.constants.x.shape
    zero = torch.zeros_like(system.constants.x)
    (whole, *_) = system.maps(
        system.constants.x, torch.zeros_like(system.constants.x_fuse), joint=True
    )
    if whole.block != "unimodal":
        return whole, torch.zeros_like(whole.state)

    def by_sample(state: Tensor) -> Tensor:
        image = whole(state.transpose(0, 1).reshape(n * batch, dim))
        return image.view(n, batch, dim).transpose(0, 1)

    return by_sample, zero.transpose(0, 1)


def _distances(ends: Tensor) -> Tensor:
    """Returns |a - b| / max(|a|, |b|) of all pairs of ends (S, B, size), (S, S, B)."""
    size = ends.norm(dim=2)
    larger = torch.maximum(size.unsqueeze(0), size.unsqueeze(1))
    gaps = torch.stack([(ends - end).norm(dim=2) for end in ends])
    return torch.where(larger > 0, gaps / larger, 0)
