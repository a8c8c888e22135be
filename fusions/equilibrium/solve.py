"""The one loop around the fixed-point methods, and what it reports.

States are tensors (..., batch, size), see maps.py. The loop owns all that the methods share: the
residual, the best iterate, stopping, and the check that iterates stay finite. All of it is
decided on the state's device, part by part; the host asks how that went only now and then, and
how seldom it asks changes no result. Samples never influence each other; what has converged is
left alone, and leaves the work where it is the greater part of it.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import check_count, check_not_negative
from .half import autocast_enabled
from .maps import FixedPointMap, Function, relative_residual
from .rules import Rule, make_rule
from .transforms import forbid_transforms

Map = Callable[[Tensor], Tensor]  # (batch, ...) -> (batch, ...)
Observer = Callable[[int, Tensor, Tensor], None]  # (step from 1, state, residual)

# Converged samples leave once they have cost so many evaluations of all, and are the greater
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
        value: (..., batch, size) the first iterate within the tolerance of each part, or, where
            none is, that of smallest residual.
        residual: (..., batch) |f(z) - z| / |f(z)| at `value`.
        converged: (..., batch) bool, residual <= tol.
        steps: (..., batch) int, evaluations of f until the part converged, or all of them.
        failed: how many parts did not converge.
        latest: whether f was last evaluated at `value`, for every sample.
    """

    value: Tensor
    residual: Tensor
    converged: Tensor
    steps: Tensor
    failed: int = 0
    latest: bool = False


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
        FloatingPointError: if f returns a value that is not finite (an `IterateError`).
        RuntimeError: inside a transform of torch.func, which cannot follow.
    """
    _check_start(start)
    if observe is not None:
        observe = _shaped(observe, start.shape)
    limits = {"tol": tol, "max_steps": max_steps, "ask_every": ask_every}
    found = solve(Function(f, start), solver=solver, **limits, observe=observe)
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
    """Finds the fixed point of a map from its own start; arguments: `find_fixed_point`."""
    check_limits(tol, max_steps)
    if ask_every is not None:
        check_count("ask_every", ask_every)
    forbid_transforms()
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
        self.f, self.rule, self.max_steps, self.observe = f, rule, max_steps, observe
        self.z = f.start()
        self.tol, pace = _within_reach(tol, self.z.dtype), f.pace
        self.first, self.then = (pace.first, pace.then) if ask_every is None else [ask_every] * 2
        self.plain = pace.plain if hasattr(rule, "recall") else 0
        # nearer than to lower precision rough steps do not come
        self.rough = max(0, min(pace.rough, max_steps - 2)) if tol > 1e-6 else 0
        self.narrows = f.narrows and hasattr(rule, "narrow")
        self.notes: list[tuple[Tensor, Tensor]] = []  # (z, f(z)) of plain steps
        self.rough_steps: list[tuple[int, Tensor, Tensor]] = []  # what is to be shown of them
        # of each part at the last question: the best iterate, and whether it has converged
        self.best = self.residual = self.steps = self.done = None
        self.left = Left(self.z.shape[-2])
        self.wasted = 0.0

    def run(self) -> Solution:
        step, ask = 0, max(self.first, self.rough + 1)
        while True:
            seen = self._walk(step + 1, min(step + ask, self.max_steps))
            step, ask = seen.step, self.then
            if self.observe is not None and not seen.not_finite():
                self._show(seen)
            if not seen.failed:
                steps = seen.steps()
                if self.done is not None:
                    steps = torch.where(self.done, self.steps, steps)
                    seen.residual = torch.where(self.done, self.residual, seen.residual)
                return self._solution(seen.z, seen.residual, steps, seen.over, 0)
            self._settle(seen)
            if step == self.max_steps:
                return self._solution(self.best, self.residual, self.steps, self.done, seen.failed)
            self._go_on(self._following(step, seen.image), seen.failed)

    def _solution(
        self, value: Tensor, residual: Tensor, steps: Tensor, converged: Tensor, failed: int
    ) -> Solution:
        if self.left.some:
            value, residual, steps = self.left.whole((value, residual, steps))
            converged = residual <= self.tol
        latest = not failed and not self.left.some
        return Solution(value, residual, converged, steps, failed, latest)

    def _walk(self, first: int, last: int) -> "_Seen":
        """Takes the steps `first` to `last`, and asks how many parts have not converged then.

        Before the last step every part is put back to where it converged, if it has: the last
        evaluation is that of what the solve returns.
        """
        states, images, table, index = [], [], None, None
        for step in range(first, last):
            image = self._evaluate(step)
            if step <= self.rough:  # decides nothing
                if self.observe is not None:
                    self.rough_steps.append((step, self.z, self.f.residual(self.z, image)))
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
            self.z = _picked(states, index)
        image = self._evaluate(last)
        residual = self.f.residual(self.z, image)
        over = self._over(residual)
        failed = residual.numel() - int(over.sum())
        return _Seen(first, last, states, table, index, self.z, image, residual, over, failed)

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
            self.notes.append((self.z, image))
            return image
        device = image.device.type
        narrowed = autocast_enabled(device)  # the method keeps full precision
        with torch.autocast(device, enabled=False) if narrowed else nullcontext():
            if self.notes:
                self.rule.recall(self.notes)
                self.notes = []
            following = self.rule(self.z, image)
        if following.shape != self.z.shape:
            raise ValueError(_other_shape("the solver's rule", following, self.z))
        return following

    def _settle(self, seen: "_Seen") -> None:
        """Brings the best iterate of every part up to date."""
        if seen.not_finite(self.done):
            step, bad = seen.where_not_finite()
            bad = bad.flatten(0, -2).any(0) if bad.ndim > 1 else bad
            rows = self.left.original(bad.nonzero().squeeze(1)).tolist()
            message = _not_finite(rows, self.left.total, step, self.max_steps)
            raise IterateError(message, step)
        value, residual, steps = seen.best(self.tol)
        if self.done is None:
            self.best, self.residual, self.steps = value, residual, steps
        else:
            better = ~self.done & (residual < self.residual)
            self.best = torch.where(better.unsqueeze(-1), value, self.best)
            self.residual = torch.where(better, residual, self.residual)
            self.steps = torch.where(self.done, self.steps, steps)
        self.done = self.residual <= self.tol

    def _go_on(self, following: Tensor, failed: int) -> None:
        """Leaves alone what has converged, or goes on without it."""
        parts = self.residual.numel()
        if failed == parts:
            self.z = following
            return
        self.wasted += self.then * (parts - failed) / parts
        if self.narrows and self.wasted > PATIENCE and 2 * failed < parts:
            gone = self.done.flatten(0, -2).all(0) if self.done.ndim > 1 else self.done
            rows = (~gone).nonzero().squeeze(1)
            if 2 * len(rows) < len(gone):
                following = self._narrowed(rows, following)
        self.z = torch.where(self.done.unsqueeze(-1), self.best, following)

    def _narrowed(self, rows: Tensor, following: Tensor) -> Tensor:
        """Goes on with the samples of the given indices, and returns their next iterates."""
        self.wasted = 0.0
        self.left.put(rows, (self.best, self.residual, self.steps))
        self.best = self.best.index_select(-2, rows)
        self.residual = self.residual.index_select(-1, rows)
        self.steps = self.steps.index_select(-1, rows)
        self.done = self.done.index_select(-1, rows)
        self.notes = [tuple(x.index_select(-2, rows) for x in pair) for pair in self.notes]
        self.f.narrow(rows)
        self.rule.narrow(rows)
        return following.index_select(-2, rows)

    def _show(self, seen: "_Seen") -> None:
        """Shows what was seen to who observes: what has converged stays as it was."""
        for step in self.rough_steps:
            self.observe(*step)
        self.rough_steps = []
        for step, z, residual, over in seen.steps_one_by_one():
            if self.done is not None:
                residual = torch.where(self.done, self.residual, residual)
                over = over | self.done
            if bool(over.all()):
                return
            self.observe(step, *self.left.whole((z, residual)))


@dataclass
class _Seen:
    """What a walk from one question to the next has seen; k states, of them the last is `z`."""

    first: int  # step of the first state
    step: int  # that of the last
    states: Sequence[Tensor] | Tensor  # (k, ..., batch, size), the last before parts are put back
    table: Tensor | None  # (k - 1, ..., batch) residuals of all but the last
    index: Tensor | None  # (..., batch) which of them converged first, or the last of all
    z: Tensor
    image: Tensor
    residual: Tensor
    over: Tensor  # (..., batch) bool, which have converged
    failed: int  # how many have not

    def steps(self) -> Tensor:
        """Returns the step at which each part converged, or the last."""
        if self.index is None:
            return torch.full_like(self.residual, self.step, dtype=torch.long)
        return self.index + self.first

    def whole_table(self) -> Tensor:
        """Returns the residuals of all states, (k, ..., batch)."""
        last = self.residual.unsqueeze(0)
        return last if self.table is None else torch.cat([self.table, last])

    def best(self, tol: float) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the first state of each part within `tol`, or the best, its residual, steps."""
        if self.table is None:
            return self.z, self.residual, self.steps()
        table = self.whole_table()
        # of equal values `min` takes the first
        index = table.nan_to_num(nan=torch.inf, posinf=torch.inf).clamp_min(tol).min(0).indices
        residual = table.gather(0, index.unsqueeze(0)).squeeze(0)
        return _picked(self.states, index), residual, self.steps()

    def not_finite(self, done: Tensor | None = None) -> bool:
        """Whether the last residual of a part that is not done is not a number."""
        if not self.failed:
            return False
        bad = relative_residual(self.z, self.image).isnan()
        return bool((bad if done is None else bad & ~done).any())

    def where_not_finite(self) -> tuple[int, Tensor]:
        """Returns the first step whose image is not finite, and of which parts it is not."""
        bad = ~self.whole_table().isfinite()
        first = int(bad.flatten(1).any(1).nonzero()[0])
        return self.first + first, bad[first]

    def steps_one_by_one(self) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Yields step, state, residual, and which parts had converged before."""
        over = torch.zeros_like(self.residual, dtype=torch.bool)
        if self.table is not None:
            table = self.whole_table()
            residual = table.gather(0, self.index.unsqueeze(0)).squeeze(0)
            for i in range(len(self.table)):
                over = self.index < i
                z = torch.where(over.unsqueeze(-1), self.z, self.states[i])
                yield self.first + i, z, torch.where(over, residual, table[i]), over
            over = self.index < len(self.table)
        yield self.step, self.z, self.residual, over


def _picked(states: Tensor, index: Tensor) -> Tensor:
    """Returns states[index], (..., batch, size), of states (k, ..., batch, size)."""
    index = index.unsqueeze(-1).expand(states.shape[1:]).unsqueeze(0)
    return states.gather(0, index).squeeze(0)


class Left:
    """Tensors with a value a sample, of which only some samples are still at work."""

    def __init__(self, total: int) -> None:
        self.total, self.some = total, False
        self._kept: tuple[Tensor, ...] = ()
        self._rows: Tensor | None = None

    def put(self, rows: Tensor, parts: Sequence[Tensor]) -> None:
        """Keeps what all have; those of the given indices among the present stay at work.

        The first of the parts is (..., batch, size), the others are (..., batch).
        """
        self._kept = self.whole(parts)
        self._rows, self.some = self.original(rows), True

    def original(self, rows: Tensor) -> Tensor:
        """Returns the indices among all samples of those at the given ones among the present."""
        return rows if self._rows is None else self._rows[rows]

    def whole(self, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns all samples: what the present ones have, and what was kept of the others."""
        if not self.some:
            return tuple(parts)
        return tuple(
            kept.index_copy(-2 if i == 0 else -1, self._rows, part)
            for i, (kept, part) in enumerate(zip(self._kept, parts, strict=False))
        )


def _within_reach(tol: float, dtype: torch.dtype) -> float:
    """Returns the tolerance, or what states of half precision can resolve if that is larger."""
    least = torch.finfo(dtype).eps
    if dtype.itemsize > 2 or tol >= least:
        return tol
    warnings.warn(
        f"states of {dtype} resolve {least:.1e} of their size, and tol={tol:g} is raised to that; "
        "solve in a wider dtype for less",
        UserWarning,
        5,
    )
    return least


def handle_failure(solution: Solution, *, policy: str, what: str, tol: float) -> None:
    """Warns of, raises for, or ignores the parts that did not converge.

    Args:
        policy: "warn" (a `ConvergenceWarning`), "raise" (a `ConvergenceError`) or "ignore".
        what: names the solve in the message.
        tol: the tolerance that was asked for.
    """
    failed, count = solution.failed, solution.residual.numel()
    if policy == "ignore" or not failed:
        return
    advice = "raise max_steps or tol, or regularise the map (Jacobian penalty)"
    if policy == "raise":
        raise ConvergenceError(
            f"{what}: every sample must reach tol={tol:g}, but {failed} of {count} did not (worst "
            f"residual {float(solution.residual.max()):.1e}); {advice}"
        )
    # Python shows a text once a place: with the number rounded down to a power of two, training
    # is not told of every step
    some = (
        f"{failed} of {count}"
        if failed == count
        else f"{2 ** (failed.bit_length() - 1)} or more of {count}"
    )
    warnings.warn(
        f"{what}: {some} samples did not reach tol={tol:g}; {advice}", ConvergenceWarning, 3
    )


def check_limits(tol: float, max_steps: int, prefix: str = "") -> None:
    """Raises ValueError unless tol is finite and >= 0, and max_steps an integer >= 1."""
    check_not_negative(f"{prefix}tol", tol)
    check_count(f"{prefix}max_steps", max_steps)


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
