"""DEQ fusion that is trained to do without modalities."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deq_fusion.examples.studies.candidates.depth import SHALLOW, UNROLLED, Candidate
from deq_fusion.fusions.equilibrium.checks import check_probability

PROBABILITY = 0.2


class ModalityDropout(Candidate):
    """DEQ fusion from which modalities are hidden in training, whole and sample by sample.

    Each is hidden with a probability, on its own; a sample that would be left with none keeps one
    of those it has, each as likely. A hidden modality is an absent one (`present`): its z_i, its
    gate and its part in x_fuse are not there. Nothing is hidden in evaluation.

    Args:
        input_dims: width of each modality's features.
        dim: width of the fused feature.
        probability: of hiding, from 0 to below 1.
        options: of `DEQFusion`.
    """

    def __init__(
        self,
        input_dims: Sequence[int],
        dim: int,
        *,
        probability: float = PROBABILITY,
        **options: Any,
    ) -> None:
        super().__init__(input_dims, dim, **options)
        check_probability("probability", probability)
        self.probability = probability

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to the fused one, (..., dim).

        Args:
            features: see `DEQFusion.forward`.
            present: (..., N) bool, the modalities that a sample has; others take no part.
        """
        if self.training and self.probability:
            x = features[0]
            if present is None:
                present = x.new_ones((*x.shape[:-1], len(features)), dtype=torch.bool)
            present = kept(present, self.probability)
        return self.equilibrium(features, present)


def kept(present: Tensor, probability: float) -> Tensor:
    """Returns which of the modalities present, (..., N) bool, are not hidden."""
    drawn = torch.rand(present.shape, device=present.device).masked_fill(~present, -1.0)
    last = drawn == drawn.amax(-1, keepdim=True)
    return present & ((drawn >= probability) | last)


class ModalityDropoutUnrolled(ModalityDropout):
    """Its control with the map unrolled."""

    depth = UNROLLED


class ModalityDropoutShallow(ModalityDropout):
    """Its control without recurrence."""

    depth = SHALLOW
