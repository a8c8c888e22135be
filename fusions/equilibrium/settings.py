"""Settings of an equilibrium: how it is solved, forward and backward, and what failure means."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .blame import caller_level
from .checks import Rule as OptionRule
from .checks import check_count, check_not_negative, check_options, check_range, one_of, optional
from .implicit import Make, implicit_fixed_point
from .maps import FixedPointMap
from .record import SolveRecord
from .rules import Rule, make_rule
from .solve import Observer, Solution, solve

RULES: Mapping[str, OptionRule] = {
    "tol": check_not_negative,
    "max_steps": check_count,
    "backward_tol": optional(check_not_negative),
    "backward_max_steps": optional(check_count),
    "on_failure": one_of(("warn", "raise", "ignore")),
    "gradient": one_of(("exact", "one_step", "neumann")),
    "neumann_terms": check_count,
    "neumann_damping": partial(check_range, low=0, high=1, above=True),
    "ask_every": optional(check_count),
}


class ConvergenceWarning(UserWarning):
    """Some samples of a fixed-point solve did not reach the tolerance."""


class ConvergenceError(RuntimeError):
    """Some samples did not, and on_failure="raise" asked for an error."""


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
        tol: bound on the residual of the forward solve, see `find_fixed_point`.
        max_steps: bound on its evaluations.
        backward_tol: the tolerance of the adjoint solve; None: the same.
        backward_max_steps: its bound on evaluations; None: the same.
        on_failure: "warn" of, "raise" for or "ignore" samples that do not converge.
        gradient: "exact", "one_step" or "neumann". Only the exact one solves: the others have
            no convergence to record.
        neumann_terms: K.
        neumann_damping: a, above 0 and at most 1.
        ask_every: steps between the questions whether all have converged (`find_fixed_point`);
            None: as suits the map. The result is the same.
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
    ask_every: int | None = None

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
        make: Make,
        inputs: Sequence[Tensor | None],
        *,
        record: SolveRecord,
        names: Sequence[str],
        ignored: Tensor | None = None,
        observe: Observer | None = None,
    ) -> Tensor:
        """Returns the fixed point of the map `make(*inputs)`, differentiable by the inputs.

        `names` and `ignored` say how both solves enter the record (see `SolveRecord.add`); the
        rest: `implicit_fixed_point`.
        """
        run = partial(self._run, record, names, ignored)
        return implicit_fixed_point(
            make,
            inputs,
            solve=partial(run, "forward", observe=observe),
            solve_adjoint=partial(run, "backward") if self.gradient == "exact" else self._series,
        )

    def _run(
        self,
        record: SolveRecord,
        names: Sequence[str],
        ignored: Tensor | None,
        direction: str,
        f: FixedPointMap,
        observe: Observer | None = None,
    ) -> Solution:
        tol, max_steps = self._limits(direction)
        settings: dict[str, Any] = {"tol": tol, "max_steps": max_steps, "ask_every": self.ask_every}
        solution = solve(f, solver=self.solver, **settings, observe=observe)
        # an adjoint solve starts from the cotangent; see `unit_cotangent` for those of zero
        given = f.start().any(-1) if direction == "backward" else None
        record.add(direction, names, solution, ignored, given)
        if solution.failed and self.on_failure != "ignore":
            what = f"{direction} solve of {', '.join(names)} ({max_steps} steps at most)"
            _handle_failure(solution, policy=self.on_failure, what=what, tol=tol)
        return solution

    def _series(self, f: FixedPointMap) -> Solution:
        """Returns the u of an approximate gradient as a `Solution` that has not converged.

        Cutting the series off is to be the only error: no step is rough.
        """
        terms, a = self.neumann_terms, self.neumann_damping
        if self.gradient == "one_step":
            terms, a = 1, 1.0
        u = a * f.start()
        for _ in range(terms - 1):
            u = torch.lerp(u, f(u), a)
        unknown = u.new_full(u.shape[:-1], torch.nan)
        steps = torch.full_like(unknown, terms - 1, dtype=torch.long)
        return Solution(u, unknown, steps, unknown.isfinite())


def _handle_failure(solution: Solution, *, policy: str, what: str, tol: float) -> None:
    """Warns of the parts that did not converge, or raises for them.

    Args:
        policy: "warn" (a `ConvergenceWarning`) or "raise" (a `ConvergenceError`).
        what: names the solve in the message.
        tol: the tolerance that was asked for.
    """
    failed, count = solution.failed, solution.residual.numel()
    worst = float(solution.residual.max())
    advice = "raise max_steps or tol, or train with a larger jacobian_weight"
    if policy == "raise":
        raise ConvergenceError(
            f"{what}: every sample must reach tol={tol:g}, but {failed} of {count} did not (worst "
            f"residual {worst:.1e}); {advice}"
        )
    # Python shows a text once a place: with both numbers rounded, training is not told of every
    # step
    least = 2 ** (failed.bit_length() - 1)
    most = min(2 * least - 1, count - 1)
    if failed == count or most <= least:
        some = str(failed)
    else:
        some = f"{least} to {most}"
    parts = "samples" if solution.residual.ndim == 1 else "states of samples"
    within = f" (worst residual below {_next_decade(worst):g})" if math.isfinite(worst) else ""
    warnings.warn(
        f"{what}: {some} of {count} {parts} did not reach tol={tol:g}{within}; {advice}. "
        "`info.converged` tells which; the page plug_in of the documentation says what share is "
        "harmless",
        ConvergenceWarning,
        caller_level(),
    )


def _next_decade(value: float) -> float:
    """Returns the least power of ten above a positive number."""
    return 10.0 ** (math.floor(math.log10(value)) + 1)
