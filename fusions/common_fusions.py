"""MultiBench's simple fusions, under its names."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Concat(nn.Module):
    """Flattens every modality from dimension 1 and concatenates them on it."""

    def forward(self, modalities: Iterable[Tensor]) -> Tensor:
        """Maps tensors (batch, ...) to (batch, sum of their flattened sizes)."""
        return torch.cat([modality.flatten(1) for modality in modalities], dim=1)
