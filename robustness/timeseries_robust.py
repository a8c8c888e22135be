"""Noise for time series: Gaussian, entries that are lost, and whole time steps that are lost.

Names, arguments and defaults are MultiBench's (Liang et al., 2021). Its results differ in three
points: noise runs along time in every sample (there, of an array (samples, time, features), along
the samples), what is passed is left as it is, and draws come from a generator of their own.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .drawing import Seed, as_floats, check_level


def add_timeseries_noise(
    tests: Any,
    noise_level: float = 0.3,
    gaussian_noise: bool = True,
    rand_drop: bool = True,
    struct_drop: bool = True,
    *,
    per_feature: bool = False,
    seed: Seed = None,
) -> Any:
    """Returns time series with Gaussian noise, lost entries and lost time steps, in this order.

    Args:
        tests: series: a list of them, each (time,), (time, features) or a batch of these,
            (samples, time, features); or one array of series, (samples, time) or
            (samples, time, features). They are left as they are.
        noise_level: deviation of the Gaussian noise, and probability in [0, 1] of the others.
        gaussian_noise: see `white_noise`.
        rand_drop: see `random_drop`.
        struct_drop: see `structured_drop`.
        per_feature: see `white_noise`.
        seed: a seed, a generator, or None, see `drawing.Seed`.

    Returns:
        The same as floating numbers: a list for a list, else an array.

    Raises:
        ValueError: for another level.
    """
    generator = np.random.default_rng(seed)
    noisy = _each(as_floats, tests)
    if gaussian_noise:
        noisy = white_noise(noisy, noise_level, per_feature=per_feature, seed=generator)
    if rand_drop:
        noisy = random_drop(noisy, noise_level, seed=generator)
    if struct_drop:
        noisy = structured_drop(noisy, noise_level, seed=generator)
    return noisy


def white_noise(data: Any, p: float, *, per_feature: bool = False, seed: Seed = None) -> Any:
    """Returns series with noise of mean 0 and deviation p, independent from step to step.

    Args:
        data: series, see `add_timeseries_noise`.
        p: the deviation, at least 0.
        per_feature: whether every feature has a draw of its own; else, as in MultiBench, all
            features of a step share one.
        seed: see `drawing.Seed`.
    """
    if not p >= 0:
        raise ValueError(f"p is a deviation and must be at least 0, got {p}")
    generator = np.random.default_rng(seed)

    def add(series: np.ndarray) -> np.ndarray:
        shape = series.shape if per_feature else _steps(series)
        return series + (p * generator.standard_normal(shape)).astype(series.dtype)

    return _on_series(add, data)


def random_drop(data: Any, p: float, *, seed: Seed = None) -> Any:
    """Returns series of which each entry, a feature of a step, is 0 with probability p.

    Args:
        data: series, see `add_timeseries_noise`.
        p: the probability, in [0, 1].
        seed: see `drawing.Seed`.
    """
    generator, p = np.random.default_rng(seed), check_level(p, "p")
    return _on_series(lambda x: np.where(generator.random(x.shape) < p, x.dtype.type(0), x), data)


def structured_drop(data: Any, p: float, *, seed: Seed = None) -> Any:
    """Returns series of which each time step is 0, all its features, with probability p.

    Args:
        data: series, see `add_timeseries_noise`.
        p: the probability, in [0, 1].
        seed: see `drawing.Seed`.
    """
    generator, p = np.random.default_rng(seed), check_level(p, "p")
    return _on_series(lambda x: np.where(generator.random(_steps(x)) < p, x.dtype.type(0), x), data)


def _on_series(change: Callable[[np.ndarray], np.ndarray], data: Any) -> Any:
    return _each(lambda series: change(as_floats(series)), data)


def _each(change: Callable[[Any], np.ndarray], data: Any) -> Any:
    """Returns what becomes of the series, each by itself if they are a list."""
    if isinstance(data, (list, tuple)):
        return [change(series) for series in data]
    data = np.asarray(data)
    if data.ndim < 2:
        raise ValueError(
            f"an array of series must be (samples, time, ...), got the shape {data.shape}; give a "
            "single one as [series]"
        )
    # of (samples, time) the last axis is time, which `_steps` takes for features
    return change(data[..., None])[..., 0] if data.ndim == 2 else change(data)


def _steps(series: np.ndarray) -> tuple[int, ...]:
    """Returns the shape of a draw for each time step, to be broadcast over the features."""
    return series.shape if series.ndim == 1 else (*series.shape[:-1], 1)
