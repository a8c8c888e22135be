"""The rows: DEQ fusion, and DEQ fusion that meets noise in place of a modality."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from deq_fusion.examples.studies.study import Build, Variant
from deq_fusion.fusions.adapters import Sized

FULL = "full"


class NoisyFusion(nn.Module):
    """A fusion that meets noise in place of one modality's features, see `with_noise`.

    In training the noise is fresh at every forward. In evaluation it depends on nothing but how
    many forwards came since `eval()`: whoever evaluates the same batches again meets the same.

    Args:
        fusion: the fusion.
        modality: which of its features are replaced, from 0.
    """

    def __init__(self, fusion: nn.Module, modality: int) -> None:
        super().__init__()
        self.fusion, self.modality = fusion, modality
        self.evaluated = 0

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to what the fusion returns."""
        generator = None
        if not self.training:
            generator = torch.Generator().manual_seed(self.evaluated)
            self.evaluated += 1
        features = with_noise(features, self.modality, generator)
        return self.fusion(features, present=present)

    def train(self, mode: bool = True) -> "NoisyFusion":
        self.evaluated = 0  # every evaluation starts with `eval()`
        return super().train(mode)


def with_noise(
    features: Sequence[Tensor], modality: int, generator: torch.Generator | None = None
) -> list[Tensor]:
    """Returns the features, (..., d_i) each, those of one modality replaced by noise.

    It is normal, and scaled to the root mean square that the features of the sample have: their
    size is all that is left of them. No gradient reaches them.

    Args:
        generator: of the CPU, whatever the device is; None: PyTorch's own.
    """
    x = features[modality].detach()
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    noise = noise * (x.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True))
    return [*features[:modality], noise, *features[modality + 1 :]]


def noise_in(modality: int, build: Build) -> Build:
    """Returns what builds DEQ fusion with noise in a modality, given what builds it without."""
    return partial(_noisy, modality, build)


def _noisy(
    modality: int, build: Build, input_dims: Sequence[int], dim: int, **options: object
) -> Sized:
    fusion, width = build(input_dims, dim, **options)
    return NoisyFusion(fusion, modality), width


NOISY = {f"noise_in_modality_{i}": i - 1 for i in range(1, 5)}
"""Row -> the modality that is noise in it."""

ROWS = {FULL: Variant("DEQ fusion")} | {
    name: Variant(
        f"trained with noise in modality {index + 1}",
        wrap=partial(noise_in, index),
        modalities=(max(index + 1, 2), None),
    )
    for name, index in NOISY.items()
}
OLD = {f"noise_{index + 1}": name for name, index in NOISY.items()}
