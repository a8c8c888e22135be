"""What fusions of projected features share: checks of the widths, and absent modalities."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .equilibrium import checks


def check_widths(input_dims: Sequence[int], **counts: int) -> None:
    """Raises unless `input_dims` lists one width or more, and all widths and counts are >= 1."""
    if not isinstance(input_dims, Sequence):
        raise TypeError(f"input_dims must list a width for each modality, got {input_dims!r}")
    if not input_dims:
        raise ValueError("input_dims must name the width of at least one modality, got none")
    widths = {f"input_dims[{i}]": width for i, width in enumerate(input_dims)}
    for name, value in (widths | counts).items():
        checks.check_count(name, value)


def without_absent(
    module: nn.Module,
    features: Sequence[Tensor],
    input_dims: Sequence[int],
    present: Tensor | None = None,
) -> list[Tensor]:
    """Returns the features with zeros where a modality is absent, so that no NaN there counts.

    Args:
        module: gives the dtype that the features must have, that of its parameters; without
            any the first feature does.
        features: a (..., d_i) tensor for each modality.
        input_dims: their widths d_i.
        present: (..., N) bool, the modalities that a sample has; None: all.

    Raises:
        ValueError, TypeError: for inputs that do not fit, or a sample without any modality.
    """
    dtype = next((x.dtype for x in (*module.parameters(), *features)), None)
    checks.check_features(features, input_dims, dtype)
    if present is None:
        return list(features)
    checks.check_present(present, features[0].shape[:-1], len(input_dims))
    here = present.unsqueeze(-1).unbind(-2)  # N times (..., 1)
    return [torch.where(p, x, 0) for p, x in zip(here, features, strict=True)]
