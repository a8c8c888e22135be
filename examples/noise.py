"""Noise of a modality's features, by their kind: what recipes name as `Recipe.noise`.

Each function maps (features of a batch, level in [0, 1], generator) to such features, by
MultiBench's noise for the kind (`robustness/`). At level 1 nothing that tells the truth is left,
but for `images`, which remain visible.
"""

import numpy as np
import torch
from torch import Tensor

from deq_fusion.robustness.tabular_robust import add_tabular_noise
from deq_fusion.robustness.timeseries_robust import add_timeseries_noise
from deq_fusion.robustness.visual_robust import add_visual_noise


def vectors(x: Tensor, level: float, generator: np.random.Generator) -> Tensor:
    """Returns vectors (..., d) whose entries are lost, and then exchanged with their neighbours,
    each with the level as its probability."""
    rows = x.numpy().reshape(-1, x.shape[-1])
    return torch.from_numpy(add_tabular_noise(rows, level, seed=generator)).reshape(x.shape)


def sequences(x: Tensor, level: float, generator: np.random.Generator) -> Tensor:
    """Returns sequences (batch, steps, d), standardised, with Gaussian noise and losses.

    The level is the deviation of the noise, and the probability with which entries are lost, and
    whole steps. A step of zeros is padding, or lost already, and stays.
    """
    noisy = add_timeseries_noise(x.numpy(), level, per_feature=True, seed=generator)
    return torch.from_numpy(noisy) * x.any(dim=-1, keepdim=True)


def vectors_or_sequences(x: Tensor, level: float, generator: np.random.Generator) -> Tensor:
    """Returns vectors (batch, d) as `vectors` does, and sequences (batch, steps, d) as `sequences`
    does."""
    return (sequences if x.dim() > 2 else vectors)(x, level, generator)


def tokens(x: Tensor, level: float, generator: np.random.Generator) -> Tensor:
    """Returns texts (batch, steps), numbers of words and 0 behind the last, with others' words.

    Each word is, with the level as its probability, another drawn from those of the batch.
    """
    numbers = x.numpy()
    there = numbers != 0
    # the draws do not depend on what is drawn from, so that levels share them
    draws, drawn = generator.random(numbers.shape), generator.random(numbers.shape)
    known = numbers[there]
    if not len(known):
        return x
    others = known[(drawn * len(known)).astype(np.intp)]
    return torch.from_numpy(np.where(there & (draws < level), others, numbers))


def images(x: Tensor, level: float, generator: np.random.Generator) -> Tensor:
    """Returns pictures (batch, channels, height, width) uint8 with changes of colours, pixels and
    place, each with the level as its probability."""
    pictures = np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy())
    noisy = np.stack(add_visual_noise(pictures, level, seed=generator))
    return torch.from_numpy(noisy).permute(0, 3, 1, 2)
