"""The evaluations of a solve between two questions, and the samples that have left it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .maps import relative_residual


@dataclass(frozen=True)
class Window:
    """The evaluations between two questions whether all have converged: k states, the last `z`.

    Attributes:
        first: step of the first state.
        last: step of the last state.
        states: (k, ..., batch, size), the last one before parts were put back to where they
            converged; empty for k = 1.
        table: (k - 1, ..., batch) residuals of all but the last; None for k = 1.
        index: (..., batch) which of all states converged first, or the last; None for k = 1.
        z: the last state.
        image: f of the last state.
        residual: its relative residual.
        failed: how many parts have not converged.
    """

    first: int
    last: int
    states: Sequence[Tensor] | Tensor
    table: Tensor | None
    index: Tensor | None
    z: Tensor
    image: Tensor
    residual: Tensor
    failed: int

    def end(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the last state, its residual, and the step of its convergence, or the last."""
        if self.index is None:
            return (
                self.z,
                self.residual,
                torch.full_like(self.residual, self.last, dtype=torch.long),
            )
        return self.z, self.residual, self.index + self.first

    def best(self, tol: float) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the first state of each part within `tol`, or that of smallest residual; steps.

        Steps of what has not converged are all.
        """
        z, residual, steps = self.end()
        if self.table is None:
            return z, residual, steps
        table = self._whole_table()
        assert isinstance(self.states, Tensor)
        # of equal values `min` takes the first
        index = table.nan_to_num(nan=torch.inf, posinf=torch.inf).clamp_min(tol).min(0).indices
        return picked(self.states, index), _of(table, index), steps

    def not_finite(self, done: Tensor | None) -> tuple[int, Tensor] | None:
        """Returns the first step whose image is not finite, and of which samples; None if all are.

        Parts that are done do not count.
        """
        bad = relative_residual(self.z, self.image).isnan()
        bad = bad if done is None else bad & ~done
        if not bool(bad.any()):
            return None
        bad = ~self._whole_table().isfinite() & bad.unsqueeze(0)
        step = int(bad.flatten(1).any(1).nonzero()[0])
        bad = bad[step]
        return self.first + step, bad.flatten(0, -2).any(0) if bad.ndim > 1 else bad

    def one_by_one(self) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Yields step, state and residual, and which parts had converged before."""
        if self.table is None:
            yield (
                self.last,
                self.z,
                self.residual,
                torch.zeros_like(self.residual, dtype=torch.bool),
            )
            return
        assert self.index is not None
        table = self._whole_table()
        for i, (z, residual) in enumerate(zip(self.states, table, strict=True)):
            over = self.index < i
            z = torch.where(over.unsqueeze(-1), self.z, z)
            yield self.first + i, z, torch.where(over, _of(table, self.index), residual), over

    def _whole_table(self) -> Tensor:
        last = self.residual.unsqueeze(0)
        return last if self.table is None else torch.cat([self.table, last])


def picked(states: Tensor, index: Tensor) -> Tensor:
    """Returns states[index], (..., batch, size), of states (k, ..., batch, size)."""
    index = index.unsqueeze(-1).expand(states.shape[1:])
    return states.gather(0, index.unsqueeze(0)).squeeze(0)


def _of(table: Tensor, index: Tensor) -> Tensor:
    """Returns table[index], of the shape of the index, for a table (k, ...)."""
    return table.gather(0, index.unsqueeze(0)).squeeze(0)


class Left:
    """The states of all samples, kept while only some stay at work.

    Args:
        rows: indices, among those at work so far, of those that stay.
        parts: what those at work so far have; the first is (..., batch, size), others (..., batch).
        before: what was kept when others left.
    """

    _rows: Tensor

    def __init__(self, rows: Tensor, parts: Sequence[Tensor], before: "Left | None") -> None:
        self._kept = tuple(parts) if before is None else before.whole(parts)
        self._rows = rows if before is None else before._rows[rows]

    def original(self, rows: Tensor) -> tuple[Tensor, int]:
        """Returns the indices among all samples of those at work, and the number of all."""
        return self._rows[rows], self._kept[1].shape[-1]

    def whole(self, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns all samples: what those at work have, and what was kept of the others."""
        return tuple(
            kept.index_copy(-2 if i == 0 else -1, self._rows, part)
            for i, (kept, part) in enumerate(zip(self._kept, parts, strict=False))
        )
