"""Noise of signals: what is spared stays, what is dropped is dropped in stretches of its length."""

import numpy as np
import pytest
import torch

from deq_fusion.robustness.audio_robust import (
    add_audio_noise,
    additive_white_gaussian_noise,
    audio_random_dropout,
    audio_structured_dropout,
)


def test_a_signal_has_noise_with_its_probability_and_else_stays():
    """MultiBench makes silence of those that it spares."""
    given = np.random.default_rng(0).random((400, 20)) + 1
    noisy = add_audio_noise(given, 0.4, seed=0)
    spared = (noisy == given).all(1)
    # random dropout may spare all of a signal by itself: with probability 0.6 ** 20
    assert abs(spared.mean() - 0.6) < 5 * (0.24 / 400) ** 0.5
    assert (noisy[spared] == given[spared]).all() and noisy.shape == given.shape


def test_each_kind_of_noise_is_chosen_alike():
    def kind(number):
        return lambda signal, level: np.full_like(signal, number)

    noisy = add_audio_noise(np.zeros((900, 3)), 1.0, [kind(1), kind(2), kind(3)], seed=0)
    counts = np.unique(noisy[:, 0], return_counts=True)[1]
    assert len(counts) == 3 and np.abs(counts / 900 - 1 / 3).max() < 5 * (2 / 9 / 900) ** 0.5


def test_white_noise_has_its_deviation():
    noise = additive_white_gaussian_noise(np.ones(20_000), 0.3, seed=0) - 1
    assert abs(noise.std() - 0.3) < 5 * 0.3 / 40_000**0.5
    assert abs(noise.mean()) < 5 * 0.3 / 20_000**0.5


def test_single_samples_are_dropped_with_their_probability():
    dropped = audio_random_dropout(np.ones(20_000), 0.3, seed=0) == 0
    assert abs(dropped.mean() - 0.3) < 5 * (0.21 / 20_000) ** 0.5


@pytest.mark.parametrize("step", [1, 3, 10])
def test_stretches_are_of_the_length_asked_for_and_begin_where_there_is_sound(step):
    given = np.ones(500)
    dropped = audio_structured_dropout(given, 0.05, step, seed=0)
    expected, draws = given.copy(), np.random.default_rng(0).random(500 - step + 1)
    for start in range(500 - step + 1):
        if expected[start] != 0 and draws[start] < 0.05:
            expected[start : start + step] = 0
    np.testing.assert_array_equal(dropped, expected)
    edges = np.diff(np.r_[0, dropped == 0, 0])
    lengths = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
    assert len(lengths) and (lengths % step == 0).all()


def test_a_signal_shorter_than_a_stretch_falls_silent_as_a_whole():
    assert not audio_structured_dropout(np.ones(4), 1).any()


def test_tensors_are_taken_and_left_as_they_are():
    given = torch.rand(5, 8) + 1
    kept = given.clone()
    noisy = add_audio_noise(given, 1, [audio_random_dropout])
    assert not noisy.any() and torch.equal(given, kept) and noisy.dtype == np.float32
    np.testing.assert_array_equal(*(add_audio_noise(given, 0.5, seed=3) for _ in range(2)))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="noises must name at least one function"):
        add_audio_noise(np.ones((2, 3)), noises=[])
    with pytest.raises(ValueError, match=r"noise_level .* \[0, 1\], got 2"):
        add_audio_noise(np.ones((2, 3)), 2)
    with pytest.raises(ValueError, match="step must be at least 1"):
        audio_structured_dropout(np.ones(3), 0.5, 0)
