"""Noise for audio signals: Gaussian, and samples or stretches that fall silent.

Names, arguments and defaults are MultiBench's (Liang et al., 2021). Its results differ in three
points: a signal that is spared stays as it is (there it becomes silence), single samples are
dropped with their probability (there its place and the length's are exchanged, which fails), and
draws come from a generator of their own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .drawing import Seed, applied, as_floats, check_level


def add_audio_noise(
    tests: Any,
    noise_level: float = 0.3,
    noises: Sequence[Callable[..., Any]] | None = None,
    *,
    seed: Seed = None,
) -> np.ndarray:
    """Returns signals of which each, with a probability, has one kind of noise.

    Args:
        tests: (signals, time); it is left as it is.
        noise_level: the probability in [0, 1] that a signal has noise, and the level of it.
        noises: functions (signal, level) -> signal, of which one is chosen for each signal; None
            are the three of this module.
        seed: a seed, a generator, or None, see `drawing.Seed`; a noise with a keyword `seed`
            gets the generator.

    Raises:
        ValueError: for another level, or no noise to choose from.
    """
    level, generator = check_level(noise_level), np.random.default_rng(seed)
    kinds = (
        [additive_white_gaussian_noise, audio_random_dropout, audio_structured_dropout]
        if noises is None
        else list(noises)
    )
    if not kinds:
        raise ValueError("noises must name at least one function, got none; None takes all three")
    noisy = as_floats(tests)
    for i, signal in enumerate(noisy):
        if generator.random() < level:
            noisy[i] = applied(kinds[generator.integers(len(kinds))], signal, level, generator)
    return noisy


def additive_white_gaussian_noise(
    signal: Any, noise_level: float, *, seed: Seed = None
) -> np.ndarray:
    """Returns a signal with noise of mean 0 and deviation `noise_level`, independent at each time.

    Args:
        signal: (time,).
        noise_level: the deviation.
        seed: see `drawing.Seed`.
    """
    signal = as_floats(signal)
    noise = noise_level * np.random.default_rng(seed).standard_normal(signal.shape)
    return signal + noise.astype(signal.dtype)


def audio_structured_dropout(
    signal: Any, p: float, step: int = 10, *, seed: Seed = None
) -> np.ndarray:
    """Returns a signal with silent stretches: from each sound a stretch begins with probability p.

    Args:
        signal: (time,).
        p: the probability, in [0, 1].
        step: samples of a stretch, at least 1; of a shorter signal all.
        seed: see `drawing.Seed`.
    """
    if step < 1:
        raise ValueError(f"step must be at least 1, got {step}")
    signal = as_floats(signal)
    step = min(step, len(signal))
    starts = len(signal) - step + 1
    draws = np.random.default_rng(seed).random(starts)
    for start in np.flatnonzero(draws < check_level(p, "p")):
        if signal[start] != 0:  # within a stretch none begins
            signal[start : start + step] = 0
    return signal


def audio_random_dropout(sig: Any, p: float, *, seed: Seed = None) -> np.ndarray:
    """Returns a signal each sample of which is silent with probability p.

    Args:
        sig: (time,).
        p: the probability, in [0, 1].
        seed: see `drawing.Seed`.
    """
    return audio_structured_dropout(sig, p, 1, seed=seed)
