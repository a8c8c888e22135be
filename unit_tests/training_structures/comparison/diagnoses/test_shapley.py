"""Shapley values and interactions, against all orderings, and of models built by hand."""

from itertools import permutations

import numpy as np
import pytest

from deq_fusion.training_structures.comparison.diagnoses.looking import strengths
from deq_fusion.training_structures.comparison.diagnoses.shapley import (
    interactions,
    intershap,
    shapley,
)


def over_orderings(values, count):
    """Each player's mean gain over all orders in which they may come."""
    found, orders = np.zeros((count, *values.shape[1:])), list(permutations(range(count)))
    for order in orders:
        there = 0
        for player in order:
            found[player] += values[there | 1 << player] - values[there]
            there |= 1 << player
    return found / len(orders)


def game(function, views):
    """Every set's output of a function of the views, absent ones at their means."""
    means = [np.broadcast_to(view.mean(0), view.shape) for view in views]
    return np.stack(
        [
            function(*(view if s >> i & 1 else means[i] for i, view in enumerate(views)))
            for s in range(2 ** len(views))
        ]
    )


def score(function, views):
    return intershap(strengths(list(game(function, views))))


@pytest.fixture
def views():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(200, 4)) for _ in range(3)]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_shapley_values_are_the_mean_gains_over_all_orders_and_sum_to_the_whole(count):
    values = np.random.default_rng(count).normal(size=(2**count, 5, 2))
    found = shapley(values)
    np.testing.assert_allclose(found, over_orderings(values, count), atol=1e-12)
    np.testing.assert_allclose(found.sum(0), values[-1] - values[0], atol=1e-12)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_row_of_interactions_sums_to_the_shapley_value(count):
    values = np.random.default_rng(count).normal(size=(2**count, 5))
    found = interactions(values)
    np.testing.assert_allclose(found, found.swapaxes(0, 1))
    np.testing.assert_allclose(found.sum(1), over_orderings(values, count), atol=1e-12)


def test_of_two_players_half_of_what_they_do_together_is_on_each_side():
    found = interactions(np.array([1.0, 4.0, 6.0, 20.0]))  # nothing, a, b, both
    together = (20 + 1 - 4 - 6) / 2
    np.testing.assert_allclose(found, [[3, together], [together, 5]])


def test_three_players_against_the_formula_written_out():
    v = np.random.default_rng(1).normal(size=8)

    def both(s, i, j):
        return v[s | i | j] + v[s] - v[s | i] - v[s | j]

    found = interactions(v)
    # M = 3: of no third player 0! 1! / (2 2!), of one 1! 0! / (2 2!)
    for place, (i, j, k) in {(0, 1): (1, 2, 4), (0, 2): (1, 4, 2), (1, 2): (2, 4, 1)}.items():
        assert found[place] == pytest.approx((both(0, i, j) + both(k, i, j)) / 4)


def test_an_additive_model_has_no_interaction_to_rounding(views):
    def added(a, b, c):
        return np.tanh(a) @ np.ones((4, 3)) + b**2 @ np.eye(4, 3) - c[:, :3]

    assert score(added, views) < 1e-14


def test_interaction_grows_with_synergy_to_all_there_is(views):
    def model(synergy):
        return lambda a, b, c: (1 - synergy) * (a + b + c) + synergy * a * b

    found = [score(model(synergy), views) for synergy in (0, 0.2, 0.5, 0.8, 1)]
    assert found == sorted(found) and found[0] < 1e-14 and found[1] > 0.01
    assert score(lambda a, b, c: (a - a.mean(0)) * (b - b.mean(0)), views) == pytest.approx(1)


def test_effects_of_either_sign_do_not_cancel():
    signs = np.array([[1.0], [-1.0]])
    parity = [0 * signs, 0 * signs, 0 * signs, signs]
    assert intershap(strengths(parity)) == 1


def test_a_model_that_does_nothing_has_no_share():
    assert np.isnan(intershap(np.zeros((2, 2))))


@pytest.mark.parametrize("sets", [0, 1, 3, 6])
def test_a_game_needs_a_value_for_every_set(sets):
    with pytest.raises(ValueError, match=rf"each of the 2\^M sets of M modalities, got {sets}"):
        shapley(np.zeros(sets))
