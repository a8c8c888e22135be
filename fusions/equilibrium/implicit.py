"""The gradient of a fixed point by the implicit function theorem.

At z = f(z, *inputs), with J = df/dz, a cotangent g of z becomes the u that solves
u = J^T u + g, and the inputs receive (df/dinputs)^T u (Bai et al., 2019, theorem 1). The
solver's steps are not recorded: memory is that of one evaluation of f.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .half import autocast_enabled
from .maps import Adjoint, FixedPointMap
from .solve import Solution
from .transforms import forbid_transforms, untraced

Make = Callable[..., FixedPointMap]  # the inputs -> the map
Solve = Callable[[FixedPointMap], Solution]


@untraced
def implicit_fixed_point(
    make: Make, inputs: Sequence[Tensor | None], *, solve: Solve, solve_adjoint: Solve
) -> Tensor:
    """Returns the fixed point of the map `make(*inputs)`, differentiable by the inputs.

    Works in training and evaluation, with and without gradients, any number of times in one
    graph and in any order of backward passes. A second derivative raises a RuntimeError.

    Args:
        make: makes the map, for example `functools.partial(AutogradMap, f, start)` but with the
            inputs one by one; called again in the backward pass, under the autocast state of the
            forward pass, so it must make the same map then.
        inputs: **every** tensor that the map depends on and that shall receive a gradient,
            parameters included; None entries are passed through.
        solve: solves the forward problem, for example
            `functools.partial(solve, solver="anderson", tol=1e-6, max_steps=40)`.
        solve_adjoint: solves the adjoint problem, likewise.
    """
    forbid_transforms()  # torch's own error would come before the solve's
    learns = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    return _ImplicitGradient.apply(make, solve, solve_adjoint, learns, *inputs)


class _ImplicitGradient(torch.autograd.Function):
    """The solve forward, and the implicit function theorem backward."""

    @staticmethod
    def forward(
        ctx: Any,
        make: Make,
        solve: Solve,
        solve_adjoint: Solve,
        learns: bool,
        *inputs: Tensor | None,
    ) -> Tensor:
        f = make(*inputs)
        solution = solve(f)
        if not learns:
            return solution.value
        ctx.make, ctx.solve = make, solve_adjoint
        ctx.autocast = autocast_state(solution.value.device.type)
        trace = f.trace if solution.latest else ()
        # not on ctx: autograd frees these after backward
        ctx.save_for_backward(solution.value, *inputs, *trace)
        ctx.count = len(inputs)
        return solution.value

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        forbid_transforms(g)
        value, *saved = ctx.saved_tensors
        inputs, trace = saved[: ctx.count], saved[ctx.count :]
        with torch.no_grad(), _autocast(ctx.autocast):
            f = ctx.make(*inputs)
            linear = f.at(value, trace)
            unit, scale = unit_cotangent(g)
            found = ctx.solve(Adjoint(linear, unit, f))
            grads = linear.gradients(found.value, scale, latest=found.latest)
        if torch.is_grad_enabled():  # create_graph=True
            grads = forbid_second_derivative(grads, (g, value, *inputs))
        return None, None, None, None, *grads


def unit_cotangent(g: Tensor) -> tuple[Tensor, Tensor]:
    """Returns g = unit * scale for which the adjoint problem can be solved safely.

    The largest entry of every part's unit is 1 (or 0, or tiny for what is denormal), so that the
    solve does not leave the range of the dtype. A cotangent that is not finite, as a gradient
    scaler sends to probe for overflow, is passed through: its unit is zero, and its scale infinite
    or NaN, so that what it is multiplied by becomes NaN.
    """
    largest = torch.linalg.vector_norm(g, torch.inf, dim=-1, keepdim=True)
    scale = largest.clamp_min(torch.finfo(g.dtype).tiny)
    return torch.nan_to_num(g / scale), scale


def _autocast(state: dict[str, Any]) -> AbstractContextManager[Any]:
    """Enters a state of autocast, unless autocast is off in it and now: entering costs time."""
    if state["enabled"] or autocast_enabled(state["device_type"]):
        return torch.autocast(**state)
    return nullcontext()


def autocast_state(device: str) -> dict[str, Any]:
    """Returns the arguments with which `torch.autocast` brings about the present state."""
    return {
        "device_type": device,
        "dtype": torch.get_autocast_dtype(device),
        "enabled": autocast_enabled(device),
    }


class _SecondDerivative(torch.autograd.Function):
    """Identity on the first `count` tensors whose backward raises."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Any) -> tuple[Tensor, ...]:
        return tuple(x.view_as(x) for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
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
