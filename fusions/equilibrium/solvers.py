"""The one loop around the fixed-point rules, and what it reports.

The loop owns all that the methods share: the residual, the best iterate, stopping, and the
check that iterates stay finite. Samples never influence each other: each has its own
residual, its own best iterate and its own convergence.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import check_count
from .rules import Rule, make_rule

Map = Callable[[Tensor], Tensor]  # f: (batch, ...) -> (batch, ...)
Observer = Callable[[int, Tensor, Tensor], None]  # (step from 1, state, residual (batch,))


class ConvergenceWarning(UserWarning):
    """Some samples of a fixed-point solve did not reach the tolerance."""


@dataclass(frozen=True)
class Solution:
    """Where a solve ended.

    Attributes:
        value: (batch, ...) the iterate of smallest residual, for each sample.
        residual: (batch,) |f(z) - z| / |f(z)| at `value`.
        converged: (batch,) bool, residual <= tol.
        steps: (batch,) int, evaluations of f until the sample converged, or all of them.
    """

    value: Tensor
    residual: Tensor
    converged: Tensor
    steps: Tensor


def find_fixed_point(
    f: Map,
    start: Tensor,  # shape: (batch, ...)
    *,
    solver: str | Callable[[], Rule] = "anderson",
    tol: float = 1e-3,
    max_steps: int = 40,
    observe: Observer | None = None,
) -> Solution:
    """Finds z with z = f(z), for every sample of a batch on its own.

    A sample has converged when |f(z) - z| <= tol |f(z)| (Euclidean norms over all its
    entries); it is left alone from then on, while the others go on. No gradient is recorded:
    see `implicit_fixed_point`.

    Args:
        f: the map; it must treat samples independently and be the same at every call.
        start: first iterate.
        solver: a key of `SOLVERS`, or a callable that returns a fresh rule, such as
            `functools.partial(Anderson, memory=3)`.
        tol: bound on the relative residual.
        max_steps: bound on the evaluations of f.
        observe: called after every evaluation with the step (from 1), the iterate and its
            residual.

    Raises:
        ValueError: for an unknown solver, a negative tol or max_steps < 1.
        FloatingPointError: if f returns a value that is not finite.
    """
    check_limits(tol, max_steps)
    rule = make_rule(solver)
    with torch.no_grad():
        z = start.detach().flatten(1)
        best = z
        residual = z.new_full((len(z),), torch.inf)
        converged = torch.zeros_like(residual, dtype=torch.bool)
        steps = torch.zeros_like(residual, dtype=torch.long)
        for step in range(1, max_steps + 1):
            fz = f(z.view(start.shape)).flatten(1).to(z.dtype)
            new, finite = _relative_residual(z, fz)
            if observe is not None:
                observe(step, z.view(start.shape), new)
            steps += ~converged
            better = (new < residual) & ~converged
            best = torch.where(better.unsqueeze(1), z, best)
            residual = torch.where(better, new, residual)
            converged = residual <= tol
            # one transfer from the device for both questions
            all_finite, done = torch.stack([finite.all(), converged.all()]).tolist()
            if not all_finite:
                raise FloatingPointError(_not_finite(finite, step, max_steps))
            if done or step == max_steps:
                break
            # a converged sample is left alone, so that rounding cannot drive it away
            with torch.autocast(z.device.type, enabled=False):  # the method keeps full precision
                z = torch.where(converged.unsqueeze(1), z, rule(z, fz))
    return Solution(best.view(start.shape), residual, converged, steps)


def handle_failure(solution: Solution, *, policy: str, what: str, tol: float) -> None:
    """Warns of, raises for, or ignores the samples that did not converge.

    Args:
        policy: "warn" (a `ConvergenceWarning`), "raise" (a RuntimeError) or "ignore".
        what: names the solve in the message.
        tol: the tolerance that was asked for.
    """
    if policy == "ignore" or bool(solution.converged.all()):
        return
    advice = "raise max_steps or tol, or regularise the map (Jacobian penalty)"
    if policy == "raise":
        failed = int((~solution.converged).sum())
        raise RuntimeError(
            f"{what}: every sample must reach tol={tol:g}, but {failed} of "
            f"{len(solution.converged)} did not (worst residual "
            f"{float(solution.residual.max()):.1e}); {advice}"
        )
    # without counts, so that Python shows it once a place and not at every step of training
    warnings.warn(
        f"{what}: some samples did not reach tol={tol:g}; {advice}", ConvergenceWarning, 3
    )


def check_limits(tol: float, max_steps: int, prefix: str = "") -> None:
    """Raises ValueError unless tol >= 0 and max_steps is an integer >= 1."""
    if not tol >= 0:
        raise ValueError(f"{prefix}tol must be at least 0, got {tol}")
    check_count(f"{prefix}max_steps", max_steps)


def _relative_residual(z: Tensor, fz: Tensor) -> tuple[Tensor, Tensor]:
    """Returns |fz - z| / |fz| of each row, and whether fz is finite there; both (batch,)."""
    largest = fz.abs().amax(1)
    finite = largest.isfinite()
    # rows are brought to unit size, so that no square leaves the range of the dtype; by a power
    # of two, which rounds nothing
    exponent = torch.frexp(torch.where(finite, largest, 1)).exponent.clamp(-120, 120)
    factor = torch.ldexp(torch.ones_like(largest), -exponent).unsqueeze(1)
    change, size = ((fz - z) * factor).norm(dim=1), (fz * factor).norm(dim=1)
    return change / size.clamp_min(torch.finfo(size.dtype).tiny), finite


def _not_finite(finite: Tensor, step: int, max_steps: int) -> str:
    bad = (~finite).nonzero().flatten().tolist()
    return (
        f"iterates must stay finite, but f returned NaN or infinity at step {step} of "
        f"{max_steps} for {len(bad)} of {len(finite)} samples (first: {bad[:5]}); "
        "check the inputs and weights, or try solver='picard'"
    )
