"""Matrix products and normalisation of states, as both cells use them, and their transposes.

States are (N, B, d), or (B, d) of a single cell. Axis letters: N cells, B samples, d width,
G groups.
"""

import math

import torch
from torch import Tensor

from ..half import autocast_enabled, product
from ..maps import Pace, normal_residual

EPS = 1e-5  # that of torch's group_norm
ROUGH = torch.bfloat16
LARGE = 1 << 22  # multiplications of a product from which lower precision pays
SMALL = 1 << 24  # multiplications of a step below which asking costs as much as computing


class Product:
    """factor * x W + bias for states x, with one matrix W a cell, or the same with W^T.

    Under autocast products are computed in its dtype; all else keeps that of the state.

    Args:
        weight: (N, d, d), or (d, d) of a single cell.
        factor: a number.
        bias: (N, 1, d), (N, B, d) or, of a single cell, (d,) or (B, d); None: zero.
        transposed: whether it is W^T.
    """

    def __init__(
        self,
        weight: Tensor,
        factor: float,
        bias: Tensor | None = None,
        *,
        transposed: bool = False,
    ) -> None:
        # oneDNN leaves the memory of a product with a factor of 0 as it is
        self._weight, self._factor = (weight, factor) if factor else (weight * 0, 1.0)
        self._constant = not factor
        self.bias, self._lower = bias, _autocast_dtype(weight)
        exact = self._lower is None or self._lower == torch.float16
        self._transposed = transposed
        # (rough, transposed) -> matrix, made where it is first asked for
        matrix = self._weight if exact else self._weight.to(self._lower)
        self._matrices = {(False, False): matrix}
        self._times = torch.baddbmm if weight.ndim == 3 else torch.addmm

    def __call__(self, x: Tensor, rough: bool = False) -> Tensor:
        return self._product(x, self._matrix(rough, self._transposed), self.bias)

    def pull(self, u: Tensor, plus: Tensor | None = None, rough: bool = False) -> Tensor:
        """Returns the cotangent of x, of that of the product, and something more.

        It is of lower precision if it is rough and nothing more; what is made of it is not.
        """
        return self._product(u, self._matrix(rough, not self._transposed), plus, keep=rough)

    def gradient(self, x: Tensor, u: Tensor) -> Tensor:
        """Returns the gradient of the weight, for all states x and cotangents u of the product."""
        if self._constant:
            return torch.zeros_like(self._weight)
        a, b = (u, x) if self._transposed else (x, u)
        b = b.to(self._matrices[False, False].dtype)
        return self._product(a.mT, b, None, like=self._weight).to(self._weight.dtype)

    def _matrix(self, rough: bool, transposed: bool) -> Tensor:
        if (rough, transposed) not in self._matrices:
            if transposed:
                matrix = self._matrix(rough, False).mT
            else:
                matrix = self._weight.to(ROUGH)
            self._matrices[rough, transposed] = matrix
        return self._matrices[rough, transposed]

    def _product(
        self,
        x: Tensor,
        w: Tensor,
        bias: Tensor | None,
        *,
        like: Tensor | None = None,
        keep: bool = False,
    ) -> Tensor:
        """Returns factor * x w + bias.

        Args:
            like: a tensor of its shape, if that is not x's.
            keep: whether a product without bias may keep the precision that it was computed in.
        """
        if self._lower == torch.float16:  # states and cotangents have any scale
            result = self._factor * product(x, w)
            return result if bias is None else result + bias
        if x.dtype == w.dtype and bias is not None:
            return self._times(bias, x, w, alpha=self._factor)
        narrow = x if x.dtype == w.dtype else x.to(w.dtype)
        like = narrow if like is None else like.to(w.dtype)  # with beta=0 nothing of it counts
        result = self._times(like, narrow, w, beta=0, alpha=self._factor)
        if bias is not None:
            return result + bias  # of the bias's dtype, that of the state
        return result if keep else result.to(x.dtype)


class Norm:
    """GroupNorm over the last axis, with scale and shift (N, 1, d) or (d,)."""

    def __init__(self, groups: int, scale: Tensor, shift: Tensor) -> None:
        self.groups, self.scale, self.shift = groups, scale, shift

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the result, and mean and 1 / deviation of every group."""
        rows, width = math.prod(x.shape[:-1]), x.shape[-1]
        # the kernel goes by the number of rows, forward-mode derivatives and ONNX by the first axis
        flat = torch.is_grad_enabled() or torch.compiler.is_compiling()
        seen = x.reshape(rows, width) if flat else x
        y, mean, rstd = torch.native_group_norm(seen, None, None, rows, width, 1, self.groups, EPS)
        y = y.view(x.shape) if flat else y
        return torch.addcmul(self.shift, y, self.scale), mean, rstd


class NormAt:
    """A normalisation, without scale and shift, at an input x: products with its Jacobian.

    Cotangents come and go as groups, (R * G, d / G) for R rows: a group of a row is a row of
    LayerNorm, whose backward pass is many times faster.
    """

    def __init__(self, x: Tensor, mean: Tensor, rstd: Tensor, groups: int) -> None:
        self._width, self._shape = [x.shape[-1] // groups], x.shape
        if mean.requires_grad:  # the derivative of `pull` takes x to be all that it depends on
            mean, rstd = mean.detach(), rstd.detach()
        self._x, self._mean, self._rstd = self.grouped(x), mean.view(-1, 1), rstd.view(-1, 1)

    def grouped(self, u: Tensor) -> Tensor:
        """Returns a tensor of the shape of x as groups."""
        return u.view(-1, *self._width)

    def pull(self, u: Tensor) -> Tensor:
        """Returns the cotangent of x, of that of the normalised x; both as groups."""
        return torch.ops.aten.native_layer_norm_backward(
            u, self._x, self._width, self._mean, self._rstd, None, None, [True, False, False]
        )[0]

    def normalised(self) -> Tensor:
        """Returns the normalised x, in its shape."""
        return ((self._x - self._mean) * self._rstd).view(self._shape)


class SteppedMap:
    """The base of maps that are injected x and state `step(z, rough) -> (f(z), trace)`."""

    narrows, residual = True, staticmethod(normal_residual)
    x: Tensor
    trace: tuple[Tensor, ...]

    @property
    def pace(self) -> Pace:
        """The pace of its solves."""
        return pace(self.x)

    def __call__(self, z: Tensor) -> Tensor:
        self.trace = ()  # makes room for the next
        image, self.trace = self.step(z)
        return image

    def step(self, z: Tensor, rough: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns f(z) and the trace."""
        raise NotImplementedError

    def rough(self, z: Tensor) -> Tensor:
        return self.step(z, rough=True)[0]


def pace(z: Tensor) -> Pace:
    """Returns the pace at which solves with states like these take least time.

    At the default start, and as a rule after training, four steps are enough; of few entries a
    state's residual varies, so that some take five.
    """
    work = z.numel() * z.shape[-1]
    first, then = 1, 1
    if work < SMALL or not z.is_cpu:
        first, then = 4 if z.shape[-1] >= 256 else 5, 4
    # then lower precision would limit the solve
    plain_float = z.dtype == torch.float32 and _autocast_dtype(z) is None
    rough = 3 if plain_float and work >= LARGE and _bfloat16_pays(z) else 0
    # a contraction takes no more steps without the method's memory, and less time
    return Pace(first, then, plain=8, rough=rough)


def _bfloat16_pays(z: Tensor) -> bool:
    """Whether the processor is known to multiply matrices faster in bfloat16."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return z.is_cpu and supported()


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Returns the dtype that autocast has for products, None if it leaves them alone."""
    device = x.device.type
    if x.dtype == torch.float64 or not autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)
