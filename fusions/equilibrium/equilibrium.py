"""One place for how an equilibrium is solved, forward and backward, and what failure means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from .implicit import implicit_fixed_point
from .record import SolveRecord
from .rules import Rule, make_rule
from .solvers import Map, Observer, Solution, check_limits, find_fixed_point, handle_failure

POLICIES = ("warn", "raise", "ignore")


@dataclass(frozen=True)
class Equilibrium:
    """Solves for z = f(z, *inputs) with fixed settings; the result carries the gradient.

    Args:
        solver: key of `SOLVERS`, or a callable that returns a rule; for both solves.
        tol, max_steps: bounds of the forward solve (see `find_fixed_point`).
        backward_tol, backward_max_steps: those of the adjoint solve; None: the same.
        on_failure: what to do about samples that do not converge (see `handle_failure`).
    """

    solver: str | Callable[[], Rule] = "anderson"
    tol: float = 1e-3
    max_steps: int = 40
    backward_tol: float | None = None
    backward_max_steps: int | None = None
    on_failure: str = "warn"

    def __post_init__(self) -> None:
        make_rule(self.solver)
        if self.on_failure not in POLICIES:
            raise ValueError(
                f"unknown on_failure {self.on_failure!r}; choose from {sorted(POLICIES)}"
            )
        check_limits(*self._forward)
        check_limits(*self._backward, prefix="backward_")

    @property
    def _forward(self) -> tuple[float, int]:
        return self.tol, self.max_steps

    @property
    def _backward(self) -> tuple[float, int]:
        tol, max_steps = self.backward_tol, self.backward_max_steps
        return self.tol if tol is None else tol, self.max_steps if max_steps is None else max_steps

    def solve(
        self,
        f: Callable[..., Tensor],
        start: Tensor,  # shape: (batch, ...)
        inputs: Sequence[Tensor | None],
        *,
        record: SolveRecord,
        names: Sequence[str],
        ignored: Tensor | None = None,
        observe: Observer | None = None,
    ) -> Tensor:
        """Returns the fixed point, differentiable by `inputs` (see `implicit_fixed_point`).

        `names` and `ignored` say how both solves enter the record (see `SolveRecord.add`).
        """

        def run(direction: str, limits: tuple[float, int], f: Map, start: Tensor) -> Solution:
            tol, max_steps = limits
            solution = find_fixed_point(
                f,
                start,
                solver=self.solver,
                tol=tol,
                max_steps=max_steps,
                observe=observe if direction == "forward" else None,
            )
            record.add(direction, names, solution, ignored)
            what = f"{direction} solve of {', '.join(names)} ({max_steps} steps at most)"
            handle_failure(solution, policy=self.on_failure, what=what, tol=tol)
            return solution

        z, _ = implicit_fixed_point(
            f,
            start,
            inputs,
            solve=partial(run, "forward", self._forward),
            solve_adjoint=partial(run, "backward", self._backward),
        )
        return z
