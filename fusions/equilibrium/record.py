"""Records of the solves of one forward pass, and of its backward pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .solve import Solution


@dataclass(frozen=True)
class SolveStats:
    """Statistics of one solve, a value a sample.

    Attributes:
        steps: evaluations of the map until the sample converged, or all of them; int. 0 where
            there was nothing to solve: for an absent modality, and for a cotangent that is zero
            or, being not finite, passed through. The solution is zero then, and exact.
        residual: relative residual of the iterate that was kept.
        converged: whether the residual is within the tolerance; bool.
    """

    steps: Tensor
    residual: Tensor
    converged: Tensor


class _Solved(NamedTuple):
    """One solve, whose parts are those of each name, one name after another."""

    names: tuple[str, ...]
    steps: Tensor
    residual: Tensor
    converged: Tensor
    ignored: Tensor | None  # what had nothing to solve
    given: Tensor | None  # what had

    def by_name(self, leading: tuple[int, ...]) -> dict[str, SolveStats]:
        """Returns name -> its statistics, in the leading shape of the samples."""
        steps = self.steps
        if self.ignored is not None:
            steps = steps.masked_fill(self.ignored.view_as(steps), 0)
        if self.given is not None:
            steps = steps * self.given
        values = steps, self.residual, self.converged
        columns = [x.reshape(len(self.names), *leading) for x in values]
        return {name: SolveStats(*(x[i] for x in columns)) for i, name in enumerate(self.names)}


class SolveRecord:
    """The statistics of several named solves over the same samples.

    Solves are taken apart by name when a property is read. A further one replaces the list of
    them, so that other threads see solves as a whole or not at all.
    """

    def __init__(self, leading: Sequence[int]) -> None:
        self._leading = tuple(leading)
        self._solves: dict[str, list[_Solved]] = {"forward": [], "backward": []}

    def add(
        self,
        direction: str,
        names: Sequence[str],
        solution: Solution,
        ignored: Tensor | None = None,
        given: Tensor | None = None,
    ) -> None:
        """Adds a solve whose parts are those of each name, one name after another.

        Args:
            direction: "forward" or "backward".
            names: the solves that were batched together.
            solution: its statistics are kept and its value is not.
            ignored: bool, as many as parts, what had nothing to solve: 0 steps.
            given: bool, the same the other way round.
        """
        found = solution.steps, solution.residual, solution.converged
        solved = _Solved(tuple(names), *found, ignored, given)
        self._solves = {**self._solves, direction: [*self._solves[direction], solved]}

    @property
    def forward(self) -> dict[str, SolveStats]:
        """name -> `SolveStats` of the forward solves, in the order of solving."""
        return self._by_name("forward")

    @property
    def backward(self) -> dict[str, SolveStats]:
        """The same of the adjoint solves; there when the backward pass has run."""
        return self._by_name("backward")

    def _by_name(self, direction: str) -> dict[str, SolveStats]:
        found: dict[str, SolveStats] = {}
        for solved in self._solves[direction]:
            found |= solved.by_name(self._leading)
        return found

    @property
    def steps(self) -> Tensor:
        """Forward steps, (..., solves): the leading shape of the samples, a column a solve."""
        return torch.stack([stats.steps for stats in self.forward.values()], dim=-1)

    @property
    def residual(self) -> Tensor:
        """Forward residuals, (..., solves)."""
        return torch.stack([stats.residual for stats in self.forward.values()], dim=-1)

    @property
    def converged(self) -> Tensor:
        """Whether the forward solves converged, (..., solves) bool."""
        return torch.stack([stats.converged for stats in self.forward.values()], dim=-1)

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value:.3g}" for name, value in self.summary().items())
        return f"{type(self).__name__}({told})"

    def summary(self) -> dict[str, float]:
        """Returns mean steps, share converged and worst residual over all samples and solves.

        The keys are `steps`, `converged`, `residual`, and with the prefix `backward_` those
        of the adjoint solves once they have run. Samples with nothing to solve do not count.
        """
        numbers = {}
        for prefix, solves in (("", self.forward), ("backward_", self.backward)):
            if not solves:
                continue
            steps = torch.cat([stats.steps.flatten() for stats in solves.values()])
            residual = torch.cat([stats.residual.flatten() for stats in solves.values()])
            converged = torch.cat([stats.converged.flatten() for stats in solves.values()])
            solved = steps > 0
            if not bool(solved.any()):
                continue
            numbers[f"{prefix}steps"] = float(steps[solved].float().mean())
            numbers[f"{prefix}converged"] = float(converged[solved].float().mean())
            numbers[f"{prefix}residual"] = float(residual[solved].max())
        return numbers


class Outcome(NamedTuple):
    """The record and the penalty of one forward, in one object: no reader sees half of two."""

    record: SolveRecord | None = None
    penalty: Tensor | None = None
    graded: bool = False  # whether gradients were recorded
