"""The one loop around the fixed-point rules, and what it reports.

The loop owns all that the methods share: the residual, the best iterate, stopping, and the
check that iterates stay finite. Samples never influence each other: each has its own
residual, its own best iterate and its own convergence; those that have converged leave the
work, where the map allows it.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import check_count, check_not_negative
from .features import forbid_transforms
from .rules import Rule, make_rule

# f: (batch, ...) -> (batch, ...); with a method narrow(rows), it can go on with those rows only
Map = Callable[[Tensor], Tensor]
Observer = Callable[[int, Tensor, Tensor], None]  # (step from 1, state, residual (batch,))


# Converged rows leave once they have cost so many evaluations of all rows, and are the greater
# part: what is kept of them, and the rest apart, then take no more memory than there was.
PATIENCE = 0.5


class ConvergenceWarning(UserWarning):
    """Some samples of a fixed-point solve did not reach the tolerance."""


class ConvergenceError(RuntimeError):
    """Some samples did not, and on_failure="raise" asked for an error."""


class IterateError(FloatingPointError):
    """An iterate of a solve is not finite; `step` is the evaluation that made it so."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message, step)
        self.step = step

    def __str__(self) -> str:
        return self.args[0]


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
        f: the map; it must treat samples independently and be the same at every call. If it
            has a method `narrow(rows)`, with indices among its present rows, converged
            samples are dropped from the work.
        start: first iterate.
        solver: a key of `SOLVERS`, or a callable that returns a fresh rule, such as
            `functools.partial(Anderson, memory=3)`.
        tol: bound on the relative residual.
        max_steps: bound on the evaluations of f.
        observe: called after every evaluation with the step (from 1), the iterate and its
            residual.

    Raises:
        ValueError: for settings or a start that make no sense, or images of another shape.
        FloatingPointError: if f returns a value that is not finite (an `IterateError`).
        RuntimeError: inside a transform of torch.func, which cannot follow.
    """
    check_limits(tol, max_steps)
    rule = make_rule(solver)
    _check_start(start)
    forbid_transforms()
    narrows = observe is None and hasattr(f, "narrow") and hasattr(rule, "narrow")
    with torch.no_grad():
        z = best = start.detach().flatten(1)
        residual = z.new_full((len(z),), torch.inf)
        steps = torch.zeros_like(residual, dtype=torch.long)
        results, wasted = Rows(), 0
        for step in range(1, max_steps + 1):
            fz = f(z.view(-1, *start.shape[1:])).flatten(1).to(z.dtype)
            if fz.shape != z.shape:
                raise ValueError(_other_shape("f", fz, z))
            new = relative_residual(z, fz)
            if observe is not None:
                observe(step, z.view(start.shape), new)
            steps = steps + (residual > tol)
            better = new < residual
            residual = torch.fmin(new, residual)
            converged = residual <= tol
            # one transfer from the device for these questions
            counts = torch.stack([x.sum() for x in (new.isnan(), better, converged)])
            not_finite, improved, done = counts.tolist()
            if not_finite:
                bad = results.original(new.isnan().nonzero().squeeze(1))
                message = _not_finite(bad.tolist(), len(start), step, max_steps)
                raise IterateError(message, step)
            best = z if improved == len(z) else torch.where(better.unsqueeze(1), z, best)
            if done == len(z) or step == max_steps:
                break
            with torch.autocast(z.device.type, enabled=False):  # the method keeps full precision
                following = rule(z, fz)
            if following.shape != z.shape:
                raise ValueError(_other_shape("the solver's rule", following, z))
            wasted += done
            if narrows and wasted > PATIENCE * len(z) and 2 * done > len(z):
                wasted = 0
                rows = (~converged).nonzero().squeeze(1)
                results.put(rows, (best, residual, steps))
                best, residual, steps = best[rows], residual[rows], steps[rows]
                z = following[rows]
                f.narrow(rows)
                rule.narrow(rows)
            else:  # a converged sample is left alone, so that rounding cannot drive it away
                z = torch.where(converged.unsqueeze(1), z, following) if done else following
        best, residual, steps = results.whole((best, residual, steps))
    return Solution(best.view(start.shape), residual, residual <= tol, steps)


class Rows:
    """Tensors with a value a row, of which only some rows are still at work."""

    def __init__(self) -> None:
        self._kept: list[Tensor] | None = None
        self._rows: Tensor | None = None

    def put(self, rows: Tensor, parts: Sequence[Tensor]) -> None:
        """Keeps what the present rows have; those of the given indices among them stay present."""
        self._kept = list(self.whole(parts))
        self._rows = rows if self._rows is None else self._rows[rows]

    def original(self, rows: Tensor) -> Tensor:
        """Returns the indices among all rows of those at the given ones among the present."""
        return rows if self._rows is None else self._rows[rows]

    def whole(self, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns all rows: what the present ones have, and what was kept of the others."""
        if self._kept is None:
            return tuple(parts)
        for i, part in enumerate(parts):  # one after the other, so that memory is given back
            self._kept[i] = torch.index_copy(self._kept[i], 0, self._rows, part)
        return tuple(self._kept)


def handle_failure(solution: Solution, *, policy: str, what: str, tol: float) -> None:
    """Warns of, raises for, or ignores the samples that did not converge.

    Args:
        policy: "warn" (a `ConvergenceWarning`), "raise" (a `ConvergenceError`) or "ignore".
        what: names the solve in the message.
        tol: the tolerance that was asked for.
    """
    if policy == "ignore" or bool(solution.converged.all()):
        return
    advice = "raise max_steps or tol, or regularise the map (Jacobian penalty)"
    if policy == "raise":
        failed = int((~solution.converged).sum())
        raise ConvergenceError(
            f"{what}: every sample must reach tol={tol:g}, but {failed} of "
            f"{len(solution.converged)} did not (worst residual "
            f"{float(solution.residual.max()):.1e}); {advice}"
        )
    # without counts, so that Python shows it once a place and not at every step of training
    warnings.warn(
        f"{what}: some samples did not reach tol={tol:g}; {advice}", ConvergenceWarning, 3
    )


def check_limits(tol: float, max_steps: int, prefix: str = "") -> None:
    """Raises ValueError unless tol is finite and >= 0, and max_steps an integer >= 1."""
    check_not_negative(f"{prefix}tol", tol)
    check_count(f"{prefix}max_steps", max_steps)


def relative_residual(z: Tensor, fz: Tensor) -> Tensor:
    """Returns |fz - z| / |fz| of each row, (batch,); NaN where fz is not finite."""
    size = torch.linalg.vector_norm(fz, dim=1)
    limits = torch.finfo(size.dtype)
    if bool(((size > limits.tiny**0.25) & (size < limits.max**0.25)).all()):
        return torch.linalg.vector_norm(fz - z, dim=1) / size
    # Some squares might leave the range of the dtype. Rows are brought to unit size first; by a
    # power of two, which rounds nothing.
    largest = fz.abs().amax(1)
    finite = largest.isfinite()
    bound = math.frexp(limits.max)[1] - 2  # so that no factor leaves the range
    exponent = torch.frexp(torch.where(finite, largest, 1)).exponent.clamp(-bound, bound)
    factor = torch.ldexp(torch.ones_like(largest), -exponent).unsqueeze(1)
    change, size = ((fz - z) * factor).norm(dim=1), (fz * factor).norm(dim=1)
    return torch.where(finite, change / size.clamp_min(limits.tiny), torch.nan)


def _check_start(start: Tensor) -> None:
    if not isinstance(start, Tensor):
        came = type(start).__name__
    elif start.ndim < 2 or not start.is_floating_point():
        came = f"{start.dtype} of shape {tuple(start.shape)}"
    else:
        return
    raise ValueError(f"start must be a floating-point tensor (batch, ...), got {came}")


def _other_shape(what: str, came: Tensor, wanted: Tensor) -> str:
    return (
        f"{what} must return a state for each sample, {tuple(wanted.shape)} with its entries in a "
        f"row, got {tuple(came.shape)}"
    )


def _not_finite(rows: Sequence[int], count: int, step: int, max_steps: int) -> str:
    return (
        f"iterates must stay finite, but f returned NaN or infinity at step {step} of "
        f"{max_steps} for {len(rows)} of {count} samples (first: {rows[:5]}); "
        "check the inputs and weights, or try solver='picard'"
    )
