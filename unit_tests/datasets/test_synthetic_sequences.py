"""Synthetic aligned sequences: what is to be told of them is what they say, and no more."""

from itertools import combinations

import numpy as np
import pytest
import torch

from deq_fusion.datasets.synthetic.sequences import (
    MODALITIES,
    WIDTHS,
    bayes,
    bayes_mse,
    draw,
    get_dataloader,
    mixture,
)

COUNT, STEPS, NOISE = 20_000, 5, 0.4
SUBSETS = [c for k in (1, 2, 3) for c in combinations(MODALITIES, k)]


@pytest.fixture(scope="module")
def drawn():
    return draw(COUNT, steps=STEPS, noise=NOISE, seed=0)


def of(views, modalities):
    return [views[MODALITIES.index(name)] for name in modalities]


def mse(prediction, told):
    return float(np.square(prediction - told).mean())


@pytest.mark.parametrize("modalities", SUBSETS, ids=" ".join)
def test_the_best_predictor_scores_what_is_known_of_it(drawn, modalities):
    views, told = drawn
    errors = np.square(bayes(of(views, modalities), modalities) - told)
    expected = bayes_mse(modalities, steps=STEPS, noise=NOISE)
    assert errors.mean() == pytest.approx(expected, abs=4 * errors.std() / COUNT**0.5)
    scales = 0.5, 0.8, 1.2  # it is the best: another multiple of it is worse
    best = bayes(of(views, modalities), modalities)
    if best.any():
        assert all(mse(s * best, told) > errors.mean() for s in scales)


def test_without_noise_nothing_is_left_to_chance():
    views, told = draw(100, steps=STEPS, noise=0.0, seed=1)
    np.testing.assert_allclose(bayes(views), told, atol=1e-5)
    assert bayes_mse(steps=STEPS, noise=0.0) == 0


def test_another_order_of_the_steps_of_one_modality_destroys_the_agreement(drawn):
    views, told = drawn
    rng = np.random.default_rng(1)
    order = rng.permuted(np.tile(np.arange(STEPS), (COUNT, 1)), axis=1)
    audio = np.take_along_axis(views[1], order[..., None], axis=1)
    # the marked sign is one of STEPS: in a step out of STEPS still the right one, else a coin
    expected = NOISE**2 + 2 * (1 - 1 / STEPS)
    assert mse(bayes([views[0], audio, views[2]]), told) == pytest.approx(expected, abs=0.05)
    same = np.take_along_axis
    moved = [same(view, order[..., None], axis=1) for view in views]
    assert mse(bayes(moved), told) == pytest.approx(mse(bayes(views), told))


def test_no_modality_and_no_sum_over_modalities_tells_of_the_agreement(drawn):
    views, told = drawn
    flat = np.concatenate([view.reshape(COUNT, -1) for view in views], 1).astype(float)
    design = np.c_[flat, np.ones(COUNT)]
    weights = np.linalg.lstsq(design[::2], told[::2], rcond=None)[0]
    unseen = mse(design[1::2] @ weights, told[1::2])
    # linear: the mean of the words, a share of 1 / STEPS of what the marked one explains
    assert unseen == pytest.approx(NOISE**2 + 1 + 0.25 * (1 - 1 / STEPS), abs=0.05)


def test_mixtures_are_orthogonal_and_marks_are_one_a_sequence(drawn):
    views, _ = drawn
    for name, width in WIDTHS.items():
        np.testing.assert_allclose(mixture(name) @ mixture(name).T, np.eye(width), atol=1e-12)
    marks = (views[0] @ mixture("text").T)[..., 0]
    np.testing.assert_allclose(np.sort(marks, 1), [[0] * (STEPS - 1) + [1]] * COUNT, atol=1e-5)
    assert np.abs(marks.mean(0) - 1 / STEPS).max() < 0.015


def test_loaders_serve_disjoint_parts_that_the_seed_decides():
    options = {"sizes": (30, 20, 10), "steps": STEPS, "batch_size": None}
    loaders = get_dataloader(**options, modalities=("video", "text"))
    batches = [next(iter(loader)) for loader in loaders]
    widths = [(STEPS, WIDTHS["video"]), (STEPS, WIDTHS["text"]), (1,)]
    for batch, size in zip(batches, (30, 20, 10), strict=True):
        assert [tuple(x.shape) for x in batch] == [(size, *shape) for shape in widths]
        assert {x.dtype for x in batch} == {torch.float32}
    truths = torch.cat([batch[-1] for batch in batches]).flatten()
    assert len(truths.unique()) == 60
    again, other = (get_dataloader(**options, seed=seed) for seed in (0, 1))
    assert torch.equal(next(iter(again[2]))[-1], batches[2][-1])
    assert not torch.equal(next(iter(other[2]))[-1], batches[2][-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ("text", "smell")}, r"modalities must be some of \['text'.*got \['text'"),
        ({"modalities": ()}, r"modalities must be some of .*got \[\]"),
        ({"sizes": (10, 10)}, r"sizes must be three numbers from 1 up.*sizes=\[10, 10\]"),
        ({"sizes": (10, 0, 10)}, r"sizes=\[10, 0, 10\]"),
        ({"steps": 0}, "steps=0"),
        ({"noise": -1.0}, "noise=-1.0"),
        ({"noise": float("nan")}, "noise=nan"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        get_dataloader(**options)
