"""The moves of the search: by brute force, by formula, and random ones by counting."""

import math
import random
from collections import Counter
from itertools import product

import numpy as np
import pytest
from scipy.stats import chisquare

from deq_fusion.utils import search_tools as tools

ACCURACIES = [0.9, 0.6, 0.3, 0.75]
DRAWS = 3000


@pytest.fixture(autouse=True)
def numpy_seeded():
    before, python = np.random.get_state(), random.getstate()
    np.random.seed(0)
    random.seed(0)
    yield
    np.random.set_state(before)
    random.setstate(python)


def law(temperature, accuracies=ACCURACIES):
    """The softmax of log(accuracy) / temperature."""
    weights = [math.exp(math.log(a) / temperature) for a in accuracies]
    return np.array(weights) / sum(weights)


def frequencies(k, temperature):
    """How often each of the configurations, which are numbers here, is among k drawn."""
    counts = Counter()
    for _ in range(DRAWS):
        drawn = tools.sample_k_configurations(range(4), ACCURACIES, k, temperature)
        assert len(set(drawn)) == k
        counts.update(drawn)
    return np.array([counts[i] for i in range(4)])


@pytest.mark.parametrize("temperature", [10.0, 1.0, 0.2])
def test_one_is_drawn_by_the_softmax(temperature):
    counts = frequencies(1, temperature)
    assert chisquare(counts, DRAWS * law(temperature)).pvalue > 0.001
    # and the bound tells temperatures apart
    assert chisquare(counts, DRAWS * law(2 * temperature if temperature < 5 else 1)).pvalue < 1e-6


def test_two_are_drawn_one_after_the_other_without_replacement():
    p = law(0.5)
    pairs = [(i, j) for i, j in product(range(4), repeat=2) if i != j]
    included = np.zeros(4)
    for i, j in pairs:
        included[[i, j]] += p[i] * p[j] / (1 - p[i])
    counts = frequencies(2, 0.5)
    deviation = np.sqrt(DRAWS * included * (1 - included))
    assert np.all(np.abs(counts - DRAWS * included) < 4 * deviation)
    assert np.any(np.abs(counts - DRAWS * np.minimum(2 * p, 1)) > 4 * deviation)


def test_the_draws_are_numpys_global_ones_by_multibenchs_formula():
    configurations = [np.array([[i, i]]) for i in range(4)]
    np.random.seed(3)
    drawn = tools.sample_k_configurations(configurations, ACCURACIES, 3, 0.7)
    np.random.seed(3)
    powered = (np.array(ACCURACIES) / sum(ACCURACIES)) ** (1 / 0.7)
    expected = np.random.choice(4, 3, replace=False, p=powered / powered.sum())
    assert [int(conf[0, 0]) for conf in drawn] == expected.tolist()
    np.random.seed(3)
    uniform = tools.sample_k_configurations_uniform("abcd", 5)
    np.random.seed(3)
    assert uniform == ["abcd"[i] for i in np.random.choice(4, 5)]


def test_all_are_drawn_where_there_are_fewer_and_zeros_come_last():
    assert sorted(tools.sample_k_configurations("abc", [0.1, 0.5, 0.2], 15, 1.0)) == list("abc")
    counts = Counter()
    for _ in range(600):
        drawn = tools.sample_k_configurations("abcd", [0.0, 0.5, 0.0, 0.0], 2, 1.0)
        assert drawn[0] == "b"
        counts[drawn[1]] += 1
    assert counts.keys() == set("acd") and chisquare(list(counts.values())).pvalue > 0.001
    none = [tools.sample_k_configurations("ab", [0.0, 0.0], 1, 1.0)[0] for _ in range(200)]
    assert chisquare(list(Counter(none).values())).pvalue > 0.001 and len(set(none)) == 2


def test_small_accuracies_and_temperatures_lose_nothing():
    drawn = tools.sample_k_configurations("ab", [1e-200, 2e-200], 2, 0.01)
    assert sorted(drawn) == list("ab")
    assert tools.sample_k_configurations("ab", [1e-200, 2e-200], 1, 0.01) == ["b"]


@pytest.mark.parametrize(
    ("accuracies", "temperature", "said"),
    [
        ([0.1, -0.1], 1.0, "from 0 on"),
        ([0.1, math.nan], 1.0, "from 0 on"),
        ([0.1, math.inf], 1.0, "finite"),
        ([0.1], 1.0, "each of the 2"),
        ([0.1, 0.2], 0.0, "temperature must be positive"),
    ],
)
def test_what_has_no_probability_is_refused(accuracies, temperature, said):
    with pytest.raises(ValueError, match=said):
        tools.sample_k_configurations("ab", accuracies, 1, temperature)


def test_merging_tries_every_layer_on_every_configuration():
    layers = [[0, 1], [2, 3]]
    first = tools.merge_unfolded_with_sampled([], layers, 0)
    assert [conf.tolist() for conf in first] == [[[0, 1]], [[2, 3]]]
    with pytest.raises(ValueError, match="layer must be the first"):
        tools.merge_unfolded_with_sampled([], layers, 1)
    before = [np.array([[4, 5], [6, 7]]), np.array([[8, 9]])]
    for place in range(3):
        expected = []
        for conf, layer in product(before, layers):
            rows = conf.tolist()
            if place < len(rows):
                rows[place] = layer
            else:
                rows.append(layer)
            expected.append(rows)
        merged = tools.merge_unfolded_with_sampled(before, layers, place)
        assert [conf.tolist() for conf in merged] == expected
    assert [conf.tolist() for conf in before] == [[[4, 5], [6, 7]], [[8, 9]]]


def test_a_random_search_draws_every_layer_from_what_it_can_be():
    def possible(layer):
        return [[layer, i] for i in range(3)]

    drawn = tools.sample_k_configurations_directly(300, 3, possible)
    for conf in drawn:
        assert conf[:, 0].tolist() == list(range(len(conf)))
    assert chisquare(list(Counter(map(len, drawn)).values())).pvalue > 0.001
    assert chisquare(list(Counter(conf[-1, 1] for conf in drawn).values())).pvalue > 0.001


def test_the_temperature_falls_by_its_formula():
    temperatures = [tools.compute_temperature(i, 10.0, 0.2, 4.0) for i in range(12)]
    expected = [0.2 + 9.8 * math.e ** -(((i + 1) ** 2) / 16) for i in range(12)]
    np.testing.assert_allclose(temperatures, expected, rtol=1e-12)
    assert temperatures == sorted(temperatures, reverse=True)
