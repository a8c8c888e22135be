"""Random draws of noise: from a generator of one's own, never from numpy's global one."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

Seed = int | np.random.Generator | None
"""A seed; a generator, from which the draws go on; or None: another noise each time."""


def check_level(level: float, name: str = "noise_level") -> float:
    """Returns a level of noise; raises ValueError unless it is a number in [0, 1]."""
    if not 0 <= level <= 1:
        raise ValueError(f"{name} is a probability and must lie in [0, 1], got {level}")
    return float(level)


def applied(noise: Callable[..., Any], x: Any, level: float, generator: np.random.Generator) -> Any:
    """Returns noise(x, level), with the generator as `seed` where the function takes one."""
    takes = "seed" in inspect.signature(noise).parameters
    return noise(x, level, seed=generator) if takes else noise(x, level)


def as_floats(x: Any) -> np.ndarray:
    """Returns a copy of numbers: floating ones at their precision, others as float64."""
    x = np.asarray(x)
    return np.array(x, dtype=x.dtype if x.dtype.kind == "f" else np.float64)
