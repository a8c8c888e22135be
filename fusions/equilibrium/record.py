"""What the solves of one forward pass, and of its backward pass, did."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .solvers import Solution


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


class SolveRecord:
    """The statistics of several named solves over the same samples.

    Attributes:
        forward: name -> `SolveStats`, in the order of solving.
        backward: the same of the adjoint solves; there when the backward pass has run.

    Neither changes once it is there: more of it is another mapping, so that other threads see
    solves as a whole or not at all.
    """

    def __init__(self, leading: Sequence[int]) -> None:
        self._leading = tuple(leading)
        self.forward: dict[str, SolveStats] = {}
        self.backward: dict[str, SolveStats] = {}

    def add(
        self,
        direction: str,
        names: Sequence[str],
        solution: Solution,
        ignored: Tensor | None = None,
    ) -> None:
        """Adds a solve whose batch holds the samples of each name, one name after another.

        Args:
            direction: "forward" or "backward".
            names: the solves that were batched together.
            solution: its statistics are kept and its value is not.
            ignored: (len(names) * samples,) bool, what had nothing to solve: 0 steps.
        """
        steps = solution.steps if ignored is None else solution.steps.masked_fill(ignored, 0)
        columns = [
            x.reshape(len(names), *self._leading)
            for x in (steps, solution.residual, solution.converged)
        ]
        added = {name: SolveStats(*(x[i] for x in columns)) for i, name in enumerate(names)}
        setattr(self, direction, {**getattr(self, direction), **added})

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

    def summary(self) -> dict[str, float]:
        """Returns mean steps, share converged and worst residual over all samples and solves.

        The keys are `steps`, `converged`, `residual`, and with the prefix `backward_` those
        of the adjoint solves once they have run. What had nothing to solve does not count.
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
