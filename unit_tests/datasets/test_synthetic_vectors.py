"""Synthetic vectors: drawn as they say, and their best accuracy is what the best rule gets.

What is known is derived a second time, in closed form or by other quadrature, and a third time by
the rule's own score on many samples.
"""

from itertools import combinations, product
from math import comb

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import k0, ndtr
from scipy.stats import norm

from deq_fusion.datasets.synthetic.vectors import (
    KINDS,
    MODALITIES,
    Structure,
    get_dataloader,
    mixture,
)

COUNT = 20_000
SIGNS = [kind for kind in KINDS if kind not in ("additive", "product", "steep")]


@pytest.fixture(scope="module")
def three():
    """Of every kind a set of three modalities, with samples of it."""
    made = {kind: Structure(kind, 3, noise=0.15, width=5) for kind in KINDS}
    return {kind: (s, *s.draw(COUNT, seed=1)) for kind, s in made.items()}


def subsets(names):
    return [c for k in range(1, len(names) + 1) for c in combinations(names, k)]


def of(views, names):
    return [views[MODALITIES.index(name)] for name in names]


@pytest.mark.parametrize("kind", KINDS)
def test_the_rule_gets_what_is_known_of_it_by_any_modalities(three, kind):
    structure, views, classes = three[kind]
    for names in subsets(structure.names):
        chances = structure.posterior(of(views, names), names)
        known = structure.accuracy(names)
        margin = 4.5 * 0.5 / COUNT**0.5
        assert np.maximum(chances, 1 - chances).mean() == pytest.approx(known, abs=margin)
        told = np.abs(chances - 0.5) > 1e-9  # elsewhere it may guess what it likes
        right = np.where(told, (chances > 0.5) == classes, 0.5)
        assert right.mean() == pytest.approx(known, abs=margin)


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_right_wherever_they_are_said(three, kind):
    structure, views, classes = three[kind]
    for names in (structure.names, structure.names[:1], structure.names[1:]):
        chances = structure.posterior(of(views, names), names)
        for low in np.arange(0, 1, 0.2):
            inside = (chances >= low) & (chances < low + 0.2 + 1e-6)
            error = (classes - chances)[inside].sum()
            spread = max(1.0, (chances * (1 - chances))[inside].sum()) ** 0.5
            assert abs(error) < 4.5 * spread


@pytest.mark.parametrize(("kind", "modalities"), list(product(KINDS, (2, 4, 5))))
def test_any_number_of_modalities(kind, modalities):
    structure = Structure(kind, modalities)
    views, classes = structure.draw(2000, seed=2)
    assert [view.shape for view in views] == [(2000, 8)] * modalities
    chances = structure.posterior(views)
    right = np.where(np.abs(chances - 0.5) > 1e-9, (chances > 0.5) == classes, 0.5).mean()
    assert right == pytest.approx(structure.accuracy(), abs=4.5 * 0.5 / 2000**0.5)
    backwards = structure.names[::-1]
    np.testing.assert_allclose(structure.posterior(views[::-1], backwards), chances, atol=1e-9)


def majority(count, wrong):
    """The probability that most of so many votes are right; half of a draw's."""
    total = 0.0
    for right in range(count + 1):
        chance = comb(count, right) * (1 - wrong) ** right * wrong ** (count - right)
        total += chance * (1.0 if 2 * right > count else 0.5 if 2 * right == count else 0.0)
    return total


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_scores_of_signs_in_closed_form(count, noise):
    def known(kind, names=None, **more):
        return pytest.approx(Structure(kind, count, noise=noise, **more).accuracy(names), abs=1e-12)

    assert majority(count, noise) == known("redundant")
    assert majority(count - 1, noise) == known("redundant", MODALITIES[1:count])
    assert 1 - noise == known("unique") == known("unique", ["first"])
    assert 0.5 == known("unique", ["second"]) == known("noise")
    for order in range(2, 7):
        assert 0.5 + 0.5 * (1 - 2 * noise) ** order == known("parity", order=order)
    assert 0.5 == known("parity", MODALITIES[: count - 1])
    marked = [comb(count, n) / 2**count * majority(n, noise) for n in range(count + 1)]
    assert sum(marked) == known("exchanged")
    assert 0.75 - 0.5 * noise == known("exchanged", ["first"])


def test_scores_of_gates_in_closed_form():
    noise = 0.1
    found = 0.9  # that the seen gate is right: then the part is, as often as it is seen right
    by_gate = {2: found, 3: found, 4: found**2, 5: found**2}
    for count, found in by_gate.items():
        structure = Structure("gated", count, noise=noise)
        expected = found * (1 - noise) + (1 - found) / 2
        assert structure.accuracy() == pytest.approx(expected, abs=1e-12)
        assert structure.accuracy(["first"]) == pytest.approx(0.5, abs=1e-12)
    last = Structure("gated", 5, noise=noise).accuracy(["fifth"])  # one part of four
    assert last == pytest.approx(0.5 + (0.5 - noise) / 4, abs=1e-12)


def test_contradicting_modalities_are_weighed_by_how_often_they_are_right():
    wrong = [0.1, 0.2, 0.3, 0.4]  # in even steps from 0.1 towards 0.5
    total = 0.0
    for seen in product([True, False], repeat=4):
        chance, odds = 1.0, 0.0
        for right, p in zip(seen, wrong, strict=True):
            chance *= 1 - p if right else p
            odds += (1 if right else -1) * np.log((1 - p) / p)
        total += chance * (odds > 0)
    structure = Structure("conflicting", 4, noise=0.1)
    assert structure.accuracy() == pytest.approx(total, abs=1e-12)
    for name, p in zip(structure.names, wrong, strict=True):
        assert structure.accuracy([name]) == pytest.approx(1 - p, abs=1e-12)


@pytest.mark.parametrize("noise", [0.05, 0.5, 2.0])
def test_scores_of_numbers_by_other_integrals(noise):
    def right(value):
        return ndtr(value / noise)

    mean = quad(lambda s: 2 * norm.pdf(s) * right(s), 0, 9, points=[noise])[0]
    for count in (2, 5):
        assert Structure("additive", count, noise=noise).accuracy() == pytest.approx(mean, abs=1e-7)
    halves = quad(  # one of two known: what is left is the other, and the noise
        lambda s: 2 * norm.pdf(s, scale=0.5**0.5) * ndtr(s / np.hypot(0.5**0.5, noise)), 0, 9
    )[0]
    alone = Structure("additive", 2, noise=noise).accuracy(["second"])
    assert alone == pytest.approx(halves, abs=1e-7)
    phases = np.sin(np.pi * (np.arange(20_000) + 0.5) / 20_000)
    steep = Structure("steep", 3, noise=noise).accuracy()
    assert steep == pytest.approx(right(phases).mean(), abs=1e-7)
    # two normal numbers' product has the density K0(|p|) / pi
    two = quad(lambda p: 2 * k0(p) / np.pi * right(p), 0, 40, points=[noise], limit=200)[0]
    assert Structure("product", 2, noise=noise).accuracy() == pytest.approx(two, abs=1e-7)
    points, weights = np.polynomial.legendre.leggauss(200)  # of the other two of three
    sizes, weights = 4 * (points + 1), 8 * weights * norm.pdf(4 * (points + 1))
    three = weights @ (0.5 + np.arctan(np.outer(sizes, sizes) / noise) / np.pi) @ weights
    assert Structure("product", 3, noise=noise).accuracy() == pytest.approx(three, abs=1e-7)


@pytest.mark.parametrize("order", [4, 5, 6])
def test_scores_of_long_products_by_drawing(order):
    sizes = np.abs(np.random.default_rng(0).normal(size=(200_000, order)).prod(1))
    chances = ndtr(sizes / 0.2)
    known = Structure("product", 3, order, noise=0.2).accuracy()
    assert known == pytest.approx(chances.mean(), abs=4.5 * chances.std() / 200_000**0.5)


@pytest.mark.parametrize("kind", ["additive", "product", "steep", "parity", "unique"])
def test_without_noise_nothing_is_left_to_chance(kind):
    structure = Structure(kind, 3, noise=0.0)
    assert structure.accuracy() == pytest.approx(1, abs=1e-12)
    views, classes = structure.draw(500, seed=3)
    np.testing.assert_array_equal(structure.posterior(views) > 0.5, classes == 1)


def test_classes_are_even_and_no_sum_over_modalities_tells_a_parity(three):
    for _, _, classes in three.values():
        assert classes.mean() == pytest.approx(0.5, abs=4.5 * 0.5 / COUNT**0.5)
    _, views, classes = three["parity"]
    design = np.c_[np.concatenate(views, 1), np.ones(COUNT)].astype(float)
    weights = np.linalg.lstsq(design[::2], classes[::2], rcond=None)[0]
    assert ((design[1::2] @ weights > 0.5) == classes[1::2]).mean() == pytest.approx(0.5, abs=0.02)


def test_a_steeper_sine_turns_more_often():
    """Its class changes at every multiple of 1 / frequency of the sum, and nowhere else."""
    for frequency in (1, 4):
        structure = Structure("steep", 2, noise=0.0, frequency=frequency, width=1)
        views, classes = structure.draw(3000, seed=4)
        total = sum(v[:, 0] * mixture(m, 1)[0, 0] for m, v in enumerate(views))
        half = np.floor(total * frequency)
        clear = np.abs(total * frequency - np.round(total * frequency)) > 1e-4
        np.testing.assert_array_equal((half % 2 == 0)[clear], (classes == 1)[clear])


def test_loaders_serve_disjoint_parts_that_the_seed_decides():
    structure = Structure("gated", 3)
    options = {"sizes": (30, 20, 10), "batch_size": None}
    loaders = get_dataloader(structure, **options, modalities=["third", "first"])
    batches = [next(iter(loader)) for loader in loaders]
    assert [[tuple(x.shape) for x in b] for b in batches] == [
        [(n, 8), (n, 8), (n,)] for n in (30, 20, 10)
    ]
    assert batches[0][-1].dtype == torch.int64 and loaders[2].dataset.modalities[0] == "third"
    views, classes = structure.draw(60, seed=0)
    assert torch.equal(batches[2][0], torch.from_numpy(views[2][50:]))
    assert torch.equal(batches[2][-1], torch.from_numpy(classes[50:]))
    other = get_dataloader(structure, **options, seed=1)
    assert not torch.equal(next(iter(other[2]))[1], batches[2][0])
    assert len({float(x[0]) for b in batches for x in b[0]}) == 60


def test_classes_are_wrong_where_one_learns_and_right_where_it_is_scored():
    sizes = (4000, 1000, 1000)
    structure = Structure("unique")
    right, wrong = (
        [loader.dataset.tensors for loader in get_dataloader(structure, sizes=sizes, mislabelled=m)]
        for m in (0.0, 0.3)
    )
    shares = [(a[-1] != b[-1]).double().mean() for a, b in zip(right, wrong, strict=True)]
    assert shares == [pytest.approx(0.3, abs=0.05), pytest.approx(0.3, abs=0.08), 0]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(right, wrong, strict=True))


@pytest.mark.parametrize("kind", SIGNS)
def test_a_sign_is_a_probability(kind):
    with pytest.raises(ValueError, match="noise must be 0 or more and below 0.5, .* got 0.5"):
        Structure(kind, noise=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "xor"}, r"kind must be one of \['redundant', .* got 'xor'"),
        ({"kind": "parity", "modalities": 1}, "modalities must be .* from 2 to 5, got 1"),
        ({"kind": "parity", "modalities": 6}, "modalities must be .* from 2 to 5, got 6"),
        ({"kind": "parity", "modalities": 2.5}, "modalities must be .* got 2.5"),
        ({"kind": "parity", "order": 7}, "order must be .* from 2 to 6, got 7"),
        ({"kind": "product", "order": 1}, "order must be .* got 1"),
        ({"kind": "additive", "noise": -1.0}, "noise must be 0 or more and finite, got -1.0"),
        ({"kind": "additive", "noise": float("nan")}, "noise must be .* got nan"),
        ({"kind": "steep", "frequency": 0}, "frequency must be a whole number from 1 up, got 0"),
        ({"kind": "parity", "order": 6, "width": 2}, "width must be 3 or more for this set, got 2"),
        ({"kind": "noise", "width": 0}, "width must be 1 or more for this set, got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Structure(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": (10, 10)}, r"sizes must be three numbers from 1 up.*sizes=\[10, 10\]"),
        ({"sizes": (10, 0, 10)}, r"sizes=\[10, 0, 10\]"),
        ({"mislabelled": 2.0}, "mislabelled a share.*mislabelled=2.0"),
        ({"modalities": ["third"]}, r"names out of \['first', 'second'\], got \['third'\]"),
        ({"modalities": []}, r"got \[\]"),
        ({"modalities": ["first", "first"]}, r"different names .* got \['first', 'first'\]"),
    ],
)
def test_loaders_refuse_what_makes_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        get_dataloader(Structure("parity"), **options)
