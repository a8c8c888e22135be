"""Checks of features on their way in, and of the fused one on its way out.

The rule for values: finite as they come, finite in the dtype that they are computed in, and
finite as they leave; the error names the modality and the samples.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..half import autocast_enabled
from ..transforms import hidden


def check_features(
    features: Sequence[Tensor], widths: Sequence[int], like: Tensor | None, *, least: int = 1
) -> None:
    """Raises unless features are floating tensors (..., width) with one leading shape.

    They must be of `least` samples or more.

    Their dtype and device must be those of `like`, a parameter; under autocast any dtype will
    do. Channels come last: what is (batch, channels, height, width) is refused, or, where its
    last dimension has the right width as well, warned of. Values are not looked at: see
    `check_finite`.
    """
    _check_list(features, widths)
    for i, (x, width) in enumerate(zip(features, widths, strict=True)):
        first = next((x for x in features if isinstance(x, Tensor)), None)
        check_tensor(f"features[{i}]", x, first if like is None else like)
        if x.shape[-1] != width:
            hint = "input_dims gives the widths, in the order of the features"
            if x.ndim > 2 and x.shape[1] == width:
                hint = f"channels come last: features[{i}].movedim(1, -1)"
            raise ValueError(
                f"features[{i}] must have shape (batch, ..., {width}), got {tuple(x.shape)}; {hint}"
            )
    leading = features[0].shape[:-1]
    for i, x in enumerate(features):
        if x.shape[:-1] != leading:
            raise ValueError(
                f"features must agree in all dimensions but the last: features[0] has "
                f"{tuple(leading)}, features[{i}] has {tuple(x.shape[:-1])}"
            )
    if math.prod(leading) < least:  # of symbolic sizes, too
        raise ValueError(f"the batch must hold at least one sample, got shape {tuple(leading)}")
    if len(leading) > 2 and all(width == leading[1] for width in widths):
        # the other reading fits all modalities as well; of sequences, (batch, steps, width),
        # it is not taken, for whoever has them has them in this order
        warnings.warn(
            f"features of shape {tuple(features[0].shape)} are read with their channels last, and "
            "dimension 1 has as many; of (batch, channels, height, width) pass x.movedim(1, -1), "
            "otherwise join the dimensions between, x.flatten(1, -2), and nothing is warned of",
            UserWarning,
            4,
        )


def _check_list(features: Any, widths: Sequence[int]) -> None:
    wanted = f"a list of {len(widths)} tensors, one for each of input_dims={tuple(widths)}"
    if isinstance(features, Tensor):
        raise ValueError(f"features must be {wanted}, got one tensor")
    if isinstance(features, str | bytes) or not isinstance(features, Sequence):
        raise TypeError(f"features must be {wanted}, got {type(features).__name__}")
    if len(features) != len(widths):
        raise ValueError(f"features must be {wanted}, got {len(features)}")


def check_tensor(name: str, x: Any, like: Tensor | None) -> None:
    """Raises unless x is a tensor, and with `like` one to compute with beside that."""
    if x is None:
        raise TypeError(
            f"{name} must be a tensor, got None; where samples lack a modality pass any tensor of "
            "its shape, such as zeros, and say which have it: present=mask, bool of shape "
            "(batch, modalities), where the fusion takes `present`"
        )
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name} must be a tensor, got {type(x).__name__}; of an encoder that returns several "
            "things, pass on the feature alone, and of an array torch.as_tensor(array)"
        )
    if like is None:
        return
    if not x.is_floating_point():
        raise TypeError(
            f"{name} must be a floating-point tensor, got {x.dtype}; encode or embed it first"
        )
    if x.layout != torch.strided or x.is_nested:
        kind = "a nested one" if x.is_nested else f"one of layout {x.layout}"
        raise TypeError(f"{name} must be a dense tensor, got {kind}; see .to_dense()")
    if x.ndim < 2:
        raise ValueError(
            f"{name} must have shape (batch, ..., width), got {tuple(x.shape)}; of a single "
            "sample pass x.unsqueeze(0)"
        )
    if x.device != like.device:
        raise ValueError(
            f"{name} must be on {like.device}, as the first tensor of the module is, got "
            f"{x.device}; move one of them with .to()"
        )
    if x.is_meta:
        raise ValueError(
            f"{name} must hold numbers, got a tensor on the meta device, which has none; make it "
            "anew on the device to compute on"
        )
    device = x.device.type
    if not autocast_enabled(device):
        if x.dtype != like.dtype:
            raise TypeError(
                f"{name} must have the parameters' dtype {like.dtype}, got {x.dtype}; "
                "convert the features or the module with .to()"
            )
    elif {like.dtype, torch.get_autocast_dtype(device)} == {torch.float16, torch.bfloat16}:
        raise TypeError(
            f"the parameters must be of torch.float32 under autocast to "
            f"{torch.get_autocast_dtype(device)}, got {like.dtype}; convert the module with .to()"
        )


def check_finite(
    features: Sequence[Tensor], projected: Sequence[Tensor] | Tensor | None = None
) -> None:
    """Raises ValueError if features, (batch, width) each, or their projections, are not finite.

    Args:
        features: as they came.
        projected: as they are computed with; None: as they are.
    """
    seen = features if projected is None else projected
    if any(hidden(x) for x in seen) or all(map(_is_finite, seen)):
        return  # no map that is finite makes what is not finite finite
    for i, x in enumerate(features):
        rows = _rows(x)
        if rows:
            raise ValueError(
                f"features must be finite, but features[{i}] holds NaN or infinity in "
                f"{_counted(rows, x)}; check the encoder and its inputs, or mark missing "
                "modalities with `present`"
            )
    for i, (x, y) in enumerate(zip(features, seen, strict=True)):
        rows = _rows(y)
        if rows:
            raise ValueError(
                f"features must stay finite as they are computed with, in {y.dtype}, but "
                f"features[{i}], of entries up to {float(x.detach().abs().max()):.1e}, do not in "
                f"{_counted(rows, y)}; scale them down, and check the weights of their projection"
            )


def check_fused(fused: Tensor) -> None:
    """Raises FloatingPointError if the fused feature, (batch, ...), is not finite."""
    if hidden(fused) or _is_finite(fused):
        return
    rows = _rows(fused.reshape(-1, fused.shape[-1]))
    raise FloatingPointError(
        f"what is fused must be finite, but it leaves the range of {fused.dtype} in "
        f"{_counted(rows, fused.reshape(-1, fused.shape[-1]))}; check the weights, scale the "
        "features down, or compute in a wider dtype"
    )


def _is_finite(x: Tensor) -> bool:
    x = x.detach()
    # a finite sum, for which one pass will do, has finite terms only
    return bool(x.sum().isfinite()) or bool(x.isfinite().all())


def _rows(x: Tensor) -> list[int]:
    return (~x.isfinite().all(-1)).nonzero().flatten().tolist()


def _counted(rows: list[int], x: Tensor) -> str:
    return f"{len(rows)} of {len(x)} samples (first: {rows[:5]})"


def check_present(present: Tensor, features: Sequence[Tensor]) -> None:
    """Raises unless `present` is a bool tensor with a True in every sample.

    Args:
        present: has the leading dimensions of the features, and a column for each of them.
        features: have been checked.
    """
    wanted = (*features[0].shape[:-1], len(features))
    if not isinstance(present, Tensor):
        raise TypeError(
            f"present must be a bool tensor, got {type(present).__name__}; use torch.tensor(...)"
        )
    if present.dtype != torch.bool:
        raise TypeError(f"present must be a bool tensor, got {present.dtype}; use .bool()")
    if present.shape != wanted or present.device != features[0].device:
        raise ValueError(
            f"present must have shape {wanted}, a column for each modality, on "
            f"{features[0].device}, got {tuple(present.shape)} on {present.device}"
        )
    if hidden(present):
        return
    empty = (~present.any(-1)).flatten().nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"every sample must have at least one modality present, but {len(empty)} have "
            f"none (first: {empty[:5]}); leave them out of the batch"
        )
