"""Noise in features that are served, a sample at a time, for the noisy test sets of adapters.

The draws of a sample are its own, and the same at every level: it is noised alike whatever the
batch, the workers and the order, and what is lost at one level is lost at every higher one.
"""

import hashlib
from collections.abc import Callable

import numpy as np

Noise = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
"""(features of one sample, level in [0, 1], generator) -> the same with noise of that level."""


def draws(seed: int, name: str, row: int) -> np.random.Generator:
    """Returns the generator of a sample's modality."""
    named = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return np.random.default_rng([seed, named, row])


def lose_entries(values: np.ndarray, level: float, generator: np.random.Generator) -> np.ndarray:
    """Returns features of any shape of which each is 0 with the level as its probability."""
    return np.where(generator.random(values.shape) < level, values.dtype.type(0), values)


def disturb_steps(values: np.ndarray, level: float, generator: np.random.Generator) -> np.ndarray:
    """Returns a sequence (steps, features) with Gaussian noise, and then steps that are lost.

    The level is the deviation of the noise, drawn for each number, and the probability that a
    step becomes 0.
    """
    lost = generator.random((len(values), 1)) < level
    noise = level * generator.standard_normal(values.shape)
    return np.where(lost, values.dtype.type(0), values + noise.astype(values.dtype))
