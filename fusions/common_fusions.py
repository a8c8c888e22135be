"""MultiBench's simple fusions, under its names and signatures.

Parameters are drawn in MultiBench's order, so a seed gives the same ones, and state_dicts
cross in both directions, `LowRankTensorFusion`'s excepted. Dropout is off in evaluation.
"""

from collections.abc import Iterable, Sequence
from functools import partial, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .modalities import as_computed, check_tensors, finite


class Concat(nn.Module):
    """Flattens every modality from dimension 1 and concatenates them on it."""

    def forward(self, modalities: Iterable[Tensor]) -> Tensor:
        """Maps tensors (batch, ...) to (batch, sum of their flattened sizes)."""
        return torch.cat([x.flatten(1) for x in check_tensors(modalities)], dim=1)


class ConcatEarly(nn.Module):
    """Concatenates sequences of equal length step by step."""

    def forward(self, modalities: Iterable[Tensor]) -> Tensor:
        """Maps tensors (batch, time, d_i) to (batch, time, sum of the d_i)."""
        modalities = check_tensors(modalities)
        if any(x.ndim != 3 or x.shape[:2] != modalities[0].shape[:2] for x in modalities):
            raise ValueError(
                "modalities must be (batch, time, width) with one batch and time for all, got "
                f"shapes {[tuple(x.shape) for x in modalities]}; pad or align them first"
            )
        return torch.cat(modalities, dim=2)


class Stack(nn.Module):
    """Flattens every modality from dimension 1 and stacks them on a new last dimension."""

    def forward(self, modalities: Iterable[Tensor]) -> Tensor:
        """Maps M tensors (batch, ...) of equal flattened size D to (batch, D, M)."""
        return torch.stack([x.flatten(1) for x in check_tensors(modalities)], dim=2)


class ConcatWithLinear(nn.Module):
    """Concatenates modalities, without flattening, and applies a linear layer.

    Args:
        input_dim: width of the last dimension of the concatenation.
        output_dim: width of the last dimension of the result.
        concat_dim: dimension on which the modalities are concatenated. That of time, where it
            is not the last, joins the sequences end to end.
    """

    def __init__(self, input_dim: int, output_dim: int, concat_dim: int = 1) -> None:
        super().__init__()
        self.fc = nn.Linear(input_dim, output_dim)
        self.concat_dim = concat_dim

    def forward(self, modalities: Iterable[Tensor]) -> Tensor:
        """Maps tensors that differ in `concat_dim` only to (..., output_dim)."""
        return self.fc(torch.cat(check_tensors(modalities), dim=self.concat_dim))


class FiLM(nn.Module):
    """Scales and shifts one modality by maps of others, gamma(x_g) * x + beta(x_b).

    Feature-wise linear modulation (Perez et al., 2018, equation 2), of MultiBench's older tree.

    Args:
        gamma_generation_network: x_g to the scale, which has the shape of x or broadcasts.
        beta_generation_network: x_b to the shift, likewise.
        base_modal: index of the modality x.
        gamma_generate_modal: index of the modality x_g.
        beta_generate_modal: index of the modality x_b.
    """

    def __init__(
        self,
        gamma_generation_network: nn.Module,
        beta_generation_network: nn.Module,
        base_modal: int = 0,
        gamma_generate_modal: int = 1,
        beta_generate_modal: int = 1,
    ) -> None:
        super().__init__()
        self.g_net, self.b_net = gamma_generation_network, beta_generation_network
        self.base_modal = base_modal
        self.ggen_modal, self.bgen_modal = gamma_generate_modal, beta_generate_modal

    def forward(self, modalities: Sequence[Tensor]) -> Tensor:
        """Maps the modalities to a tensor of the shape of the base modality."""
        modalities = check_tensors(modalities)
        indices = (self.base_modal, self.ggen_modal, self.bgen_modal)
        if len(modalities) <= max(indices):
            raise ValueError(
                f"FiLM reads the modalities {indices}, got {len(modalities)} of them; "
                "pass them all, or construct it with other indices"
            )
        base, gamma_source, beta_source = (modalities[index] for index in indices)
        return self.g_net(gamma_source) * base + self.b_net(beta_source)


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


def _with_one(x: Tensor) -> Tensor:
    """Prepends a 1 to every row, (..., d) -> (..., d + 1)."""
    return F.pad(x, (1, 0), value=1.0)


class TensorFusion(nn.Module):
    """The outer product of the rows [1, x_1], ..., [1, x_M] (Zadeh et al., 2017).

    It holds the product of every subset of the modalities, flattened with the first modality's
    index slowest. One modality alone is returned as it is.
    """

    def forward(self, modalities: Sequence[Tensor]) -> Tensor:
        """Maps tensors (..., d_i) to (..., product of the d_i + 1)."""
        modalities = check_tensors(modalities)
        if not modalities:
            raise ValueError("TensorFusion takes at least one modality, got none")
        if len(modalities) == 1:
            return modalities[0]
        if len({x.shape[:-1] for x in modalities}) > 1:
            raise ValueError(
                "modalities must have the same leading dimensions, "
                f"got shapes {[tuple(x.shape) for x in modalities]}; flatten or pool them first"
            )
        return reduce(
            lambda fused, x: (fused.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2),
            map(_with_one, modalities),
        )


class LowRankTensorFusion(nn.Module):
    """A linear map of the outer product of the [1, x_m], by factors of low rank.

        out = sum_r w_r prod_m ([1, x_m] F_m[r]) + bias

    (Liu et al., 2018), without forming the product. (MultiBench keeps the factors F_m in a list
    that no optimiser sees; here they are parameters, and are trained.)

    Args:
        input_dims: width of each modality, after flattening.
        output_dim: width of the result.
        rank: number of terms of the sum.
        flatten: flatten every modality from dimension 1 first; otherwise leading dimensions
            are kept.
    """

    def __init__(
        self, input_dims: Sequence[int], output_dim: int, rank: int, flatten: bool = True
    ) -> None:
        super().__init__()
        self.input_dims, self.output_dim, self.rank = input_dims, output_dim, rank
        self.flatten = flatten
        self.factors = nn.ParameterList(
            nn.init.xavier_normal_(torch.empty(rank, width + 1, output_dim)) for width in input_dims
        )
        self.fusion_weights = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, rank)))
        self.fusion_bias = nn.Parameter(torch.zeros(1, output_dim))

    def forward(self, modalities: Sequence[Tensor]) -> Tensor:
        """Maps a tensor (batch, ...) or, unflattened, (..., d_m) each to (..., output_dim)."""
        features = check_tensors(modalities, like=self.fusion_bias)
        features = [x.flatten(1) for x in features] if self.flatten else features
        if [x.shape[-1] for x in features] != list(self.input_dims):
            raise ValueError(
                f"modalities must have the widths {list(self.input_dims)}, "
                f"got shapes {[tuple(x.shape) for x in features]}; see input_dims and flatten"
            )
        terms = (
            torch.einsum("...i,rio->...ro", _with_one(x), factor)
            for x, factor in zip(features, self.factors, strict=True)
        )
        weighed = torch.einsum("...ro,r->...o", reduce(torch.mul, terms), self.fusion_weights[0])
        return finite(weighed + self.fusion_bias[0])


class NLgate(nn.Module):
    """One modality plus what its positions attend to in another.

    The non-local block (Wang et al., 2018) with a softmax of dot products, as Wang, Tran and
    Feiszli (2020) fuse with it:

        y = q + softmax(q k) v,

    q from the first modality, viewed as (batch, thw_dim, c_dim), k and v from the second,
    viewed as (batch, c_dim, tf_dim) and (batch, tf_dim, c_dim), and the softmax over tf_dim.
    The views keep the order of the entries: nothing is transposed, and without linear layers
    the batch is whatever the views leave.

    Args:
        thw_dim: positions of the first modality.
        c_dim: width of a position.
        tf_dim: positions of the second modality.
        q_linear: (in, out) of a linear layer on the first modality; None for none.
        k_linear: that of the layer to the keys.
        v_linear: that of the layer to the values.
    """

    def __init__(
        self,
        thw_dim: int,
        c_dim: int,
        tf_dim: int,
        q_linear: tuple[int, int] | None = None,
        k_linear: tuple[int, int] | None = None,
        v_linear: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.thw_dim, self.c_dim, self.tf_dim = thw_dim, c_dim, tf_dim
        self.qli = None if q_linear is None else nn.Linear(*q_linear)
        self.kli = None if k_linear is None else nn.Linear(*k_linear)
        self.vli = None if v_linear is None else nn.Linear(*v_linear)

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """Maps two tensors, of any shape that the views fit, to (batch, thw_dim * c_dim)."""
        x = check_tensors(x)
        if len(x) != 2:
            raise ValueError(f"NLgate takes 2 modalities, query and key, got {len(x)}")
        q = self._view("q", self.qli, x[0], self.thw_dim, self.c_dim)
        k = self._view("k", self.kli, x[1], self.c_dim, self.tf_dim)
        v = self._view("v", self.vli, x[1], self.tf_dim, self.c_dim)
        if not len(q) == len(k) == len(v):
            raise ValueError(
                "the views of q, k and v must have one batch size, "
                f"got {len(q)}, {len(k)} and {len(v)}; see thw_dim, c_dim and tf_dim"
            )
        return (q + (q @ k).softmax(dim=2) @ v).flatten(1)

    @staticmethod
    def _view(role: str, linear: nn.Linear | None, x: Tensor, rows: int, columns: int) -> Tensor:
        x = x if linear is None else linear(x)
        if x.numel() % (rows * columns):
            raise ValueError(
                f"the entries of {role} must fill matrices {rows} x {columns}, "
                f"got shape {tuple(x.shape)}; choose other dimensions or a {role}_linear"
            )
        return x.reshape(-1, rows, columns)


_HEADS, _LAYERS = 3, 3  # MultiBench's


def _encoder(embed_dim: int) -> nn.TransformerEncoder:
    """Three post-norm layers that attend in both directions, (time, batch, embed_dim)."""
    layer = nn.TransformerEncoderLayer(embed_dim, nhead=_HEADS)
    return nn.TransformerEncoder(layer, num_layers=_LAYERS, enable_nested_tensor=False)


class EarlyFusionTransformer(nn.Module):
    """A transformer over fused sequences, such as `Stack`'s, that ends in one number.

    It has no positional encoding: the order of the steps before the last is not seen.

    Args:
        n_features: width of a step.
    """

    embed_dim = 9

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_features, self.embed_dim, kernel_size=1, bias=False)
        self.transformer = _encoder(self.embed_dim)
        self.linear = nn.Linear(self.embed_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps one tensor (batch, time, n_features) to (batch, 1)."""
        if x.ndim != 3:
            raise ValueError(
                "EarlyFusionTransformer takes a tensor (batch, time, n_features), "
                f"got shape {tuple(x.shape)}"
            )
        steps = self.conv(x.transpose(1, 2)).permute(2, 0, 1)  # (time, batch, embed_dim)
        return self.linear(self.transformer(steps)[-1])


class LateFusionTransformer(nn.Module):
    """A transformer over one modality's entries, each a step, for fusion afterwards.

    Args:
        embed_dim: width of the result, a multiple of 3, the number of heads.
    """

    def __init__(self, embed_dim: int = 9) -> None:
        super().__init__()
        if embed_dim % _HEADS:
            raise ValueError(f"embed_dim must be a multiple of {_HEADS}, got {embed_dim}")
        self.embed_dim = embed_dim
        self.conv = nn.Conv1d(1, embed_dim, kernel_size=1, bias=False)
        self.transformer = _encoder(embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps one tensor (batch, ...) to (batch, embed_dim)."""
        steps = self.conv(x.reshape(len(x), 1, -1)).permute(2, 0, 1)  # (time, batch, embed_dim)
        return self.transformer(steps)[-1]
