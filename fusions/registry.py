"""The fusions that can be compared: one entry adds a fusion to every comparison."""

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from .common_fusions import Concat
from .deq import DEQFusion
from .weighted_sum import WeightedSum

# (widths of the features, width of the state) -> (fusion, width of the fused feature)
Build = Callable[..., tuple[nn.Module, int]]

_QUIET = {"on_failure": "ignore"}  # a comparison's table has the share that converged


def _deq(input_dims: Sequence[int], width: int, /, **options) -> tuple[nn.Module, int]:
    """DEQ fusion with the scale-free injection (the default)."""
    fusion = DEQFusion(input_dims, **{"dim": width} | _QUIET | options)
    return fusion, fusion.dim


def _deq_one_step(input_dims: Sequence[int], width: int, /, **options) -> tuple[nn.Module, int]:
    """DEQ fusion with the Jacobian-free gradient."""
    return _deq(input_dims, width, **{"gradient": "one_step"} | options)


def _deq_neumann(input_dims: Sequence[int], width: int, /, **options) -> tuple[nn.Module, int]:
    """DEQ fusion with the gradient of a truncated Neumann series."""
    return _deq(input_dims, width, **{"gradient": "neumann"} | options)


def _deq_paper(input_dims: Sequence[int], width: int, /, **options) -> tuple[nn.Module, int]:
    """DEQ fusion with the paper's equations, injected as they are written."""
    fusion = DEQFusion.from_preset("paper", input_dims, **{"dim": width} | _QUIET | options)
    return fusion, fusion.dim


def _concat(input_dims: Sequence[int], dim: int) -> tuple[nn.Module, int]:
    """Concatenation; its width is the sum of the modalities'."""
    return Concat(), sum(input_dims)


def _weighted_sum(input_dims: Sequence[int], dim: int) -> tuple[nn.Module, int]:
    """Weighted sum with learnt scalars."""
    return WeightedSum(input_dims, dim), dim


FUSIONS: Mapping[str, Build] = {
    "deq": _deq,
    "deq_one_step": _deq_one_step,
    "deq_neumann": _deq_neumann,
    "deq_paper": _deq_paper,
    "concat": _concat,
    "weighted_sum": _weighted_sum,
}
