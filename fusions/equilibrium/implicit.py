"""The gradient of a fixed point by the implicit function theorem.

At z = f(z, *inputs), with J = df/dz, a cotangent g of z becomes the u that solves
u = J^T u + g, and the inputs receive (df/dinputs)^T u (Bai et al., 2019, theorem 1). The
solver's steps are not recorded: memory is that of one evaluation of f.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .features import forbid_transforms
from .half import autocast_enabled
from .solvers import Map, Solution

Solve = Callable[[Map, Tensor], Solution]  # (f, start) -> solution


def implicit_fixed_point(
    f: Callable[..., Tensor],
    start: Tensor,  # shape: (batch, ...)
    inputs: Sequence[Tensor | None],
    *,
    solve: Solve,
    solve_adjoint: Solve,
) -> tuple[Tensor, Solution]:
    """Returns the z with z = f(z, *inputs), differentiable by `inputs`, and its solution.

    Works in training and evaluation, with and without gradients, any number of times in one
    graph and in any order of backward passes. A second derivative raises a RuntimeError.

    Args:
        f: the map, `f(z, *inputs)`. It is evaluated again in the backward pass, under the
            autocast state of the forward pass, so it must be the same map then.
        start: first iterate.
        inputs: **every** tensor that f depends on and that shall receive a gradient,
            parameters included; None entries are passed through.
        solve, solve_adjoint: solve the forward and the adjoint problem, for example
            `functools.partial(find_fixed_point, tol=1e-6)`.
    """
    # detached, for autocast may otherwise keep casts of parameters that have no graph
    fixed = [x if x is None else x.detach() for x in inputs]
    with torch.no_grad():
        solution = solve(lambda z: f(z, *fixed), start)
    z = _ImplicitGradient.apply(f, solve_adjoint, solution.value, *inputs)
    return z, solution


class _ImplicitGradient(torch.autograd.Function):
    """Identity on the fixed point whose backward is the implicit function theorem's."""

    @staticmethod
    def forward(ctx: FunctionCtx, f: Callable, solve: Solve, value: Tensor, *inputs) -> Tensor:
        ctx.f, ctx.solve, ctx.autocast = f, solve, autocast_state(value.device.type)
        ctx.save_for_backward(value, *inputs)  # not on ctx: autograd frees these after backward
        return value.view_as(value)

    @staticmethod
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor | None, ...]:
        forbid_transforms(g)
        value, *inputs = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3:]
        z = value.detach().requires_grad_()
        copies = [
            x if x is None else x.detach().requires_grad_(need)
            for x, need in zip(inputs, wanted, strict=True)
        ]
        with torch.enable_grad(), torch.autocast(**ctx.autocast):
            image = ctx.f(z, *copies)  # a fresh graph, so this backward never re-enters

        def pull(u: Tensor, to: Sequence[Tensor]) -> tuple[Tensor, ...]:
            return torch.autograd.grad(image, to, u, retain_graph=True, materialize_grads=True)

        u = _solve_adjoint(lambda u: pull(u, [z])[0], g.detach(), ctx.solve)
        grads = iter(pull(u, [x for x, need in zip(copies, wanted, strict=True) if need]))
        result = [next(grads) if need else None for need in wanted]
        if torch.is_grad_enabled():  # create_graph=True
            result = forbid_second_derivative(result, (g, value, *inputs))
        return None, None, None, *result


def _solve_adjoint(vjp: Map, g: Tensor, solve: Solve) -> Tensor:
    """Returns the u of u = J^T u + g, where `vjp` is u -> J^T u."""
    unit, scale = unit_cotangent(g)
    value = solve(lambda u: vjp(u) + unit, unit).value
    return value if scale is None else torch.where(scale.isfinite(), value * scale, g)


def unit_cotangent(g: Tensor) -> tuple[Tensor, Tensor | None]:
    """Returns g = unit * scale for which the adjoint problem can be solved safely.

    Usually that is g itself, and None. If an entry of g is tiny, huge or not finite, the largest
    entry of every sample's unit is 1 (or 0), so that the solve does not leave the range of the
    dtype. A cotangent that is not finite, as a gradient scaler sends to probe for overflow, is to
    be passed through: its unit is zero, and its scale NaN.
    """
    rows = (len(g), *[1] * (g.ndim - 1))
    scale = g.flatten(1).abs().amax(1)
    limits = torch.finfo(g.dtype)
    if bool(((scale > limits.tiny**0.25) & (scale < limits.max**0.25)).all()):
        return g, None
    finite = scale.isfinite()
    scale = torch.where(scale > 0, scale, 1).view(rows)
    unit = torch.where(finite.view(rows), g / scale, 0)
    return unit, torch.where(finite.view(rows), scale, torch.nan)


def autocast_state(device: str) -> dict:
    """Returns the arguments with which `torch.autocast` brings about the present state."""
    return {
        "device_type": device,
        "dtype": torch.get_autocast_dtype(device),
        "enabled": autocast_enabled(device),
    }


class _SecondDerivative(torch.autograd.Function):
    """Identity on the first `count` tensors whose backward raises."""

    @staticmethod
    def forward(ctx: FunctionCtx, count: int, *tensors) -> tuple[Tensor, ...]:
        return tuple(x.view_as(x) for x in tensors[:count])

    @staticmethod
    def backward(ctx: FunctionCtx, *cotangents):
        raise RuntimeError(
            "the implicit gradient of a fixed point can be taken once, and its derivative was "
            "asked for; for second derivatives, differentiate through unrolled steps instead"
        )


def forbid_second_derivative(
    grads: Sequence[Tensor | None], sources: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Ties the gradients to all they depend on, by a node that raises when differentiated."""
    given = [x for x in grads if x is not None]
    guarded = iter(_SecondDerivative.apply(len(given), *given, *sources))
    return [None if x is None else next(guarded) for x in grads]
