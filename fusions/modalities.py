"""Checks of widths, tensors, labels and absent modalities, for fusions of all kinds."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .equilibrium import checks
from .equilibrium.fusion_map.features import (
    check_features,
    check_finite,
    check_fused,
    check_present,
    check_tensor,
)
from .equilibrium.half import autocast_enabled
from .equilibrium.transforms import hidden


def check_widths(input_dims: Sequence[int], **counts: int) -> None:
    """Raises unless `input_dims` lists one width or more, and all widths and counts are >= 1."""
    checks.check_widths("input_dims", input_dims)
    for name, value in counts.items():
        checks.check_width(name, value)


def without_absent(
    module: nn.Module,
    features: Sequence[Tensor],
    input_dims: Sequence[int],
    present: Tensor | None = None,
    *,
    normed: bool = False,
) -> list[Tensor]:
    """Returns the features with zeros where a modality is absent, so that no NaN there counts.

    Args:
        module: gives the dtype that the features must have, that of its parameters; without
            any the first feature does.
        features: a (..., d_i) tensor for each modality.
        input_dims: their widths d_i.
        present: (..., N) bool, the modalities that a sample has; None: all.
        normed: whether the module normalises or attends, see `_check_powers`.

    Raises:
        ValueError: for inputs that do not fit or are not finite, or a sample without any
            modality.
        TypeError: for inputs of another type or dtype.
    """
    like = next(module.parameters(), None)
    check_features(features, input_dims, like)
    if present is not None:
        check_present(present, features)
        here = present.unsqueeze(-1).unbind(-2)  # N times (..., 1)
        features = [torch.where(p, x, 0) for p, x in zip(here, features, strict=True)]
    return _computed(features, like, normed)


def finite(fused: Tensor) -> Tensor:
    """Returns the fused feature, (batch, ...); raises FloatingPointError if it is not finite."""
    check_fused(fused)
    return fused


def check_tensors(
    modalities: Iterable[Tensor], *, like: Tensor | None = None, normed: bool = False
) -> list[Tensor]:
    """Returns the modalities as a list if they are tensors, all that MultiBench's fusions need.

    Args:
        modalities: tensors of any shape.
        like: a parameter, whose dtype and device they must have then, and be finite matrices at
            least, (batch, ..., width).
        normed: whether what follows normalises or attends, see `_check_powers`.
    """
    if not isinstance(modalities, Iterable):
        raise TypeError(f"modalities must be a list of tensors, got {type(modalities).__name__}")
    modalities = list(modalities)
    for i, x in enumerate(modalities):
        check_tensor(f"modalities[{i}]", x, like)
        if like is not None and not x.numel():
            raise ValueError(f"modalities[{i}] must hold a number, got shape {tuple(x.shape)}")
    return modalities if like is None else _computed(modalities, like, normed)


def _computed(features: Sequence[Tensor], like: Tensor | None, normed: bool) -> list[Tensor]:
    """Returns features in the dtype that they are computed in, if they are finite there too."""
    computed = [as_computed(x, None if like is None else like.dtype) for x in features]
    if like is None:
        return still_finite(features, computed)
    # autocast casts them for their first product, where a tanh would hide infinities
    still_finite(features, [in_products(x) for x in computed])
    if normed:
        _check_powers(computed)
    return computed


def _check_powers(features: Sequence[Tensor]) -> None:
    """Raises ValueError for features whose fourth powers leave the range of the dtype.

    Variances, products of queries and keys, and their gradients hold powers up to the third.
    Of what is beyond, torch's layers make zeros in silence, and gradients that are not finite.
    """
    for i, x in enumerate(features):
        limit = torch.finfo(torch.promote_types(x.dtype, torch.float32)).max ** 0.25
        largest = x.detach().abs().amax()
        if not hidden(x) and largest > limit:
            raise ValueError(
                f"features must be at most {limit:.1e} in {x.dtype} where they are normalised or "
                f"attended to, but features[{i}] has entries up to {float(largest):.1e}; scale "
                "them down"
            )


def still_finite(features: Sequence[Tensor], computed: list[Tensor]) -> list[Tensor]:
    """Returns `computed`, features (..., width); raises ValueError if they are not finite."""
    check_finite(*([x.reshape(-1, x.shape[-1]) for x in xs] for xs in (features, computed)))
    return computed


def as_computed(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Returns features in the parameters' `dtype`, which they may lack under autocast only.

    Autocast would bring together some dtypes, not all: where there are no parameters (None), what
    is of the half precision that is not its own becomes float32.
    """
    device = x.device.type
    if not autocast_enabled(device):
        return x
    if dtype is None:
        foreign = {x.dtype, torch.get_autocast_dtype(device)} == {torch.float16, torch.bfloat16}
        dtype = torch.float32 if foreign else x.dtype
    return x.to(dtype)


def in_products(x: Tensor) -> Tensor:
    """Returns features as matrix products take them, which autocast makes narrower."""
    device = x.device.type
    narrowed = autocast_enabled(device) and x.dtype != torch.float64
    return x.to(torch.get_autocast_dtype(device)) if narrowed else x


def class_labels(truth: Tensor, leading: torch.Size, classes: int) -> Tensor:
    """Returns a truth, (...) or (..., 1), as class indices of the last forward's shape `leading`.

    Raises:
        ValueError: for a truth that does not fit.
    """
    if truth.shape not in (leading, (*leading, 1)):
        raise ValueError(
            f"truth must have shape {tuple(leading)}, a class index for each sample of the "
            f"last forward, got {tuple(truth.shape)}"
        )
    labels = truth.reshape(leading).long()
    if ((labels < 0) | (labels >= classes)).any():
        raise ValueError(
            f"truth must hold class indices from 0 to {classes - 1}, got "
            f"{labels.min().item()} to {labels.max().item()}"
        )
    return labels
