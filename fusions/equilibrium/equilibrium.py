"""One place for how an equilibrium is solved, forward and backward, and what failure means."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from .cells import GatedCell, ResidualCells
from .checks import Rule as OptionRule
from .checks import check_count, check_not_negative, check_options, check_range, one_of, optional
from .fast import Traced, fast_fixed_point
from .implicit import implicit_fixed_point
from .kernels import make_kernel
from .record import SolveRecord
from .rules import Rule, make_rule
from .solvers import IterateError, Map, Observer, Solution, find_fixed_point, handle_failure

RULES: Mapping[str, OptionRule] = {
    "tol": check_not_negative,
    "max_steps": check_count,
    "backward_tol": optional(check_not_negative),
    "backward_max_steps": optional(check_count),
    "on_failure": one_of(("warn", "raise", "ignore")),
    "gradient": one_of(("exact", "one_step", "neumann")),
    "neumann_terms": check_count,
    "neumann_damping": partial(check_range, low=0, high=1, above=True),
    "engine": one_of(("fast", "plain")),
}


@dataclass(frozen=True)
class Equilibrium:
    """Solves for z = f(z, *inputs) with fixed settings; the result carries the gradient.

    For a cotangent g and J = df/dz the inputs receive (df/dinputs)^T u, with

        exact       u = J^T u + g, solved (Bai et al., 2019, theorem 1)
        one_step    u = g (Fung et al., 2022, Jacobian-free backpropagation)
        neumann     u = a sum_{k < K} (a J^T + (1 - a) I)^k g, K terms with damping a: for a = 1
                    the Neumann series cut off, else the phantom gradient (Geng et al., 2021)

    Args:
        solver: key of `SOLVERS`, or a callable that returns a rule; for both solves.
        tol, max_steps: bounds of the forward solve (see `find_fixed_point`).
        backward_tol, backward_max_steps: those of the adjoint solve; None: the same.
        on_failure: what to do about samples that do not converge (see `handle_failure`).
        gradient: "exact", "one_step" or "neumann". Only the exact one solves: the others have
            no convergence to record.
        neumann_terms, neumann_damping: K, and a, above 0 and at most 1.
        engine: "fast" (fast.py) or "plain" (implicit.py), for cells. Where the fast one approaches
            in lower precision, a quarter of the steps is set aside for that.
    """

    solver: str | Callable[[], Rule] = "anderson"
    tol: float = 1e-3
    max_steps: int = 40
    backward_tol: float | None = None
    backward_max_steps: int | None = None
    on_failure: str = "warn"
    gradient: str = "exact"
    neumann_terms: int = 3
    neumann_damping: float = 1.0
    engine: str = "fast"

    def __post_init__(self) -> None:
        make_rule(self.solver)
        check_options(vars(self), RULES)

    def _limits(self, direction: str) -> tuple[float, int]:
        if direction == "forward":
            return self.tol, self.max_steps
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
        z, _ = implicit_fixed_point(
            f,
            start,
            inputs,
            solve=partial(run, "forward", observe=observe),
            solve_adjoint=self._adjoint(run),
        )
        return z

    def solve_cell(
        self,
        cell: ResidualCells | GatedCell,
        constants: Sequence[Tensor | None],
        sizes: Sequence[int],
        *,
        record: SolveRecord,
        names: Sequence[str],
        ignored: Tensor | None = None,
    ) -> Tensor:
        """Returns the fixed point of a cell's rows by the fast engine (see fast.py).

        Args:
            cell: the map.
            constants: what its kernel takes, in the order of its `step`, a value a row.
            sizes: rows of each of its cells.
            record, names, ignored: see `solve`.
        """
        run = partial(self._run, record, names, ignored)
        return fast_fixed_point(
            make_kernel(cell),
            sizes,
            constants,
            cell.bare_tensors(),
            solve=partial(run, "forward"),
            solve_adjoint=self._adjoint(run),
        )

    def _adjoint(self, run: Callable) -> Callable:
        return partial(run, "backward") if self.gradient == "exact" else self._series

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
        """Solves, after an approach with the map `rough` of lower precision if there is one."""
        tol, max_steps = self._limits(direction)
        left, spent = max_steps, 0
        if rough is not None and max_steps >= 4 and tol > torch.finfo(start.dtype).eps:
            start, spent = self._approach(rough, start, tol, max_steps // 4)
            left -= max_steps // 4  # for every sample, whatever its batch-mates took
        solution = find_fixed_point(
            f, start, solver=self.solver, tol=tol, max_steps=left, observe=observe
        )
        solution = replace(solution, steps=solution.steps + spent)
        if direction == "backward":  # from the cotangent; see `unit_cotangent` for those of zero
            nothing = ~start.flatten(1).any(1)
            ignored = nothing if ignored is None else ignored | nothing
        record.add(direction, names, solution, ignored)
        what = f"{direction} solve of {', '.join(names)} ({max_steps} steps at most)"
        handle_failure(solution, policy=self.on_failure, what=what, tol=tol)
        return solution

    def _approach(
        self, rough: Traced, start: Tensor, tol: float, max_steps: int
    ) -> tuple[Tensor, Tensor | int]:
        """Returns where to start the solve proper, and the steps of each sample until there."""
        # closer than to the precision of bfloat16 it could not come
        limits = {"tol": max(tol, torch.finfo(torch.bfloat16).eps), "max_steps": max_steps}
        try:
            found = find_fixed_point(rough, start, solver=self.solver, **limits)
        except IterateError as error:  # it is for full precision to say so
            return start, error.step
        (image,) = rough.finish()  # one step further, at no cost
        return torch.where(found.converged.unsqueeze(1), image, found.value), found.steps

    def _series(self, f: Map, start: Tensor, rough: Map | None = None) -> Solution:
        """Returns the u of an approximate gradient as a `Solution` that has not converged.

        Args:
            f: u -> J^T u + g.
            start: g.
            rough: is not used; what is left out of the series is to be the only error.
        """
        terms, a = self.neumann_terms, self.neumann_damping
        if self.gradient == "one_step":
            terms, a = 1, 1.0
        u = a * start
        for _ in range(terms - 1):
            u = torch.lerp(u, f(u), a)
        unknown = start.new_full((len(start),), torch.nan)
        steps = torch.full_like(unknown, terms - 1, dtype=torch.long)
        return Solution(u, unknown, unknown.isfinite(), steps)
