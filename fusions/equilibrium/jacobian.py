"""The Jacobian of a map at its fixed point: a penalty on its size, and a diagnosis."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from .checks import check_count
from .half import wide_dtype
from .implicit import Make
from .solve import Map

Pull = Callable[[Tensor], Tensor]  # v -> v^T J


def jacobian_penalty(
    f: Callable[..., Tensor],
    z: Tensor,  # shape: (batch, ...)
    inputs: Sequence[Tensor | None] = (),
    *,
    probes: int = 1,
) -> Tensor:
    """Estimates |J|_F^2 / (entries of z), J = df/dz at z, differentiable by `inputs`.

    Hutchinson's estimator: the mean of |v^T J|^2 over `probes` standard normal v (Bai et
    al., 2021, eq. 6). z is taken as a constant. Costs one evaluation of f and one
    vector-Jacobian product a probe, all recorded for a second derivative. Tensors of half
    precision are computed with in float32, which is then the dtype of the estimate: the second
    derivative of a normalisation leaves the range of half precision easily. For entries so large
    that even float32 is left, it is computed in float64.

    Raises:
        FloatingPointError: for entries so large that float64 would be left.
    """
    return _estimate(partial(_autograd_pull, f), z, inputs, probes)


def map_penalty(
    make: Make, z: Tensor, inputs: Sequence[Tensor | None] = (), *, probes: int = 1
) -> Tensor:
    """Estimates the same of the map `make(*inputs)` at its state z, by its own `pull`.

    That takes fewer operations, forward and backward, than a vector-Jacobian product of autograd's.
    """
    return _estimate(partial(_written_pull, make), z, inputs, probes)


def _estimate(
    pulled: Callable[..., Pull], z: Tensor, inputs: Sequence[Tensor | None], probes: int
) -> Tensor:
    """Returns the mean square of v^T J; `pulled` makes v -> v^T J of z and the inputs."""
    check_count("probes", probes)
    drawn = wide_dtype(z.dtype)
    if not z.numel():
        return z.new_zeros((), dtype=drawn)
    dtype = _reach(z, inputs)
    z = z.detach().to(dtype).contiguous()
    with torch.enable_grad():
        pull = pulled(z, *(x if x is None else x.to(dtype) for x in inputs))
        probe = partial(torch.randn_like, z, dtype=drawn)
        squares = [pull(probe().to(dtype)).square().mean() for _ in range(probes)]
        return torch.stack(squares).mean().to(drawn)


def _autograd_pull(f: Callable[..., Tensor], z: Tensor, *inputs: Tensor | None) -> Pull:
    z = z.requires_grad_()
    image = f(z, *inputs)
    if not image.requires_grad:  # a map that ignores its state
        return torch.zeros_like
    options = {"create_graph": True, "materialize_grads": True}
    return lambda v: torch.autograd.grad(image, z, v.view_as(image), **options)[0]


def _written_pull(make: Make, z: Tensor, *inputs: Tensor | None) -> Pull:
    return partial(make(*inputs).at(z).pull, plus=None)


def _reach(z: Tensor, inputs: Sequence[Tensor | None]) -> torch.dtype:
    """Returns the dtype whose range holds the fifth powers of all entries, float32 at least."""
    least = wide_dtype(z.dtype)
    with torch.no_grad():
        # one call for all, as clipping by norm does it
        peaks = torch._foreach_norm([x for x in (z, *inputs) if x is not None], torch.inf)
        largest = float(torch.stack(peaks).amax())
    for dtype in dict.fromkeys((least, torch.float64)):
        if not largest > torch.finfo(dtype).max ** 0.2:
            return dtype
    raise FloatingPointError(
        f"the Jacobian penalty cannot be computed of entries up to {largest:.1e}; scale the "
        "features down, or set jacobian_weight=0"
    )


def spectral_radius(
    f: Map,
    z: Tensor,  # shape: (batch, ...)
    *,
    steps: int = 100,
) -> Tensor:
    """Estimates the spectral radius of J = df/dz at z, for every sample: (batch,).

    Power iteration with J^T from a random start: the geometric mean of the growth over the
    second half of the steps, which settles for complex pairs too. Plain iteration of f
    converges locally where the radius is below 1; solvers with memory need less.
    """
    check_count("steps", steps)
    if steps < 2:
        raise ValueError(f"steps must be at least 2, got {steps}")
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        image = f(z)
    if not image.requires_grad:
        return z.new_zeros(len(z))
    v = torch.randn_like(z)
    logs = []
    for _ in range(steps):
        v = torch.autograd.grad(image, z, v, retain_graph=True, materialize_grads=True)[0]
        growth = v.flatten(1).norm(dim=1)
        logs.append(growth.log())
        v = v / growth.clamp_min(torch.finfo(v.dtype).tiny).view(-1, *[1] * (v.ndim - 1))
    return torch.stack(logs[steps // 2 :]).mean(0).exp()
