"""The equations of deep equilibrium fusion, written a second time for the tests.

One modality and one line at a time, after the paper's (8) to (12) and the description of the
released variants. Nothing is batched over modalities, computed ahead or solved block by block;
fixed points come from plain iteration and gradients from a dense linear system.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deq_fusion.fusions import deq
from deq_fusion.fusions.deq import DEQFusion

DIM, GROUPS = 16, 2  # GroupNorm of 2 channels is a sign function; these groups have 8
WIDTHS = (16, 5, 16, 7, 20)
EXACT = {"tol": 1e-13, "max_steps": 400}  # solves to the precision of float64


@dataclass(frozen=True)
class Equations:
    """What tells the variants apart."""

    scale_free: bool = False  # injections are divided by their root mean square
    one_layer: bool = False  # f_i of the release for CMU-MOSI
    residual: bool = False  # f_i adds its state before its last ReLU
    relu_last: bool = False  # f_fuse = ReLU(GN()), not GN(ReLU())
    one_fuse_group: bool = False
    weights: bool = True  # w_i in x_fuse
    bias: bool = False  # a scalar in x_fuse


PRESETS = {
    "paper": Equations(),
    "released": Equations(residual=True, bias=True),
    "released_brca": Equations(residual=True, weights=False),
    "released_imdb": Equations(residual=True, bias=True, relu_last=True),
    "released_mosi": Equations(one_layer=True, bias=True, one_fuse_group=True),
}
VARIANTS = {
    "default": Equations(scale_free=True),
    **PRESETS,
    **{
        f"{name} scale_free": replace(PRESETS[name], scale_free=True)
        for name in ("released_imdb", "released_mosi")  # all fields between them
    },
}


def make(variant: str, widths: Sequence[int], **options) -> tuple[DEQFusion, "Reference"]:
    """Builds a variant in float64, every parameter moved away from its start, as a contraction."""
    options = {"groups": GROUPS, "start": 0.03, **options}
    equations, preset = VARIANTS[variant], variant.split()[0]
    if preset == "default":
        fusion = DEQFusion(widths, DIM, **arguments(**options))
    else:
        options["injection"] = "scale_free" if equations.scale_free else "raw"
        options = arguments(preset, **options)
        fusion = DEQFusion.from_preset(preset, widths, DIM, **options)
    with torch.no_grad():
        for parameter in fusion.parameters():
            spread = parameter.std(unbiased=False).item() or 1.0
            parameter += 0.2 * spread * torch.randn_like(parameter)
        if equations.residual and fusion.unimodal is not None:
            # a state as large as what is injected feeds itself, and has several equilibria
            fusion.unimodal.norm_weight[-1] *= 0.3
    fusion.double()
    return fusion, Reference(fusion, equations)


def arguments(equations: str = "scale_free", /, **options) -> dict[str, Any]:
    """Returns arguments of DEQFusion; options that are fields of equations change the named."""
    names = {field.name for field in fields(deq.Equations)}
    changes = {name: options.pop(name) for name in names & options.keys()}
    return {"equations": deq.Equations.like(equations, **changes), **options}


def make_features(widths: Sequence[int], batch: int = 2, dtype=torch.float64) -> list[Tensor]:
    return [torch.randn(batch, width, dtype=dtype, requires_grad=True) for width in widths]


@contextmanager
def recorded_masks() -> Iterator[list[Tensor]]:
    """Yields a list that receives the dropout masks drawn inside: gates', fused update's."""
    masks, draw = [], F.dropout

    def record(*args, **kwargs):
        masks.append(draw(*args, **kwargs))
        return masks[-1]

    with mock.patch("torch.nn.functional.dropout", record):
        yield masks


class Reference:
    """The equations with the parameters of `fusion`.

    `features[i]` is None where a modality is absent. `masks` are the dropout masks of the
    gates, (N, B, d), and of the fused update, (B, d). States are (B, N + 1, d), fused last.
    """

    def __init__(self, fusion: DEQFusion, equations: Equations) -> None:
        self.fusion, self.equations, self.n = fusion, equations, len(fusion.input_dims)
        assert (fusion.weights is not None) == (equations.weights and fusion.fuse is not None)
        assert (fusion.bias is not None) == (equations.bias and fusion.fuse is not None)

    def norm(self, x: Tensor, weight: Tensor, bias: Tensor, groups: int = GROUPS) -> Tensor:
        parameters = {"weight": weight.flatten(), "bias": bias.flatten()}
        return torch.func.functional_call(nn.GroupNorm(groups, DIM).to(x), parameters, (x,))

    def scaled(self, x: Tensor) -> Tensor:
        return x / x.square().mean(1, keepdim=True).sqrt() if self.equations.scale_free else x

    def projected(self, features: Sequence[Tensor | None]) -> list[Tensor | None]:
        """y_i = P_i x_i; the raw injection takes x_i as it is where the widths match."""
        pairs = zip(self.fusion.projections, features, strict=True)
        return [x if x is None or isinstance(p, nn.Identity) else x @ p.weight.T for p, x in pairs]

    def x_fuse(self, y: Sequence[Tensor | None]) -> Tensor:
        """Equation 12, and the release's scalar bias."""
        w = self.fusion.weights if self.equations.weights else torch.ones(self.n)
        x = sum(w[i] * y_i for i, y_i in enumerate(y) if y_i is not None)
        return self.scaled(x + self.fusion.bias if self.equations.bias else x)

    def f_i(self, i: int, z: Tensor, x: Tensor) -> Tensor:
        """Equation 8 or the release's, of one modality; without f_theta its injection."""
        if self.fusion.unimodal is None:
            return x
        tensors = [t[i] for t in self.fusion.unimodal.tensors()[:4]]
        w1, b1, w2, b2 = tensors[0].T, tensors[1][0], tensors[2].T, tensors[3][0]
        scales, shifts = self.fusion.unimodal.tensors()[4:]
        affine = [(scale[i], shift[i]) for scale, shift in zip(scales, shifts, strict=True)]
        assert len(affine) == (1 if self.equations.one_layer else 3)
        if self.equations.one_layer:
            return F.relu(F.linear(self.norm(F.linear(z, w1, b1) + x, *affine[0]), w2, b2))
        hidden = F.relu(self.norm(F.linear(z, w1, b1), *affine[0]))
        inner = self.norm(F.linear(hidden, w2, b2) + x, *affine[1])
        return self.norm(F.relu(inner + z if self.equations.residual else inner), *affine[2])

    def alpha(self, z: Tensor, z_i: Tensor) -> Tensor:
        """Equation 9."""
        weight, bias = self.fusion.fuse.tensors()[:2]
        return F.linear(z + z_i, weight, bias)

    def f_fuse(self, z: Tensor, states: Sequence[Tensor], x_fuse: Tensor, masks=None) -> Tensor:
        """Equations 9 to 11, of the modalities that are present."""
        gate, _, weight, bias, scale, shift = self.fusion.fuse.tensors()
        purified = torch.zeros_like(z)
        for i, z_i in enumerate(states):
            if z_i is not None and gate is None:
                purified = purified + z_i
            elif z_i is not None:
                alpha = self.alpha(z, z_i)
                purified = purified + (alpha if masks is None else alpha * masks[0][i]) * z
        update = F.linear(purified, weight, bias)
        update = (update if masks is None else update * masks[-1]) + x_fuse
        groups = 1 if self.equations.one_fuse_group else GROUPS
        if self.equations.relu_last:
            return F.relu(self.norm(update, scale, shift, groups))
        return self.norm(F.relu(update), scale, shift, groups)

    def step(self, state: Tensor, features, masks=None, *, inject_states: bool = False) -> Tensor:
        """Everything once; f_fuse sees the new z_i, as (9) has it."""
        y = self.projected(features)
        new = [
            None if x is None else self.f_i(i, state[:, i], self.scaled(x)) for i, x in enumerate(y)
        ]
        if self.fusion.fuse is not None:
            x_fuse = self.x_fuse(new if inject_states else y)
            fused = self.f_fuse(state[:, -1], new, x_fuse, masks)
        else:
            fused = sum(z_i for z_i in new if z_i is not None)
        zero = torch.zeros_like(fused)
        return torch.stack([*(zero if z_i is None else z_i for z_i in new), fused], 1)

    def start(self, features) -> Tensor:
        batch = next(len(x) for x in features if x is not None)
        return torch.zeros(batch, self.n + 1, DIM, dtype=torch.float64)

    def unrolled(self, steps: int, features, masks=None, *, inject_states: bool = False) -> Tensor:
        state = self.start(features)
        for _ in range(steps):
            state = self.step(state, features, masks, inject_states=inject_states)
        return state[:, -1]

    @torch.no_grad()
    def fixed_point(self, features, masks=None) -> Tensor:
        """The equilibrium, by plain iteration from zero."""
        state = self.start(features)
        for _ in range(1000):
            last, state = state, self.step(state, features, masks)
            if (state - last).norm() <= 1e-15 * state.norm():
                return state
        assert (state - last).norm() <= 1e-14 * state.norm(), "the test's map must contract"
        return state

    def jacobian(self, state: Tensor, features, masks=None) -> Tensor:
        """The dense Jacobian of the step, over all entries of all samples."""
        return torch.autograd.functional.jacobian(
            lambda s: self.step(s.view_as(state), features, masks).flatten(), state.flatten()
        )

    def dense_gradients(self, state: Tensor, features, cotangent: Tensor, masks=None):
        """Gradients of <cotangent, fused>: (I - J)^T u = g, then u's pull-back by the step."""
        g = torch.zeros_like(state)
        g[:, -1] = cotangent
        matrix = torch.eye(state.numel()).to(state) - self.jacobian(state, features, masks)
        u = torch.linalg.solve(matrix.T, g.flatten()).view_as(state)
        return gradients(self.step(state, features, masks), self.fusion, features, u)


def gradients(
    output: Tensor, fusion: DEQFusion, features: Sequence[Tensor], cotangent: Tensor
) -> dict[str, Tensor]:
    """The gradients of every feature and parameter, by name."""
    leaves = {f"features[{i}]": x for i, x in enumerate(features)}
    leaves |= dict(fusion.named_parameters())
    grads = torch.autograd.grad(output, list(leaves.values()), cotangent, retain_graph=True)
    return dict(zip(leaves, grads, strict=True))
