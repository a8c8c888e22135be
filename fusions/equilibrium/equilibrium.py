"""One place for how an equilibrium is solved, forward and backward, and what failure means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from .fast import Traced, fast_fixed_point
from .implicit import implicit_fixed_point
from .kernels import make_kernel
from .record import SolveRecord
from .rules import Rule, make_rule
from .solvers import Map, Observer, Solution, check_limits, find_fixed_point, handle_failure

ROUGH = 2**-7
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
    engine: str = "fast"

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

        run = partial(self._run, record, names, ignored)
        forward, backward = partial(run, "forward", observe=observe), partial(run, "backward")
        z, _ = implicit_fixed_point(f, start, inputs, solve=forward, solve_adjoint=backward)
        return z

    def solve_cells(self, cell, sizes, constants, *, record, names, ignored=None) -> Tensor:
        run = partial(self._run, record, names, ignored)
        return fast_fixed_point(
            make_kernel(cell),
            sizes,
            constants,
            cell.raw(),
            solve=partial(run, "forward"),
            solve_adjoint=partial(run, "backward"),
        )

    def _run(
        self,
        record: SolveRecord,
        names: Sequence[str],
        ignored: Tensor | None,
        direction: str,
        f: Map,
        start: Tensor,
        rough: Traced | None = None,
        observe: Observer | None = None,
    ) -> Solution:
        tol, max_steps = self._forward if direction == "forward" else self._backward
        spent = None
        if rough is not None and tol >= 1e-6 and max_steps > 3:
            approach = find_fixed_point(
                rough, start, solver=self.solver, tol=max(tol, ROUGH), max_steps=max_steps // 2
            )
            (start,) = rough.trace()
            spent = approach.steps
            max_steps -= int(spent.max())
        solution = find_fixed_point(
            f, start, solver=self.solver, tol=tol, max_steps=max_steps, observe=observe
        )
        if spent is not None:
            solution = replace(solution, steps=solution.steps + spent)
        record.add(direction, names, solution, ignored)
        what = f"{direction} solve of {', '.join(names)} ({max_steps} steps at most)"
        handle_failure(solution, policy=self.on_failure, what=what, tol=tol)
        return solution
