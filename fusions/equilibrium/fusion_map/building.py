"""The cells that equations ask for: how many groups their norms have, and how they start."""

import math
import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ..checks import check_groups, check_not_negative, shown
from .equations import Equations
from .gated import GatedCell
from .residual import ResidualCells

CONTRACTIVE = 0.1  # the recurrent terms as a fraction of the injected: the map contracts
STARTS = ("contractive", "released")
LARGEST = 2**31  # entries of a weight: 8 GiB of float32


def check_start(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is one of `STARTS` or a number of at least 0."""
    if isinstance(value, Real):
        check_not_negative(name, value)
    elif not isinstance(value, str) or value not in STARTS:
        raise ValueError(f"{name} must be one of {STARTS} or a number, got {shown(value)}")


def check_sizes(
    input_dims: Sequence[int], dim: int, groups: int | None, fuse_groups: int | None
) -> None:
    """Raises ValueError for weights of more than `LARGEST` entries, or groups that do not fit."""
    n, widest = len(input_dims), max(dim, *input_dims)
    if dim * max(widest, n * dim) > LARGEST:
        raise ValueError(
            f"every weight must have at most {LARGEST} entries, and dim={dim} is too wide for "
            f"that beside input_dims of up to {widest}, and {n} of them"
        )
    for name, count in (("groups", groups), ("fuse_groups", fuse_groups)):
        _check_norm_groups(name, count, dim)


def _check_norm_groups(name: str, groups: Any, dim: int) -> None:
    """Raises ValueError unless a GroupNorm over `dim` channels may have so many groups.

    Of a group of one channel it makes zero, whatever comes; of two it keeps the sign of their
    difference, and of three not much more. Where `groups` is given, few channels are warned of.
    """
    if dim < 2:
        raise ValueError(f"dim must be at least 2, got {dim}: of one channel GroupNorm makes zero")
    if groups is None:
        return
    check_groups(name, groups, dim, least=2)
    if groups > 1 and dim // groups < 4:
        warnings.warn(
            f"{name}={groups} leaves {dim // groups} of dim={dim} channels to a group, of which "
            "GroupNorm keeps little but signs; take fewer groups, or None",
            stacklevel=5,
        )


def norm_groups(groups: int | None, dim: int) -> int:
    """Returns the groups: by default at most 4, of at least four channels, that divide `dim`."""
    if groups is not None:
        return int(groups)
    return max(k for k in range(1, 5) if k == 1 or (dim % k == 0 and dim // k >= 4))


def build_cells(
    equations: Equations,
    n: int,
    dim: int,
    *,
    groups: int | None,
    fuse_groups: int | None,
    start: str | float,
) -> tuple[ResidualCells | None, GatedCell | None]:
    """Returns the cells of f_i and of f_fuse, as far as the equations have them.

    Args:
        equations: what they compute.
        n: number of modalities.
        dim: width d of the states.
        groups: as `DEQFusion` takes it.
        fuse_groups: likewise.
        start: likewise.
    """
    unimodal = fuse = None
    groups = norm_groups(groups, dim)
    scale = CONTRACTIVE if isinstance(start, str) else start
    if equations.f_theta:
        options: dict[str, Any] = {"kind": equations.cell, "residual": equations.residual}
        unimodal = ResidualCells(n, dim, groups=groups, recurrent_scale=scale, **options)
    if equations.f_fuse:
        options = {"norm_order": equations.norm_order, "gate": equations.gate}
        options["groups"] = groups if fuse_groups is None else norm_groups(fuse_groups, dim)
        fuse = GatedCell(n, dim, recurrent_scale=scale, **options)
    if start == "released":
        _start_as_released(unimodal, fuse, bound=1 / math.sqrt(dim))
    return unimodal, fuse


def _start_as_released(
    unimodal: ResidualCells | None, fuse: GatedCell | None, *, bound: float
) -> None:
    """Starts the map as torch starts linear maps, uniformly, biases included, unscaled."""
    drawn: list[Tensor] = []
    if unimodal is not None:
        unimodal.scales = 1.0, 1.0
        drawn += unimodal.weight1, unimodal.bias1, unimodal.weight2, unimodal.bias2
    if fuse is not None:
        fuse.scale = 1.0
        drawn += (fuse.gate_weight, fuse.gate_bias) if fuse.gate else ()
        drawn += fuse.weight, fuse.bias
    with torch.no_grad():
        for parameter in drawn:
            parameter.uniform_(-bound, bound)
