"""Noise of tables: shares lost within bounds that chance keeps, and swaps as swaps, one by one."""

import numpy as np
import pytest

from deq_fusion.robustness.tabular_robust import add_tabular_noise, drop_entry, swap_entry

ROWS, COLUMNS = 200, 50


def table(rows=ROWS, columns=COLUMNS):
    return np.arange(1.0, rows * columns + 1).reshape(rows, columns)


def test_entries_are_lost_with_their_probability_and_the_others_stay():
    given = table()
    for p in (0.1, 0.5, 0.9):
        noisy = drop_entry(given, p, seed=1)
        lost = noisy == 0
        assert (noisy[~lost] == given[~lost]).all()
        assert abs(lost.mean() - p) < 5 * (p * (1 - p) / lost.size) ** 0.5
        # independent of row and column: each of these has its share, too
        for axis, count in ((0, ROWS), (1, COLUMNS)):
            assert np.abs(lost.mean(axis) - p).max() < 5.5 * (p * (1 - p) / count) ** 0.5


def swapped(row, swaps):
    """The definition, a pair after the other."""
    row = list(row)
    for j, swap in enumerate(swaps, start=1):
        if swap:
            row[j - 1], row[j] = row[j], row[j - 1]
    return row


@pytest.mark.parametrize("p", [0.0, 0.2, 0.7, 1.0])
def test_a_swap_exchanges_neighbours_from_left_to_right(p):
    given = table(20, 9)
    draws = np.random.default_rng(4).random((20, 8)) < p
    expected = [swapped(row, swaps) for row, swaps in zip(given, draws, strict=True)]
    noisy = swap_entry(given, p, seed=4)
    np.testing.assert_array_equal(noisy, expected)
    np.testing.assert_array_equal(np.sort(noisy, axis=1), given)  # nothing is lost or doubled
    assert swap_entry([[1, 2, 3]], 1).tolist() == [[2, 3, 1]]


def test_both_kinds_and_each_alone():
    given = table()
    only_swapped = add_tabular_noise(given, 0.5, drop=False, seed=0)
    np.testing.assert_array_equal(np.sort(only_swapped, axis=1), given)
    assert (only_swapped != given).mean() > 0.5
    only_lost = add_tabular_noise(given, 0.5, swap=False, seed=0)
    assert ((only_lost == 0) | (only_lost == given)).all() and (only_lost == 0).any()
    generator = np.random.default_rng(7)
    both = swap_entry(drop_entry(given, 0.5, seed=generator), 0.5, seed=generator)
    np.testing.assert_array_equal(add_tabular_noise(given, 0.5, seed=7), both)
    assert not add_tabular_noise(given, 1).any()
    np.testing.assert_array_equal(add_tabular_noise(given, 0), given)


def test_entries_may_be_arrays_of_which_all_is_lost_or_moved():
    given = np.random.default_rng(0).random((4, 3, 20)) + 1
    lost = drop_entry(given, 0.5, seed=0) == 0
    assert (lost.all(-1) == lost.any(-1)).all() and 0 < lost.mean() < 1
    assert (swap_entry(given, 1)[:, -1] == given[:, 0]).all()


def test_what_is_passed_stays_as_it_is_and_the_seed_alone_decides():
    given, kept = table(), table()
    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    first = add_tabular_noise(given, 0.5, seed=3)
    assert (np.random.get_state()[1] == state).all()  # the global generator is left alone
    np.testing.assert_array_equal(given, kept)
    np.testing.assert_array_equal(first, add_tabular_noise(given, 0.5, seed=3))
    assert (first != add_tabular_noise(given, 0.5, seed=4)).any()
    generator = np.random.default_rng(3)
    np.testing.assert_array_equal(first, add_tabular_noise(given, 0.5, seed=generator))
    assert (first != add_tabular_noise(given, 0.5, seed=generator)).any()  # which goes on
    assert add_tabular_noise(np.float32(given), 0.5).dtype == np.float32


@pytest.mark.parametrize("level", [-0.1, 1.1, float("nan")])
def test_a_level_that_is_no_probability_is_refused(level):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        add_tabular_noise(table(), level)


def test_what_is_no_table_is_refused():
    with pytest.raises(ValueError, match=r"must be \(rows, columns\), got the shape \(3,\)"):
        add_tabular_noise([1, 2, 3])
