"""Half precision without leaving its range on the way.

Every norm of a map may multiply a cotangent by 300, so that in float16, which ends at 65,504,
what is handed back can be infinite although features, result and true gradient are all in range.
So what is of half precision is computed with in float32 (`wide`); and under autocast to float16,
where products alone are half, their operands are brought to unit size first (`product`).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns float32 for half precision, any other dtype as it is."""
    return torch.float32 if dtype.itemsize < 4 else dtype


def wide(x: Tensor) -> Tensor:
    """Returns a tensor in the dtype of its computations, see `wide_dtype`."""
    return x.to(wide_dtype(x.dtype))


def autocast_enabled(device: str) -> bool:
    """Whether autocast is on for a type of device; there are some that it does not know."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


# Under autocast the products run in half precision, and everything else in the state's.


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns x W^T + bias, (..., n) in the dtype of x (..., k), for a weight (n, k)."""
    if not _narrowed(x):
        return F.linear(x, weight, bias).to(x.dtype)
    result = product(x.flatten(0, -2), weight.mT).view(*x.shape[:-1], len(weight))
    return result if bias is None else result + bias


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Returns x W + bias, (N, r, n) in the dtype of x (N, r, k), for weights (N, k, n)."""
    if not _narrowed(x):
        return torch.baddbmm(bias, x, weight).to(x.dtype)
    return product(x, weight) + bias


def _narrowed(x: Tensor) -> bool:
    device = x.device.type
    if x.dtype != torch.float32 or not autocast_enabled(device):
        return False
    return torch.get_autocast_dtype(device) == torch.float16


def product(a: Tensor, b: Tensor) -> Tensor:
    """Returns a b, (..., r, n) of float32, multiplied in float16, for a (..., r, k), b (..., k, n).

    The rows of a and the matrices of b may have any scale, and so may cotangents of any order.
    """
    return _Product.apply(a, b)


class _Product(torch.autograd.Function):
    """The product, whose gradients are such products again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        a, of_rows = unit_rows(a)
        b, of_matrix = _unit(b, (-2, -1))
        # in two steps: both powers at once may leave the range
        return (a.half() @ b.half()).float() * of_rows * of_matrix

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        of_a, of_b = ctx.needs_input_grad
        return product(g, b.mT) if of_a else None, product(a.mT, g) if of_b else None


def unit_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns rows (..., d) over powers of two near their largest entries, and these powers.

    A row is scaled by its own, so that it does not depend on the others.
    """
    return _unit(x, (-1,))


def _unit(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    if not x.numel():
        return x, x.new_ones(())
    largest = x.abs().amax(dims, keepdim=True)
    bounds = 2.0**-126, 2.0**126
    power = largest.clamp(*bounds).log2().ceil().clamp(-126, 126).exp2()
    return x / power, power
