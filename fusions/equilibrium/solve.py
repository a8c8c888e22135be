"""The one loop around the fixed-point methods, and what it reports.

States are tensors (..., batch, size), see maps.py. The loop owns all that the methods share: the
residual, the best iterate, stopping, and the check that iterates stay finite. All of it is
decided on the state's device, part by part; the host asks how that went only now and then, and
how seldom it asks changes no result. Samples never influence each other; what has converged is
left alone, and leaves the work where it is the greater part of it.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from .checks import check_count, check_not_negative, optional
from .half import autocast_enabled
from .maps import FixedPointMap, Function
from .rules import Rule, make_rule
from .transforms import forbid_transforms, untraced
from .window import Left, Window, picked

Map = Callable[[Tensor], Tensor]  # (batch, ...) -> (batch, ...)
Observer = Callable[[int, Tensor, Tensor], None]  # (step from 1, state, residual)

# Converged samples leave once they have cost so many evaluations of all, and are the greater
# part: what is kept of them, and the rest apart, then take no more memory than there was.
PATIENCE = 0.5


@dataclass(frozen=True)
class Solution:
    """Where a solve ended.

    Attributes:
        value: (..., batch, size) the first iterate within the tolerance of each part, or, where
            none is, that of smallest residual.
        residual: (..., batch) |f(z) - z| / |f(z)| at `value`.
        steps: (..., batch) int, evaluations of f until the part converged, or all of them.
        converged: (..., batch) bool, residual <= tol.
        failed: how many parts did not converge.
        latest: whether f was last evaluated at `value`, for every sample.
    """

    value: Tensor
    residual: Tensor
    steps: Tensor
    converged: Tensor
    failed: int = 0
    latest: bool = False


@untraced
def find_fixed_point(
    f: Map,
    start: Tensor,  # shape: (batch, ...)
    *,
    solver: str | Callable[[], Rule] = "anderson",
    tol: float = 1e-3,
    max_steps: int = 40,
    ask_every: int | None = None,
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
        tol: bound on the relative residual; of half precision at least its resolution, which
            a smaller one is raised to, with a warning.
        max_steps: bound on the evaluations of f.
        ask_every: steps between the questions whether all have converged, each of which waits
            for the device. None: every step on a CPU, every fourth or fifth elsewhere. The
            result is the same.
        observe: called for every evaluation with the step (from 1), the iterate and its
            residual, in order, once it is known that they count.

    Returns:
        The solution, its value in the shape of `start`.

    Raises:
        ValueError: for settings or a start that make no sense, or images of another shape.
        FloatingPointError: if f returns a value that is not finite.
        RuntimeError: inside a transform of torch.func, which cannot follow.
    """
    _check_start(start)
    check_not_negative("tol", tol)
    check_count("max_steps", max_steps)
    optional(check_count)("ask_every", ask_every)
    forbid_transforms()
    if observe is not None:
        observe = _shaped(observe, start.shape)
    limits: dict[str, Any] = {"tol": tol, "max_steps": max_steps, "ask_every": ask_every}
    function = cast(FixedPointMap, Function(f, start))  # it lacks derivatives, and needs none
    found = solve(function, solver=solver, **limits, observe=observe)
    return Solution(found.value.view(start.shape), *list(vars(found).values())[1:])


def _shaped(observe: Observer, shape: Sequence[int]) -> Observer:
    return lambda step, state, residual: observe(step, state.view(shape), residual)


def solve(
    f: FixedPointMap,
    *,
    solver: str | Callable[[], Rule],
    tol: float,
    max_steps: int,
    ask_every: int | None = None,
    observe: Observer | None = None,
) -> Solution:
    """Finds the fixed point of a map from its own start; settings: `find_fixed_point`."""
    with torch.no_grad():
        return _Solve(f, make_rule(solver), tol, max_steps, ask_every, observe).run()


class _Solve:
    """One solve at work."""

    def __init__(
        self,
        f: FixedPointMap,
        rule: Rule,
        tol: float,
        max_steps: int,
        ask_every: int | None,
        observe: Observer | None,
    ) -> None:
        self.rule: Any = rule  # it may have methods `narrow` and `recall`
        self.f, self.max_steps, self.observe = f, max_steps, observe
        self.z = f.start()
        half, pace = self.z.dtype.itemsize < 4, f.pace
        self.tol = _within_reach(tol, self.z.dtype) if half else tol
        self.first, self.then = (pace.first, pace.then) if ask_every is None else [ask_every] * 2
        self.plain = pace.plain if hasattr(rule, "recall") else 0
        # rough steps come no nearer to the fixed point than their precision
        self.rough = max(0, min(pace.rough, max_steps - 2)) if tol > 1e-6 else 0
        self.narrows = f.narrows and hasattr(rule, "narrow")
        self.noted: tuple[Tensor, ...] | None = None  # (z, f(z)) of the last plain step
        self.rough_steps: list[tuple[int, Tensor, Tensor]] = []  # (step, z, f(z))
        # of each part at the last question: the best iterate, its residual, the steps so far, and
        # whether it has converged
        self.best: tuple[Tensor, Tensor, Tensor]
        self.done: Tensor | None = None
        self.left: Left | None = None  # of what has left
        self.wasted = 0.0

    def run(self) -> Solution:
        step, ask = 0, max(self.first, self.rough + 1)
        while True:
            window = self._walk(step + 1, min(step + ask, self.max_steps))
            step, ask = window.last, self.then
            if window.failed:
                self._check_finite(window)
            if self.observe is not None:
                self._show(window)
            self._settle(*(window.best(self.tol) if window.failed else window.end()))
            if not window.failed or step == self.max_steps:
                break
            following, failed = self._following(step, window.image), window.failed
            del window  # makes room for the next
            self._go_on(following, failed)
        if self.left is None:
            assert self.done is not None
            return Solution(*self.best, self.done, window.failed, latest=not window.failed)
        value, residual, steps = self.left.whole(self.best)
        return Solution(value, residual, steps, residual <= self.tol, window.failed)

    def _walk(self, first: int, last: int) -> Window:
        """Takes the steps `first` to `last`, and asks how many parts have not converged then.

        Before the last step every part is put back to where it converged, if it has: the last
        evaluation is that of what the solve returns.
        """
        states: Any = []  # of tensors, then one of them all
        images: list[Tensor] = []
        table = index = None
        for step in range(first, last):
            image = self._evaluate(step)
            if step <= self.rough:  # its residual decides nothing
                if self.observe is not None:
                    self.rough_steps.append((step, self.z, image))
                self.z, first = image, step + 1
                continue
            states.append(self.z)
            images.append(image)
            self.z = self._following(step, image)
        if states:
            plain = all(a is b for a, b in zip(images, [*states[1:], self.z], strict=True))
            states = torch.stack([*states, self.z])
            table = self.f.residual(states[:-1], states[1:] if plain else torch.stack(images))
            index = len(table) - self._over(table).cummax(0).values.sum(0)
            self.z = picked(states, index)
        image = self._evaluate(last)
        residual = self.f.residual(self.z, image)
        failed = residual.numel() - int(self._over(residual).sum())
        return Window(first, last, states, table, index, self.z, image, residual, failed)

    def _over(self, residual: Tensor) -> Tensor:
        over = residual <= self.tol
        return over if self.done is None else over | self.done

    def _evaluate(self, step: int) -> Tensor:
        image = self.f.rough(self.z) if step <= self.rough else self.f(self.z)
        if image.shape != self.z.shape:
            raise ValueError(_other_shape("f", image, self.z))
        return image

    def _following(self, step: int, image: Tensor) -> Tensor:
        """Returns the next iterate: by the rule, once its plain steps are done."""
        if step <= self.plain:
            self.noted = self.z, image  # of the last, for the first may be rough or not
            return image
        device = image.device.type
        narrowed = autocast_enabled(device)  # the method keeps full precision
        with torch.autocast(device, enabled=False) if narrowed else nullcontext():
            if self.noted is not None:
                self.rule.recall(*self.noted)
                self.noted = None
            following = self.rule(self.z, image)
        if following.shape != self.z.shape:
            raise ValueError(_other_shape("the solver's rule", following, self.z))
        return following

    def _check_finite(self, window: Window) -> None:
        found = window.not_finite(self.done)
        if found is not None:
            step, bad = found
            rows = bad.nonzero().squeeze(1)
            rows, total = (rows, len(bad)) if self.left is None else self.left.original(rows)
            samples = rows.tolist()
            raise FloatingPointError(
                f"iterates must stay finite, but f returned NaN or infinity at step {step} of "
                f"{self.max_steps} for {len(samples)} of {total} samples (first: "
                f"{samples[:5]}); check the inputs and weights, or try solver='picard'"
            )

    def _settle(self, value: Tensor, residual: Tensor, steps: Tensor) -> None:
        """Brings the best iterate of every part up to date."""
        if self.done is not None:
            best, least, before = self.best
            better = ~self.done & (residual < least)
            value = torch.where(better.unsqueeze(-1), value, best)
            residual = torch.where(better, residual, least)
            steps = torch.where(self.done, before, steps)
        self.best, self.done = (value, residual, steps), residual <= self.tol

    def _go_on(self, following: Tensor, failed: int) -> None:
        """Leaves alone what has converged, or goes on without it."""
        assert self.done is not None
        parts = self.done.numel()
        self.wasted += self.then * (parts - failed) / parts
        if self.narrows and self.wasted > PATIENCE and 2 * failed < parts:
            gone = self.done.flatten(0, -2).all(0) if self.done.ndim > 1 else self.done
            rows = (~gone).nonzero().squeeze(1)
            if 2 * len(rows) < len(gone):
                following = self._narrowed(rows, following)
        self.z = following
        if failed < parts:
            self.z = torch.where(self.done.unsqueeze(-1), self.best[0], following)

    def _narrowed(self, rows: Tensor, following: Tensor) -> Tensor:
        """Goes on with the samples of the given indices, and returns their next iterates."""
        assert self.done is not None
        self.wasted = 0.0
        self.left = Left(rows, self.best, self.left)
        value, residual, steps = (
            x.index_select(dim, rows) for x, dim in zip(self.best, (-2, -1, -1), strict=True)
        )
        self.best = value, residual, steps
        self.done = self.done.index_select(-1, rows)
        if self.noted is not None:
            self.noted = tuple(x.index_select(-2, rows) for x in self.noted)
        self.f.narrow(rows)
        self.rule.narrow(rows)
        return following.index_select(-2, rows)

    def _show(self, window: Window) -> None:
        """Passes the evaluations on to `observe`; what has converged stays as it was."""
        assert self.observe is not None
        for step, z, image in self.rough_steps:
            self.observe(step, z, self.f.residual(z, image))
        self.rough_steps = []
        for step, z, residual, over in window.one_by_one():
            if self.done is not None:
                residual, over = torch.where(self.done, self.best[1], residual), over | self.done
            if bool(over.all()):
                return
            both = z, residual
            self.observe(step, *(both if self.left is None else self.left.whole(both)))


def _within_reach(tol: float, dtype: torch.dtype) -> float:
    """Returns the tolerance, or what states of half precision resolve, if that is larger."""
    least = torch.finfo(dtype).eps
    if tol >= least:
        return tol
    warnings.warn(
        f"states of {dtype} resolve {least:.1e} of their size, and tol={tol:g} is raised to that; "
        "solve in a wider dtype for less",
        UserWarning,
        6,
    )
    return least


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
