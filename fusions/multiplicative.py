"""Multiplicative interactions; `common_fusions` offers them under MultiBench's import path."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .modalities import as_computed, check_tensors

_PRODUCTS = {  # y with the generated weights; those of "scalar" have width 1 and broadcast
    "matrix3D": "...m,...mpq->...pq",
    "matrix": "...m,...mp->...p",
    "vector": "...m,...m->...m",
    "scalar": "...m,...m->...m",
}
Bounds = tuple[float, float]


def _generated_shapes(
    output: str, input_dims: Sequence[int], output_dim: int | Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the weights and of the bias that a sample x generates for y."""
    if output == "scalar":
        return (1,), (1,)
    if output == "vector":
        return (input_dims[1],), (input_dims[1],)
    shape = (output_dim,) if isinstance(output_dim, int) else tuple(output_dim)
    if len(shape) != (2 if output == "matrix3D" else 1):
        wanted = "[p, q]" if output == "matrix3D" else "an integer"
        raise ValueError(f"output_dim must be {wanted} for output={output!r}, got {output_dim}")
    return (input_dims[1], *shape), shape


class MultiplicativeInteractions2Modal(nn.Module):
    """An affine map of y whose weights and bias are affine maps of x.

        f(x, y) = (x W + V) y + (x U + b)

    (Jayakumar et al., 2020). For x of width n and y of width m, with the sums over n and m:

        output      W             U          V          b       result
        matrix3D    (n, m, p, q)  (n, p, q)  (m, p, q)  (p, q)  (batch, p, q)
        matrix      (n, m, d)     (n, d)     (m, d)     (d)     (batch, d)
        vector      (n, m)        (n, m)     (m)        (m)     (batch, m), y entry by entry
        scalar      (n)           (n)        (1)        (1)     (batch, m), y times a scalar

    One modality alone is returned as it is.

    Args:
        input_dims: widths n and m; "scalar" needs n only.
        output_dim: [p, q] or d; unused by "vector" and "scalar".
        output: one of the four forms.
        flatten: flatten both modalities from dimension 1 first.
        clip: bounds to which the entries of both modalities are clamped. (MultiBench's
            documentation says the parameters; its code, too, clamps the modalities.)
        grad_clip: bounds to which the gradient of every parameter is clamped, in copies and
            unpickled modules too.
        flip: take the first modality as y and the second as x; `input_dims` stays [n, m].
    """

    grad_clip: Bounds | None = None  # MultiBench's files do not have it

    def __init__(
        self,
        input_dims: Sequence[int],
        output_dim: int | Sequence[int],
        output: str,
        flatten: bool = False,
        clip: Bounds | None = None,
        grad_clip: Bounds | None = None,
        flip: bool = False,
    ) -> None:
        super().__init__()
        if output not in _PRODUCTS:
            raise ValueError(f"unknown output {output!r}; choose from {sorted(_PRODUCTS)}")
        if len(input_dims) < 2 and not (output == "scalar" and len(input_dims) == 1):
            raise ValueError(f"input_dims must be [n, m] for output={output!r}, got {input_dims}")
        self.input_dims, self.output_dim, self.output = input_dims, output_dim, output
        self.flatten, self.flip = flatten, flip
        self.clip, self.grad_clip = clip, grad_clip
        weights, bias = _generated_shapes(output, input_dims, output_dim)
        scalar = output == "scalar"
        self.W = nn.Parameter(torch.empty(input_dims[0], *(() if scalar else weights)))
        self.U = nn.Parameter(torch.empty(input_dims[0], *(() if scalar else bias)))
        self.V = nn.Parameter(torch.empty(weights))
        self.b = nn.Parameter(torch.empty(bias))
        for parameter in self.parameters():
            draw = nn.init.xavier_normal_ if parameter.ndim > 1 else nn.init.normal_
            draw(parameter)
        self._clip_gradients()

    def forward(self, modalities: Sequence[Tensor]) -> Tensor:
        """Maps [(batch, n), (batch, m)] to the result; further leading dimensions are kept."""
        modalities = check_tensors(modalities)
        if len(modalities) == 1:
            return modalities[0]
        if len(modalities) != 2:
            raise ValueError(
                "MultiplicativeInteractions2Modal takes 2 modalities (1 is returned unchanged), "
                f"got {len(modalities)}"
            )
        x, y = reversed(modalities) if self.flip else modalities
        if self.flatten:
            x, y = x.flatten(1), y.flatten(1)
        if self.clip is not None:
            x, y = x.clamp(*self.clip), y.clamp(*self.clip)
        self._check(x, y)
        x, y = (as_computed(v, self.W.dtype) for v in (x, y))
        weights = self._generate(x, self.W, self.V)
        return torch.einsum(_PRODUCTS[self.output], y, weights) + self._generate(x, self.U, self.b)

    @staticmethod
    def _generate(x: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
        """Maps x, (..., n), to (..., *shape of the offset)."""
        return torch.tensordot(x, slope.reshape(-1, *offset.shape), dims=1) + offset

    def _check(self, x: Tensor, y: Tensor) -> None:
        n = self.W.shape[0]
        m = y.shape[-1] if self.output == "scalar" else self.V.shape[0]
        if x.shape[-1] != n or y.shape[-1] != m or x.shape[:-1] != y.shape[:-1]:
            raise ValueError(
                f"the modalities must be x, (batch, {n}), and y, (batch, {m}), got "
                f"{tuple(x.shape)} and {tuple(y.shape)}; see input_dims, flip and flatten"
            )

    def _clip_gradients(self) -> None:
        if self.grad_clip is not None:
            low, high = self.grad_clip
            for parameter in self.parameters():
                parameter.register_hook(partial(torch.clamp, min=low, max=high))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._clip_gradients()  # neither a copy nor a file holds hooks


class MultiplicativeInteractions3Modal(nn.Module):
    """The interaction of two modalities, made a map of a third one.

        out[p] = sum_k z[k] a(x, y)[k, p] + b(x, y)[p]

    with `a` and `b` the forms "matrix3D" and "matrix" for two modalities. (MultiBench does so
    for task="affect" only, and otherwise mixes the samples of the batch.)

    Args:
        input_dims: widths of x, y and z.
        output_dim: width of the result.
        task: ignored; kept for MultiBench's callers.
    """

    def __init__(self, input_dims: Sequence[int], output_dim: int, task: str | None = None) -> None:
        super().__init__()
        if len(input_dims) != 3:
            raise ValueError(f"input_dims must have the widths of 3 modalities, got {input_dims}")
        pair = input_dims[:2]
        self.a = MultiplicativeInteractions2Modal(pair, [input_dims[2], output_dim], "matrix3D")
        self.b = MultiplicativeInteractions2Modal(pair, output_dim, "matrix")
        self.task = task

    def forward(self, modalities: Sequence[Tensor]) -> Tensor:
        """Maps [(batch, n), (batch, m), (batch, k)] to (batch, output_dim)."""
        modalities = check_tensors(modalities)
        if len(modalities) != 3:
            raise ValueError(
                f"MultiplicativeInteractions3Modal takes 3 modalities, got {len(modalities)}"
            )
        *pair, z = modalities
        maps = self.a(pair)
        if z.shape != maps.shape[:-1]:
            raise ValueError(
                f"the third modality must have shape {tuple(maps.shape[:-1])}, "
                f"got {tuple(z.shape)}; see input_dims"
            )
        z = as_computed(z, maps.dtype)
        return torch.einsum("...k,...kp->...p", z, maps) + self.b(pair)
