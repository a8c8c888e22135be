"""Fixed-point methods as rules: from the latest (z, f(z)), the next z to try.

A rule sees states (..., batch, size), treats every part of a sample on its own, and lives for
one solve. It may have two methods: `narrow(rows)`, which makes it forget all samples but those of
the given indices, and `recall(z, fz)`, which tells it of a step that was plain iteration and that
it was not asked for. The loop around the rules is in solve.py; a new method is
one class here and one key in `SOLVERS`.
"""

from collections.abc import Callable

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

    _residuals: Tensor  # (..., memory, size)
    _images: Tensor
    _gram: Tensor  # (..., memory, memory)

    def __init__(self, memory: int = 6, ridge: float | None = None) -> None:
        check_count("memory", memory)
        self.memory, self.ridge = memory, ridge
        self._taken = 0  # differences, of which the oldest make room
        self._last: tuple[Tensor, ...] | None = None  # residual, image

    def __call__(self, z: Tensor, fz: Tensor) -> Tensor:
        right = self._take(z, fz)
        if right is None:
            return fz
        gamma = self._least_squares(self._gram, right).to(fz.dtype)
        return fz - (gamma.mT @ self._images).squeeze(-2)

    def recall(self, z: Tensor, fz: Tensor) -> None:
        """Takes in a step that it was not asked for."""
        self._take(z, fz)

    def narrow(self, rows: Tensor) -> None:
        """Keeps the samples of the given indices only."""
        if self._last is None:
            return
        self._last = tuple(x.index_select(-2, rows) for x in self._last)
        self._residuals, self._images, self._gram = (
            x.index_select(-3, rows) for x in (self._residuals, self._images, self._gram)
        )

    def _take(self, z: Tensor, fz: Tensor) -> Tensor | None:
        """Stores the differences to what came before, and returns dR^T r, (..., memory, 1)."""
        residual, last = fz - z, self._last
        self._last = residual, fz
        if last is None:
            *leading, size = fz.shape
            # half precision would neither resolve the Gram matrix nor find a solver
            wide = torch.promote_types(fz.dtype, torch.float32)
            self._residuals = fz.new_zeros(*leading, self.memory, size, dtype=wide)
            self._images = fz.new_zeros(*leading, self.memory, size)
            # as of unit columns: those that are not there yet get weight zero, with any ridge
            unit = torch.eye(self.memory, dtype=wide, device=fz.device)
            self._gram = unit.repeat(*leading, 1, 1)
            return None
        slot = self._taken % self.memory
        self._taken += 1
        change = self._residuals.select(-2, slot)
        torch.sub(residual, last[0], out=change)
        torch.sub(fz, last[1], out=self._images.select(-2, slot))
        new = (self._residuals @ change.unsqueeze(-1)).squeeze(-1)
        self._gram[..., slot, :], self._gram[..., :, slot] = new, new
        return self._residuals @ residual.unsqueeze(-1).to(change.dtype)

    def _least_squares(self, gram: Tensor, right: Tensor) -> Tensor:
        """Returns the minimising gamma, (..., memory, 1), of dR^T dR and dR^T r."""
        precision = torch.finfo(gram.dtype)
        # 1/|column|; one that is zero, of a sample at rest, gets weight zero
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
        self._last: tuple[Tensor, ...] | None = None  # z, f(z) - z
        self._left: list[Tensor] = []
        self._right: list[Tensor] = []

    def __call__(self, z: Tensor, fz: Tensor) -> Tensor:
        g = fz - z
        if self._last is not None:
            if len(self._left) == self.memory:
                self._left.clear()
                self._right.clear()
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
