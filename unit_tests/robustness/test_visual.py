"""Noise of pictures: each change against arithmetic on the array, sizes and kinds kept."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from deq_fusion.robustness import visual_robust
from deq_fusion.robustness.visual_robust import add_visual_noise, light

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")

FLAGS = dict.fromkeys(
    ("gray", "contrast", "inv", "temp", "color", "s_and_p", "gaus", "rot", "flip", "crop"), False
)
HEIGHT, WIDTH = 24, 40


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def only(flag, picture, level=1.0, seed=0):
    return add_visual_noise([picture], level, **FLAGS | {flag: True}, seed=seed)[0]


def test_simple_changes_are_what_they_say(picture):
    assert_array_equal(only("inv", picture), 255 - picture)
    assert_array_equal(only("flip", picture), picture[:, ::-1])
    grey = only("gray", picture)
    weights = np.array([0.299, 0.587, 0.114])  # ITU-R 601-2
    assert np.ptp(grey, axis=2).max() == 0 and np.abs(grey[..., 0] - picture @ weights).max() < 1
    mean = int((picture @ weights).mean() + 0.5)
    assert np.abs(only("contrast", picture) - (picture / 2 + mean / 2)).max() <= 1


def test_a_tint_is_a_third_of_red_blue_or_green(picture):
    expected = []
    for colour in ((255, 0, 0), (0, 0, 255), (0, 128, 0)):
        expected.append(0.7 * picture + 0.3 * np.array(colour))
    found = {
        next(
            i
            for i, e in enumerate(expected)
            if np.abs(only("color", picture, seed=s) - e).max() <= 1
        )
        for s in range(20)
    }
    assert found == {0, 1, 2}


def test_light_is_red_when_cool_and_white_at_6600_kelvin(picture):
    assert light(6600) == pytest.approx((1, 1, 1), abs=0.005)
    assert light(1000)[0] == 1 and light(1000)[1] < 0.3 and light(1000)[2] == 0
    assert light(10000)[2] == 1 > light(10000)[1] > light(10000)[0] > 0.7
    blues = [light(kelvin)[2] for kelvin in visual_robust.KELVIN]
    assert blues == sorted(blues)
    noisy = only("temp", picture, seed=5)
    scale = noisy.reshape(-1, 3).mean(0) / picture.reshape(-1, 3).mean(0)
    lights = np.array([light(kelvin) for kelvin in visual_robust.KELVIN])
    assert np.abs(lights - scale).max(axis=1).min() < 0.01


@pytest.mark.parametrize("level", [0.1, 0.6])
def test_salt_is_white_pepper_is_black_and_the_rest_stays(level):
    picture = np.full((200, 100, 3), 90, dtype=np.uint8)
    picture[..., 1] = 130
    seeds = (s for s in range(100) if np.random.default_rng(s).random() < level)
    noisy = only("s_and_p", picture, level, next(seeds))
    salt, pepper = (noisy == 255).all(2), (noisy == 0).all(2)
    assert (noisy[~salt & ~pepper] == (90, 130, 90)).all()
    share = 1 - np.exp(-level / 2)  # drawn places may coincide
    assert abs(pepper.mean() - share) < 0.01
    assert abs(salt.mean() - share * np.exp(-level / 2)) < 0.01  # pepper comes last
    assert (salt | pepper)[-1].any() and (salt | pepper)[:, -1].any()


def test_gaussian_noise_is_a_share_of_the_grey_levels_and_is_cut():
    level = 0.1
    picture = np.full((100, 100, 3), 128, dtype=np.uint8)
    seed = next(s for s in range(100) if np.random.default_rng(s).random() < level)
    noise = only("gaus", picture, level, seed).astype(float) - 128
    assert np.ptp(noise, axis=2).max() == 0
    assert abs(noise[..., 0].std() - 25.5) < 5 * 25.5 / 20_000**0.5
    black = only("gaus", np.zeros_like(picture), level, seed)
    assert abs((black == 0).all(2).mean() - 0.5) < 0.05  # half is cut, none comes out white
    assert black.max() < 140


def test_a_crop_is_a_part_of_the_picture_at_its_size():
    ramp = np.tile(np.arange(0, 200, 2, dtype=np.uint8), (50, 1))
    for seed in range(5):
        noisy = only("crop", ramp, seed=seed)
        assert noisy.shape == ramp.shape
        slope = np.diff(noisy[25, 10:90].astype(float)).mean()
        assert slope == pytest.approx(2 * 0.8, abs=0.05)  # four fifths of the width


def test_a_rotation_keeps_the_middle_and_stays_within_twenty_degrees():
    bar = np.zeros((101, 101), dtype=np.uint8)
    bar[50] = 255
    angles = []
    for seed in range(12):
        rows, columns = np.nonzero(only("rot", bar, seed=seed) > 100)
        angles.append(np.degrees(np.arctan(np.polyfit(columns, rows, 1)[0])))
    assert max(map(abs, angles)) < 20.5 and min(angles) < -5 and max(angles) > 5


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (HEIGHT, WIDTH, 3)])
def test_size_and_kind_are_kept_and_the_seed_alone_decides(shape):
    given = np.random.default_rng(1).integers(0, 256, (3, *shape), dtype=np.uint8)
    kept = given.copy()
    first, again, other = (add_visual_noise(given, 0.5, seed=s) for s in (1, 1, 2))
    assert_array_equal(given, kept)
    assert len(first) == 3 and all(x.shape == shape and x.dtype == np.uint8 for x in first)
    assert_array_equal(first, again)
    assert (np.array(first) != np.array(other)).any()
    assert_array_equal(add_visual_noise(given, 0), given)


def test_changes_happen_with_their_probability(picture):
    flipped = [(only("flip", picture, 0.3, seed) != picture).any() for seed in range(400)]
    assert abs(np.mean(flipped) - 0.3) < 5 * (0.21 / 400) ** 0.5


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match=r"a picture must be .* got float64 of shape \(2, 2, 7\)"):
        add_visual_noise([np.ones((2, 2, 7))])
