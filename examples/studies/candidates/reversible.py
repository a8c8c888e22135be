"""DEQ fusion whose steps can be taken back: their exact gradient at the memory of one of them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from deq_fusion.examples.studies.candidates.depth import (
    SHALLOW,
    SOLVED,
    UNROLLED,
    Candidate,
    shaped,
)
from deq_fusion.fusions.equilibrium.checks import check_count, check_range

REVERSIBLE_STEPS, DAMPING = 8, 0.5
Step = Callable[..., Tensor]


class Reversible(Candidate):
    """DEQ fusion by a fixed number of damped steps of two coupled states (RevDEQ).

        y <- (1 - b) y + b f(z),    z <- (1 - b) z + b f(y)

    from zero, f the joint map of all states (Ni et al., 2023, equation 17). Its fixed points
    are y = z = f(z). Each step can be taken back, so that the gradient, that of the steps
    taken and not of the equilibrium, needs no more memory for more of them; no solve has to
    converge for it to be exact. The states are float64: going back divides by (1 - b) in
    every step, and so multiplies rounding.

    Source: reversible deep equilibrium models, arXiv:2509.12917.

    Args:
        input_dims: width of each modality's features.
        dim: width of the fused feature.
        steps: of both states; two evaluations of the map each, and four backward.
        damping: b, above 0 and below 1.
        options: of `DEQFusion`; those of solves and of the penalty do nothing.
    """

    def __init__(
        self,
        input_dims: Sequence[int],
        dim: int,
        *,
        steps: int = REVERSIBLE_STEPS,
        damping: float = DAMPING,
        **options: Any,
    ) -> None:
        super().__init__(input_dims, dim, **options)
        check_count("steps", steps)
        check_range("damping", damping, 0, 1, above=True)
        if damping == 1:
            raise ValueError("damping must be below 1: a step with 1 cannot be taken back, got 1")
        self.steps, self.damping = steps, damping

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to the fused one, (..., dim).

        Args:
            features: see `DEQFusion.forward`.
            present: (..., N) bool, the modalities that a sample has; others take no part.
        """
        if self.depth != SOLVED:
            return self.equilibrium(features, present)
        system = self.deq.pose(features, present)
        constants = system.constants
        (whole,) = system.maps(constants.x, constants.x_fuse, joint=True)
        zero = torch.zeros_like(whole.state)
        state = reversible(whole.f, zero, whole.inputs, steps=self.steps, damping=self.damping)
        return shaped(state[:, -1].to(self.deq.fuse.weight.dtype), features)


class ReversibleUnrolled(Reversible):
    """Its control with the map unrolled, undamped."""

    depth = UNROLLED


class ReversibleShallow(Reversible):
    """Its control without recurrence."""

    depth = SHALLOW


def reversible(
    f: Step, start: Tensor, inputs: Sequence[Tensor | None], *, steps: int, damping: float
) -> Tensor:
    """Returns z after so many steps of both states from `start`, differentiable by the inputs.

    Args:
        f: (state, *inputs) -> state, in the dtype of `start`; the same at every call.
        start: of both, (batch, ...); no gradient reaches it.
        inputs: every tensor that f depends on and that shall receive a gradient.
        steps: their number.
        damping: b, above 0 and below 1.
    """
    return _Reversible.apply(f, start, steps, damping, *inputs).to(start.dtype)


class _Reversible(torch.autograd.Function):
    """The steps forward, and back again with their gradient."""

    @staticmethod
    def forward(
        ctx: Any, f: Step, start: Tensor, steps: int, b: float, *inputs: Tensor | None
    ) -> Tensor:
        y = z = start.double()
        for _ in range(steps):
            y = (1 - b) * y + b * f(z.to(start.dtype), *inputs)
            z = (1 - b) * z + b * f(y.to(start.dtype), *inputs)
        ctx.f, ctx.steps, ctx.b, ctx.dtype = f, steps, b, start.dtype
        ctx.save_for_backward(y, z, *inputs)
        return z.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        y, z, *inputs = ctx.saved_tensors
        b, of_y, of_z = ctx.b, torch.zeros_like(g), g
        total: list[Tensor | None] = [None] * len(inputs)
        for _ in range(ctx.steps):
            image, pulled = _pulled(ctx, y, b * of_z, inputs, total)
            z, of_y, of_z = (z - b * image) / (1 - b), of_y + pulled, (1 - b) * of_z
            image, pulled = _pulled(ctx, z, b * of_y, inputs, total)
            y, of_z, of_y = (y - b * image) / (1 - b), of_z + pulled, (1 - b) * of_y
        return None, None, None, None, *total


def _pulled(
    ctx: Any,
    at: Tensor,
    u: Tensor,
    inputs: Sequence[Tensor | None],
    total: list[Tensor | None],
) -> tuple[Tensor, Tensor]:
    """Returns f and u^T df/dstate there; adds u^T df/dinputs to `total`."""
    needed = [i for i, needs in enumerate(ctx.needs_input_grad[4:]) if needs]
    with torch.enable_grad():
        at = at.to(ctx.dtype).requires_grad_()
        given = [x if x is None else x.detach() for x in inputs]
        for i in needed:
            given[i].requires_grad_()
        image = ctx.f(at, *given)
        wanted = [at, *(given[i] for i in needed)]
        pulled, *found = torch.autograd.grad(
            image, wanted, u.to(image.dtype), materialize_grads=True
        )
    for i, gradient in zip(needed, found, strict=True):
        before = total[i]
        total[i] = gradient if before is None else before + gradient
    return image.detach().double(), pulled.double()
