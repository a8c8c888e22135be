"""Fixed-point methods as rules: from the latest (z, f(z)), the next z to try.

A rule sees states (..., batch, size), treats every part of a sample on its own, and lives for
one solve. It may have two methods: `narrow(rows)`, which makes it forget all samples but those of
the given indices, and `recall(seen)`, which tells it of the (z, f(z)) of steps that were plain
iteration and that it was not asked for. The loop around the rules is in solve.py; a new method is
one class here and one key in `SOLVERS`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .checks import check_choice, check_count, shown

Rule = Callable[[Tensor, Tensor], Tensor]  # (z, f(z)) -> next z, all (..., batch, size)


class Picard:
    """Plain iteration, z <- f(z). Converges where f is a contraction."""

    def __call__(self, z: Tensor, fz: Tensor) -> Tensor:
        return fz

    def narrow(self, rows: Tensor) -> None:
        """Nothing is remembered."""


class Anderson:
    """Anderson acceleration, type II (Walker and Ni, 2011, algorithm AA).

    With residuals r = f(z) - z, steps to f(z) - dF gamma, where gamma minimises
    |r - dR gamma| and the columns of dF and dR are the latest differences of images and of
    residuals. This is the affine combination of the stored images whose combined residual
    is smallest, written so that columns of any scale are treated alike.

    Args:
        memory: differences kept; the method stores 2 * memory states.
        ridge: added to the unit diagonal of the normalised Gram matrix; by default 10 times
            the precision of the dtype.
    """

    def __init__(self, memory: int = 6, ridge: float | None = None) -> None:
        check_count("memory", memory)
        self.memory, self.ridge = memory, ridge
        self._last: tuple[Tensor, Tensor] | None = None
        self._residuals: list[Tensor] = []  # differences, the latest last
        self._images: list[Tensor] = []
        self._gram: Tensor | None = None  # (..., batch, kept, kept)

    def __call__(self, z: Tensor, fz: Tensor) -> Tensor:
        residual = fz - z
        self._take(residual, fz)
        if not self._residuals:
            return fz
        changes = torch.stack(self._residuals, -2).to(self._gram.dtype)
        right = changes @ residual.unsqueeze(-1).to(changes.dtype)
        gamma = self._least_squares(self._gram, right).to(fz.dtype)
        return fz - (gamma.mT @ torch.stack(self._images, -2)).squeeze(-2)

    def recall(self, seen: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Takes in the (z, f(z)) of steps that it was not asked for."""
        for z, fz in seen:
            self._take(fz - z, fz)

    def narrow(self, rows: Tensor) -> None:
        """Keeps the samples of the given indices only."""
        if self._last is None:
            return
        self._last = tuple(x.index_select(-2, rows) for x in self._last)
        self._residuals = [x.index_select(-2, rows) for x in self._residuals]
        self._images = [x.index_select(-2, rows) for x in self._images]
        if self._gram is not None:
            self._gram = self._gram.index_select(-3, rows)

    def _take(self, residual: Tensor, fz: Tensor) -> None:
        """Stores the differences to what came before, and completes the Gram matrix."""
        if self._last is not None:
            self._residuals = [*self._residuals, residual - self._last[0]][-self.memory :]
            self._images = [*self._images, fz - self._last[1]][-self.memory :]
            self._extend()
        self._last = residual, fz

    def _extend(self) -> None:
        # half precision would neither resolve the Gram matrix nor find a solver
        wide = torch.promote_types(self._residuals[0].dtype, torch.float32)
        changes = torch.stack(self._residuals, -2).to(wide)
        new = (changes @ changes[..., -1:, :].mT).squeeze(-1)  # all that is new
        kept = new.shape[-1]
        gram = new.new_empty(*new.shape, kept)
        if kept > 1:
            gram[..., :-1, :-1] = self._gram[..., 1 - kept :, 1 - kept :]
        gram[..., -1], gram[..., -1, :] = new, new
        self._gram = gram

    def _least_squares(self, gram: Tensor, right: Tensor) -> Tensor:
        """Returns the minimising gamma, (..., kept, 1), of dR^T dR and (..., kept, 1) dR^T r."""
        precision = torch.finfo(gram.dtype)
        # 1/|column|; a column of a sample at rest is zero, and gets weight zero
        scale = gram.diagonal(dim1=-2, dim2=-1).clamp_min(precision.tiny).rsqrt().unsqueeze(-1)
        gram = gram * scale * scale.mT
        ridge = 10 * precision.eps if self.ridge is None else self.ridge
        gram.diagonal(dim1=-2, dim2=-1).add_(ridge)
        gamma = torch.linalg.solve_ex(gram, right * scale)[0] * scale
        # a sample whose system has no solution in this precision takes Picard's step
        return torch.where(gamma.isfinite().all(-2, keepdim=True), gamma, 0)


class Broyden:
    """Broyden's good method with limited memory (Broyden, 1965, method 1).

    Seeks a root of g(z) = f(z) - z with an approximation H of the inverse Jacobian, from
    H = -1 (whose first step is Picard's), changed by one rank-one term a step:
    H += (dz - H dg) (dz^T H) / (dz^T H dg).

    Args:
        memory: rank-one terms kept; once full, the method restarts from H = -1.
    """

    def __init__(self, memory: int = 20) -> None:
        check_count("memory", memory)
        self.memory = memory
        self._last: tuple[Tensor, Tensor] | None = None
        self._left: list[Tensor] = []
        self._right: list[Tensor] = []

    def __call__(self, z: Tensor, fz: Tensor) -> Tensor:
        g = fz - z
        if self._last is not None:
            if len(self._left) == self.memory:
                self._left.clear(), self._right.clear()
            self._update(z - self._last[0], g - self._last[1])
        self._last = z, g
        return z - self._apply(g, self._left, self._right)

    def narrow(self, rows: Tensor) -> None:
        """Keeps the samples of the given indices only."""
        if self._last is not None:
            self._last = tuple(x.index_select(-2, rows) for x in self._last)
        self._left = [x.index_select(-2, rows) for x in self._left]
        self._right = [x.index_select(-2, rows) for x in self._right]

    def _apply(self, x: Tensor, left: list[Tensor], right: list[Tensor]) -> Tensor:
        """Returns H x; with the two lists swapped, H^T x."""
        product = -x
        for u, v in zip(left, right, strict=True):
            product = product + u * (v * x).sum(-1, keepdim=True)
        return product

    def _update(self, dz: Tensor, dg: Tensor) -> None:
        step = self._apply(dg, self._left, self._right)  # H dg
        row = self._apply(dz, self._right, self._left)  # dz^T H
        pivot = (row * dg).sum(-1, keepdim=True)
        # a vanishing pivot, as of a sample at rest, would make H infinite: no update then
        floor = torch.finfo(dz.dtype).eps * row.norm(dim=-1, keepdim=True)
        usable = pivot.abs() > floor * dg.norm(dim=-1, keepdim=True)
        self._left.append(torch.where(usable, (dz - step) / pivot, 0))
        self._right.append(torch.where(usable, row, 0))


SOLVERS: dict[str, Callable[[], Rule]] = {
    "anderson": Anderson,
    "broyden": Broyden,
    "picard": Picard,
}


def make_rule(solver: str | Callable[[], Rule]) -> Rule:
    """Returns a fresh rule: `solver` is a key of SOLVERS, or makes a rule when called."""
    if not callable(solver):
        check_choice("solver", solver, SOLVERS)
        return SOLVERS[solver]()
    rule = solver()
    if not callable(rule):
        raise ValueError(
            f"a callable solver must return a rule, (z, f(z)) -> next z, got {shown(rule)}; pass "
            "what makes one, such as functools.partial(Anderson, memory=3)"
        )
    return rule
