"""Fixed-point methods as rules: from the latest (z, f(z)), the next z to try.

A rule sees states as rows, (batch, size), treats every row on its own, and lives for one
solve. It may have a method `narrow(rows)`, which makes it forget all rows but those of the
given indices. The loop around the rules is `find_fixed_point` in solvers.py; a new method is
one class here and one key in `SOLVERS`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .checks import check_choice, check_count, shown

Rule = Callable[[Tensor, Tensor], Tensor]  # (z, f(z)) -> next z, all (batch, size)


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
        self._count = 0
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, z: Tensor, fz: Tensor) -> Tensor:
        if self._last is None:
            self._last = fz - z, fz
            self._residuals = fz.new_empty(self.memory, *fz.shape)
            self._images = torch.empty_like(self._residuals)
            wide = torch.promote_types(fz.dtype, torch.float32)
            self._gram = fz.new_empty(len(fz), self.memory, self.memory, dtype=wide)
            return fz
        slot = self._count % self.memory  # the oldest difference makes room
        residual = self._last[0]
        change = torch.sub(fz, z, out=self._residuals[slot]).sub_(residual)
        torch.sub(fz, self._last[1], out=self._images[slot])
        self._last = torch.sub(fz, z, out=residual), fz
        self._count += 1
        kept = min(self._count, self.memory)
        # half precision would neither resolve the Gram matrix nor find a solver
        columns = self._residuals[:kept].permute(1, 2, 0).to(self._gram.dtype)
        products = _rows_times(change, columns)  # all that is new in the Gram matrix
        self._gram[:, slot, :kept] = products
        self._gram[:, :kept, slot] = products
        gram, right = self._gram[:, :kept, :kept], _rows_times(residual, columns)
        gamma = self._least_squares(gram, right).to(fz.dtype)
        images = self._images[:kept].transpose(0, 1)
        return torch.baddbmm(fz.unsqueeze(1), gamma.mT, images, alpha=-1).squeeze(1)

    def narrow(self, rows: Tensor) -> None:
        """Keeps the rows of the given indices only."""
        if self._last is None:
            return
        self._last = tuple(x[rows] for x in self._last)
        self._gram = self._gram[rows]
        self._residuals = self._selected(self._residuals, rows)
        self._images = self._selected(self._images, rows)

    def _selected(self, slots: Tensor, rows: Tensor) -> Tensor:
        """Returns the slots with those rows only."""
        selected = slots.new_empty(self.memory, len(rows), slots.shape[2])
        used = min(self._count, self.memory)
        torch.index_select(slots[:used], 1, rows, out=selected[:used])
        return selected

    def _least_squares(self, gram: Tensor, right: Tensor) -> Tensor:
        """Returns the minimising gamma, (batch, kept, 1), of dR^T dR and dR^T r."""
        precision = torch.finfo(gram.dtype)
        # 1/|column|; a column of a sample at rest is zero, and gets weight zero
        scale = gram.diagonal(dim1=1, dim2=2).clamp_min(precision.tiny).rsqrt().unsqueeze(2)
        gram = gram * scale * scale.mT
        ridge = 10 * precision.eps if self.ridge is None else self.ridge
        gram.diagonal(dim1=1, dim2=2).add_(ridge)
        gamma = torch.linalg.solve_ex(gram, right.unsqueeze(2) * scale)[0] * scale
        # a sample whose system has no solution in this precision takes Picard's step
        return torch.where(gamma.isfinite().all(1, keepdim=True), gamma, 0)


def _rows_times(x: Tensor, columns: Tensor) -> Tensor:
    """Returns x^T c of every row x (batch, size) and its columns c (batch, size, count)."""
    return torch.bmm(x.to(columns.dtype).unsqueeze(1), columns).squeeze(1)


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
        """Keeps the rows of the given indices only."""
        if self._last is not None:
            self._last = tuple(x[rows] for x in self._last)
        self._left = [x[rows] for x in self._left]
        self._right = [x[rows] for x in self._right]

    def _apply(self, x: Tensor, left: list[Tensor], right: list[Tensor]) -> Tensor:
        """Returns H x; with the two lists swapped, H^T x."""
        product = -x
        for u, v in zip(left, right, strict=True):
            product = product + u * (v * x).sum(1, keepdim=True)
        return product

    def _update(self, dz: Tensor, dg: Tensor) -> None:
        step = self._apply(dg, self._left, self._right)  # H dg
        row = self._apply(dz, self._right, self._left)  # dz^T H
        pivot = (row * dg).sum(1, keepdim=True)
        # a vanishing pivot, as of a sample at rest, would make H infinite: no update then
        floor = torch.finfo(dz.dtype).eps * row.norm(dim=1, keepdim=True)
        usable = pivot.abs() > floor * dg.norm(dim=1, keepdim=True)
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
