"""The fast engine: fixed points of kernels and their implicit gradients.

The fixed points and gradients of implicit.py, to the solver's tolerance, with less work:

- the solve starts at the image of zero, which costs no product of a batch with a matrix;
- what the last evaluation worked out serves the backward pass, and what the last product of
  the adjoint solve worked out serves the gradients of the parameters;
- samples that have converged leave the work;
- where the processor multiplies matrices faster in bfloat16, a solve approaches the fixed
  point so, and the steps that decide on convergence have full precision.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .features import forbid_transforms
from .implicit import autocast_state, forbid_second_derivative, unit_cotangent
from .products import Sizes
from .solvers import Map, Rows, Solution

Solve = Callable[[Map, Tensor, "Traced | None"], Solution]  # (f, start, rough f or None)


class Traced:
    """A map of rows that can lose rows, and keeps what it worked out for each.

    Args:
        function: (rows, sizes, *constants) -> (image, trace).
        sizes: rows of each cell.
        constants: tensors with a value a row, or None.
    """

    def __init__(
        self, function: Callable, sizes: Sizes, constants: Sequence[Tensor | None]
    ) -> None:
        self._function, self._sizes, self._constants = function, sizes, constants
        self._rows, self._trace = Rows(), ()

    def __call__(self, z: Tensor) -> Tensor:
        self._trace = ()  # makes room for the next
        image, self._trace = self._function(z, self._sizes, *self._constants)
        return image

    def narrow(self, rows: Tensor) -> None:
        """Goes on with the rows of the given indices, in ascending order, only."""
        self._rows.put(rows, self._trace)
        self._constants = [c if c is None else c[rows] for c in self._constants]
        if len(self._sizes) == 1:
            self._sizes = [len(rows)]
        else:
            ends = torch.tensor(self._sizes, device=rows.device).cumsum(0)
            cells = torch.bucketize(rows, ends, right=True)
            self._sizes = torch.bincount(cells, minlength=len(ends)).tolist()

    def finish(self) -> tuple[Tensor, ...]:
        """Returns what the last evaluation of every row worked out, and holds nothing any more."""
        trace = self._rows.whole(self._trace)
        self._rows, self._trace, self._constants = Rows(), (), ()
        return trace


def fast_fixed_point(
    kernel: Any,
    sizes: Sizes,
    constants: Sequence[Tensor | None],
    parameters: Sequence[Tensor | None],
    *,
    solve: Solve,
    solve_adjoint: Solve,
) -> Tensor:
    """Returns the rows z (R, d) with z = kernel.image(z), differentiable by all tensors.

    Args:
        kernel: of kernels.py.
        sizes: rows of each cell.
        constants, parameters: what the kernel takes; the constants have a value a row.
        solve, solve_adjoint: take the map, where to start and, if it shall be used, the same
            map in lower precision, whose trace is its image.
    """
    forbid_transforms()  # torch's own error would come before the solve's
    inputs = (*constants, *parameters)
    learns = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    counts = len(constants), learns
    return _FastGradient.apply(kernel, sizes, counts, solve, solve_adjoint, *inputs)


class _FastGradient(torch.autograd.Function):
    """The solve forward, and the implicit function theorem backward."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        kernel: Any,
        sizes: Sizes,
        counts: tuple[int, bool],
        solve: Solve,
        solve_adjoint: Solve,
        *inputs: Tensor | None,
    ) -> Tensor:
        count, learns = counts
        constants, parameters = inputs[:count], inputs[count:]
        like = next(c for c in constants if c is not None)
        precisions = _precisions(like)
        with torch.autocast(like.device.type, enabled=False):  # the kernels see to precision
            full, rough = _prepared(kernel, parameters, precisions)
            f = Traced(partial(kernel.image, full), sizes, constants)
            approach = _approach(kernel.image, rough, sizes, constants)
            solution = solve(f, kernel.start(full, sizes, *constants), approach)
            z = solution.value
            if not learns:
                return z
            trace = f.finish()
            if not bool(solution.converged.all()):  # the last iterate is not always the best
                trace = kernel.image(full, z, sizes, *constants)[1]
        ctx.save_for_backward(z, *inputs, *trace)
        ctx.kernel, ctx.sizes, ctx.solve = kernel, sizes, solve_adjoint
        ctx.weights, ctx.precisions = (full, rough), precisions
        ctx.ends = 1 + count, 1 + len(inputs)
        return z

    @staticmethod
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor | None, ...]:
        forbid_transforms(g)
        z, *saved = ctx.saved_tensors
        with torch.no_grad(), torch.autocast(g.device.type, enabled=False):
            grads = _gradients(ctx, g.detach())
        if torch.is_grad_enabled():  # create_graph=True
            count = len(grads)
            grads = forbid_second_derivative(grads, (g, z, *saved[:count]))
        return None, None, None, None, None, *grads


def _gradients(ctx: FunctionCtx, g: Tensor) -> list[Tensor | None]:
    """Returns the gradients of all inputs, for the cotangent g of the fixed point."""
    tensors = ctx.saved_tensors
    z, constants, trace = tensors[0], tensors[1 : ctx.ends[0]], tensors[ctx.ends[1] :]
    parameters = tensors[ctx.ends[0] : ctx.ends[1]]
    kernel, sizes, count = ctx.kernel, ctx.sizes, len(constants)
    full, rough = ctx.weights or _prepared(kernel, parameters, ctx.precisions)
    ctx.weights = None  # not kept any longer; a second backward makes them again

    def adjoint(weights, u: Tensor, sizes: Sizes, unit: Tensor, z: Tensor, *rest: Tensor | None):
        constants, trace = rest[:count], rest[count:]
        cuts = kernel.cuts(weights, u, sizes, z, constants, trace)
        return kernel.product(weights, u, sizes, constants, trace, cuts).add_(unit), cuts

    unit, scale = unit_cotangent(g)
    rows = unit, z, *constants, *trace
    f = Traced(partial(adjoint, full), sizes, rows)
    solution = ctx.solve(f, unit, _approach(adjoint, rough, sizes, rows))
    u, cuts = solution.value, f.finish()
    if not bool(solution.converged.all()):
        cuts = kernel.cuts(full, u, sizes, z, constants, trace)
    if scale is not None:
        u, cuts = u * scale, [cut.mul_(scale) for cut in cuts]
    of_constants, of_parameters = kernel.gradients(full, u, sizes, z, constants, trace, cuts)
    return [*of_constants, *of_parameters]


def _approach(
    function: Callable, rough: Any, sizes: Sizes, rows: Sequence[Tensor | None]
) -> Traced | None:
    """Returns the map with the weights `rough`, whose trace is its image; None without them."""
    if rough is None:
        return None

    def image_only(*arguments):
        image, _ = function(rough, *arguments)
        return image, (image,)

    return Traced(image_only, sizes, rows)


def _prepared(
    kernel: Any,
    parameters: Sequence[Tensor | None],
    precisions: tuple[torch.dtype | None, torch.dtype | None],
) -> tuple[Any, Any]:
    """Returns the weights of the map, and those to approach with or None."""
    full, lower = precisions
    return kernel.prepare(parameters, full), kernel.prepare(parameters, lower) if lower else None


def _precisions(rows: Tensor) -> tuple[torch.dtype | None, torch.dtype | None]:
    """Returns the dtype of products, None for that of the rows, and one to approach with."""
    state = autocast_state(rows.device.type)
    if state["enabled"] and rows.dtype != torch.float64:  # which autocast leaves alone
        return state["dtype"], None
    pays = rows.dtype == torch.float32 and _bfloat16_pays(rows)
    return None, torch.bfloat16 if pays else None


def _bfloat16_pays(rows: Tensor) -> bool:
    """Whether the processor is known to multiply matrices faster in bfloat16."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # torch >= 2.6
    return rows.is_cpu and supported()
