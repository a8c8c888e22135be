"""Checks of options and inputs: what must hold, what came, what to do."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"unknown {name} {value!r}; choose from {sorted(choices)}")


def check_count(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is an integer >= 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raises ValueError unless low <= value < high."""
    if not low <= value < high:
        raise ValueError(f"{name} must be at least {low:g} and below {high:g}, got {value}")


def check_groups(name: str, groups: int, dim: int) -> None:
    """Raises ValueError unless `groups` divides `dim`."""
    check_count(name, groups)
    if dim % groups:
        divisors = [k for k in range(1, dim + 1) if dim % k == 0]
        raise ValueError(
            f"dim (={dim}) must be divisible by {name} (={groups}); choose {name} from "
            f"{divisors}, or another dim"
        )


def check_features(features: Sequence[Tensor], widths: Sequence[int], dtype: torch.dtype) -> None:
    """Raises unless features are floating tensors (..., width) with one leading shape.

    Their dtype must be `dtype`, that of the parameters, but under autocast. Values are not
    looked at: see `check_finite`.
    """
    if isinstance(features, Tensor) or len(features) != len(widths):
        came = "one tensor" if isinstance(features, Tensor) else f"{len(features)}"
        raise ValueError(
            f"features must be a list of {len(widths)} tensors, one for each of "
            f"input_dims={tuple(widths)}, got {came}"
        )
    for i, x in enumerate(features):
        if not isinstance(x, Tensor):
            raise TypeError(
                f"features[{i}] must be a tensor, got {type(x).__name__}; of an encoder that "
                "returns several things, pass on the feature alone"
            )
    leading = features[0].shape[:-1]
    for i, (x, width) in enumerate(zip(features, widths, strict=True)):
        if not x.is_floating_point():
            raise TypeError(
                f"features[{i}] must be a floating-point tensor, got {x.dtype}; "
                "encode or embed it first"
            )
        if x.ndim < 2 or x.shape[-1] != width:
            raise ValueError(
                f"features[{i}] must have shape (batch, ..., {width}), got {tuple(x.shape)}; "
                "input_dims gives the widths, in the order of the features"
            )
        if x.shape[:-1] != leading:
            raise ValueError(
                f"features must agree in all dimensions but the last: features[0] has "
                f"{tuple(leading)}, features[{i}] has {tuple(x.shape[:-1])}"
            )
        if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(
                f"features[{i}] must have the parameters' dtype {dtype}, got {x.dtype}; "
                "convert the features or the module with .to()"
            )
    if not leading.numel():
        raise ValueError(f"the batch must hold at least one sample, got shape {tuple(leading)}")


def check_finite(features: Sequence[Tensor]) -> None:
    """Raises ValueError if an entry of the features, (batch, width) each, is not finite."""
    if all(bool(x.isfinite().all()) for x in features):
        return
    for i, x in enumerate(features):
        rows = (~x.isfinite().all(-1)).nonzero().flatten().tolist()
        if rows:
            raise ValueError(
                f"features must be finite, but features[{i}] holds NaN or infinity in "
                f"{len(rows)} of {len(x)} samples (first: {rows[:5]}); check the encoder and "
                "its inputs, or mark missing modalities with `present`"
            )


def check_present(present: Tensor, leading: torch.Size, n: int) -> None:
    """Raises unless `present` is a bool tensor (*leading, n) with a True in every sample."""
    if present.dtype != torch.bool:
        raise TypeError(f"present must be a bool tensor, got {present.dtype}; use .bool()")
    if present.shape != (*leading, n):
        raise ValueError(
            f"present must have shape {(*leading, n)}, a column for each modality, got "
            f"{tuple(present.shape)}"
        )
    empty = (~present.any(-1)).flatten().nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"every sample must have at least one modality present, but {len(empty)} have "
            f"none (first: {empty[:5]}); leave them out of the batch"
        )
