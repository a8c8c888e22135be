"""Noise of time series: along time in every sample, of the deviation and the shares asked for."""

import numpy as np
import pytest

from deq_fusion.robustness.timeseries_robust import (
    add_timeseries_noise,
    random_drop,
    structured_drop,
    white_noise,
)

SAMPLES, TIME, FEATURES = 40, 60, 7
SHAPE = SAMPLES, TIME, FEATURES


def bound(p, count):
    """Five deviations of a share."""
    return 5 * (p * (1 - p) / count) ** 0.5


def ones():
    return np.ones(SHAPE)


@pytest.mark.parametrize("per_feature", [False, True])
def test_white_noise_has_its_deviation_and_is_independent_from_step_to_step(per_feature):
    noise = white_noise(ones(), 0.5, per_feature=per_feature, seed=0) - 1
    draws = noise if per_feature else noise[..., :1]
    assert abs(draws.mean()) < 5 * 0.5 / draws.size**0.5
    assert abs(draws.std() - 0.5) < 5 * 0.5 / (2 * draws.size) ** 0.5
    lagged = (draws[:, 1:] * draws[:, :-1]).mean() / 0.25
    across = (draws[1:] * draws[:-1]).mean() / 0.25
    assert max(abs(lagged), abs(across)) < 5 / (0.9 * draws.size) ** 0.5
    shared = np.ptp(noise, axis=2).max() < 1e-12
    assert shared != per_feature


def test_entries_and_steps_are_lost_with_their_probability():
    entries = random_drop(ones(), 0.3, seed=0) == 0
    assert abs(entries.mean() - 0.3) < bound(0.3, entries.size)
    assert not (entries.all(2) | ~entries.any(2)).all()  # features are lost apart
    lost = structured_drop(ones(), 0.3, seed=0) == 0
    steps = lost.any(2)
    assert (lost.all(2) == steps).all()  # a step is lost with all its features
    assert abs(steps.mean() - 0.3) < bound(0.3, steps.size)
    # in every sample, and at every step: not whole samples
    assert np.abs(steps.mean(1) - 0.3).max() < bound(0.3, TIME)
    assert np.abs(steps.mean(0) - 0.3).max() < bound(0.3, SAMPLES)


def test_an_array_in_a_list_is_a_batch_and_not_a_series():
    """MultiBench takes the samples of what its adapters pass for the steps of one series."""
    noisy = add_timeseries_noise([ones()], 0.5, rand_drop=False, seed=0)[0]
    assert noisy.shape == SHAPE
    assert np.ptp(noisy, axis=1).min() > 0  # every sample varies along time
    np.testing.assert_array_equal(noisy, add_timeseries_noise(ones(), 0.5, rand_drop=False, seed=0))


def test_series_of_a_list_are_noised_one_after_the_other():
    series = [np.ones((5, 3)), np.ones(8), np.ones((2, 3))]
    noisy = add_timeseries_noise(series, 0.4, seed=2)
    assert [x.shape for x in noisy] == [x.shape for x in series]
    generator, expected = np.random.default_rng(2), []
    for x in series:
        steps = x.shape[:1] if x.ndim == 1 else (len(x), 1)
        expected.append(x + 0.4 * generator.standard_normal(steps))
    expected = [np.where(generator.random(x.shape) < 0.4, 0, x) for x in expected]
    for got, x in zip(noisy, expected, strict=True):
        steps = x.shape[:1] if x.ndim == 1 else (len(x), 1)
        np.testing.assert_allclose(got, np.where(generator.random(steps) < 0.4, 0, x))


def test_rows_of_an_array_are_series_of_numbers():
    noisy = structured_drop(np.ones((30, 50)), 0.4, seed=0)
    assert noisy.shape == (30, 50) and abs((noisy == 0).mean() - 0.4) < bound(0.4, 1500)


def test_nothing_is_left_at_level_one_and_all_at_level_zero():
    given = np.random.default_rng(0).normal(size=SHAPE)
    assert not add_timeseries_noise(given, 1).any()
    np.testing.assert_array_equal(add_timeseries_noise(given, 0), given)


def test_what_is_passed_stays_as_it_is_and_the_seed_alone_decides():
    given = [np.arange(12).reshape(4, 3), np.float32(ones())]
    kept = [x.copy() for x in given]
    first, again, other = (add_timeseries_noise(given, 0.5, seed=s) for s in (1, 1, 2))
    for x, old, a, b, c in zip(given, kept, first, again, other, strict=True):
        np.testing.assert_array_equal(x, old)
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()
    assert [x.dtype for x in first] == [np.float64, np.float32]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        random_drop(ones(), 2)
    with pytest.raises(ValueError, match="p is a deviation"):
        white_noise(ones(), -1)
    with pytest.raises(ValueError, match=r"must be \(samples, time, ...\), got the shape \(3,\)"):
        add_timeseries_noise(np.ones(3))
