"""The arithmetic of the kernels: matrix products, normalisation, and their transposes.

States are rows, (R, d): those of the first cell, then those of the second, and so on; `sizes`
says how many each cell has. Axis letters: R rows, d width, N cells, G groups.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .half import product, unit_rows

Sizes = Sequence[int]
Constants = Sequence[Tensor | None]  # (R, ...) each
Trace = Sequence[Tensor]  # (R, ...) each
EPS = 1e-5  # that of torch's group_norm


class Weights:
    """One matrix W for each cell, (N, d, d), whose products carry a factor.

    Args:
        matrix: the matrices W, or with `transposed` W^T; `times` multiplies rows from the left.
        factor: number by which every product is multiplied.
        precision: dtype in which products are computed; None: that of the matrix.
        transposed: see `matrix`.
    """

    def __init__(
        self,
        matrix: Tensor,
        factor: float,
        precision: torch.dtype | None,
        transposed: bool = False,
    ) -> None:
        self.matrix = matrix if precision is None else matrix.to(precision)
        self.factor, self.transposed = factor, transposed

    def times(self, x: Tensor, sizes: Sizes, bias: Tensor | None = None) -> Tensor:
        """Returns factor * x W + bias, (R, d), of x (R, d) and bias (N, 1, d)."""
        return self._products(x, sizes, self.matrix.mT if self.transposed else self.matrix, bias)

    def pull(self, u: Tensor, sizes: Sizes) -> Tensor:
        """Returns factor * u W^T, (R, d), of u (R, d)."""
        matrix = self.matrix if self.transposed else self.matrix.mT
        if self.matrix.dtype != torch.float16:
            return self._products(u, sizes, matrix, None)
        u, power = unit_rows(u)  # cotangents have any scale
        return self._products(u, sizes, matrix, None) * power

    def gradient(self, x: Tensor, u: Tensor) -> Tensor:
        """Returns the gradient of `matrix`, for all rows x and cotangents u of `times`."""
        x, u = (t.view(len(self.matrix), -1, t.shape[1]) for t in (x, u))
        pair = (u.mT, x) if self.transposed else (x.mT, u)
        if self.matrix.dtype == torch.float16:
            return self.factor * product(*pair)
        return self._product(*pair).to(x.dtype)

    def _products(self, x: Tensor, sizes: Sizes, matrix: Tensor, bias: Tensor | None) -> Tensor:
        parts = []
        for (rows,), (w, *b) in by_cell(sizes, [x], [matrix] if bias is None else [matrix, bias]):
            product = self._product(_rounded_up(rows, w.dtype), w, *b)
            parts.append(product[:, : rows.shape[1]].to(x.dtype).flatten(0, 1))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _product(self, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.factor == 0:  # oneDNN would leave the memory of the product as it is
            zero = a.new_zeros(len(a), a.shape[1], b.shape[2], dtype=self.matrix.dtype)
            return zero if bias is None else zero + bias.to(zero.dtype)
        start = a[:, :1, :1] if bias is None else bias  # the former counts nothing
        a, b, start = (t.to(self.matrix.dtype) for t in (a, b, start))
        beta = 0 if bias is None else 1
        return torch.baddbmm(start, a, b, beta=beta, alpha=self.factor)


class Norm:
    """GroupNorm over the last axis of rows, without its affine part."""

    def __init__(self, groups: int) -> None:
        self.groups = groups

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the normalised rows (R, d), and mean and 1 / deviation, (R, G) each."""
        rows, width = x.shape
        return torch.native_group_norm(x, None, None, rows, width, 1, self.groups, EPS)

    def affine(
        self, x: Tensor, scale: Tensor, shift: Tensor, sizes: Sizes
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the same, with the scale and shift (N, 1, d) of each cell applied."""
        y, mean, rstd = self(x)
        return affine_(y, scale, shift, sizes), mean, rstd

    def pull(self, u: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
        """Returns the cotangent of x, (R, d), of the cotangent u of the normalised rows."""
        shape = (len(x), self.groups, x.shape[1] // self.groups)
        # a group of a row is a row of LayerNorm, whose backward pass is many times faster
        return torch.ops.aten.native_layer_norm_backward(
            u.view(shape),
            x.view(shape),
            shape[2:],
            mean.unsqueeze(2),
            rstd.unsqueeze(2),
            None,
            None,
            [True, False, False],
        )[0].view(x.shape)


def relu_pull(u: Tensor, image: Tensor) -> Tensor:
    """Returns the cotangent before a ReLU, of the one after it and the ReLU's result."""
    return torch.ops.aten.threshold_backward(u, image, 0)


def relu_pull_(u: Tensor, image: Tensor) -> Tensor:
    """Computes `relu_pull` in place of u."""
    return torch.ops.aten.threshold_backward.grad_input(u, image, 0, grad_input=u)


def affine_(x: Tensor, scale: Tensor, shift: Tensor, sizes: Sizes) -> Tensor:
    """Computes scale x + shift in place of x (R, d), with those (N, 1, d) of each cell."""
    for (rows,), (factor, term) in by_cell(sizes, [x], [scale, shift]):
        torch.addcmul(term, rows, factor, out=rows)
    return x


def scaled(x: Tensor, scale: Tensor, sizes: Sizes) -> Tensor:
    """Returns scale x, (R, d), with the scale (N, 1, d) of each cell."""
    result = torch.empty_like(x)
    for (rows, out), (factor,) in by_cell(sizes, [x, result], [scale]):
        torch.mul(rows, factor, out=out)
    return result


def scaled_(x: Tensor, scale: Tensor, sizes: Sizes) -> Tensor:
    """Computes `scaled` in place of x."""
    for (rows,), (factor,) in by_cell(sizes, [x], [scale]):
        rows.mul_(factor)
    return x


def repeated(x: Tensor, sizes: Sizes) -> Tensor:
    """Returns a row of each cell, (N, d), as rows (R, d)."""
    return torch.cat([row.expand(size, -1) for row, size in zip(x.split(1), sizes, strict=True)])


def summed(x: Tensor, n: int) -> Tensor:
    """Returns the sums over the rows of n cells that have the same number, (N, 1, d)."""
    return x.view(n, -1, x.shape[1]).sum(1, keepdim=True)


def by_cell(
    sizes: Sizes, rows: Sequence[Tensor], of_cells: Sequence[Tensor]
) -> Iterator[tuple[Sequence[Tensor], Sequence[Tensor]]]:
    """Yields views of rows (R, d) as (n, r, d), with the tensors (n, ...) of the n cells.

    That is all at once where all cells have the same number of rows, else one cell after another,
    without those that have none.
    """
    if len(set(sizes)) == 1:
        yield [x.view(len(sizes), -1, x.shape[1]) for x in rows], of_cells
        return
    parts = zip(*(x.split(list(sizes)) for x in rows), strict=True)
    for i, part in enumerate(parts):
        if sizes[i]:
            yield [x.unsqueeze(0) for x in part], [t[i : i + 1] for t in of_cells]


def _rounded_up(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns rows (n, r, d) in another dtype, with some more at the end that mean nothing.

    For bfloat16 oneDNN makes code for every number of rows that it meets, and keeps it, while
    narrowing makes many such numbers; so they come from a short list.
    """
    rows = x.shape[1]
    step = max(16, 2 ** (rows.bit_length() - 4))  # at most an eighth more
    size = -(-rows // step) * step
    if dtype == x.dtype or size == rows or not x.is_cpu:
        return x.to(dtype)
    padded = x.new_zeros(len(x), size, x.shape[2], dtype=dtype)
    padded[:, :rows] = x
    return padded
