"""Splits: shares, classes, groups, folds, and nothing but the run decides."""

import numpy as np
import pytest

from deq_fusion.own_data.splits import Splits

N = 200
CLASSES = np.repeat(["rare", "common"], [30, 170])
GROUPS = (np.arange(N) % 50).astype(str)


@pytest.mark.parametrize("classes", [None, CLASSES])
@pytest.mark.parametrize("groups", [None, GROUPS])
@pytest.mark.parametrize("folds", [None, 4])
def test_parts_cover_all_rows_once_and_follow_from_the_run(classes, groups, folds):
    splits = Splits(N, classes, groups, folds)
    parts = splits(3)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(N))
    for part, again in zip(parts, splits(3), strict=True):
        np.testing.assert_array_equal(part, again)
        assert (np.diff(part) > 0).all()
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(parts, splits(4), strict=True))
    if groups is not None:
        sets = [set(groups[part]) for part in parts]
        assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]


def test_shares_are_sixty_twenty_twenty_of_every_class():
    for part, share in zip(Splits(N, CLASSES)(0), (0.6, 0.2, 0.2), strict=True):
        assert [(CLASSES[part] == name).sum() for name in ("rare", "common")] == [
            30 * share,
            170 * share,
        ]


def test_shares_of_groups_are_near():
    sizes = [len(part) for part in Splits(N, CLASSES, GROUPS)(0)]
    assert sizes[0] >= 110 and sizes[1] >= 30 and sizes[2] >= 30


@pytest.mark.parametrize("groups", [None, GROUPS])
@pytest.mark.parametrize("classes", [None, CLASSES])
def test_folds_test_every_row_once_and_then_anew(classes, groups):
    splits = Splits(N, classes, groups, folds=5)
    assert splits.runs == 5
    tested = [splits(run)[2] for run in range(10)]
    for first in (0, 5):
        rows = np.concatenate(tested[first : first + 5])
        np.testing.assert_array_equal(np.sort(rows), np.arange(N))
    assert any(
        len(a) != len(b) or (a != b).any() for a, b in zip(tested[:5], tested[5:], strict=True)
    )


def test_a_test_set_of_its_own_leaves_the_rows_to_train_and_valid():
    train, valid, test = Splits(N, CLASSES, official=True)(0)
    assert (len(train), len(valid), len(test)) == (160, 40, 0)


@pytest.mark.parametrize(
    "given, runs",
    [
        ({"count": 999}, 20),
        ({"count": 1000}, 5),
        ({"count": 999, "official": True}, 10),
        ({"count": 2000, "official": True}, 5),
    ],
)
def test_the_number_of_runs_follows_the_protocol(given, runs):
    assert Splits(**given).runs == runs


def test_a_class_that_train_lacks_is_refused():
    classes = np.where(np.arange(N) < 8, "odd", "even")
    groups = np.where(np.arange(N) < 8, "one", np.arange(N) % 2)
    with pytest.raises(ValueError, match="in run .* it has none of .*, whose rows are in few"):
        for run in range(20):
            Splits(N, classes, groups)(run)


def test_a_class_of_a_single_group_is_learnt_from():
    classes = np.where(np.arange(N) < 8, "odd", "even")
    groups = np.where(np.arange(N) < 8, "one", np.arange(N).astype(str))
    for run in range(20):
        assert "odd" in classes[Splits(N, classes, groups)(run)[0]]


HOSPITALS = np.repeat(list("abcdefgh"), [80, 60, 40, 40, 30, 20, 20, 10])
OUTCOMES = np.resize(["mild", "mild", "severe", "none", "severe"], 300)


@pytest.mark.parametrize("classes", [None, OUTCOMES])
def test_few_groups_take_turns_at_being_tested(classes):
    splits = Splits(300, classes, HOSPITALS)
    tested = [frozenset(HOSPITALS[splits(run)[2]]) for run in range(20)]
    assert len(set(tested)) >= 8  # of the 28 pairs
    assert len(frozenset.union(*tested)) >= 7


@pytest.mark.parametrize("classes", [None, OUTCOMES])
def test_folds_of_few_groups_are_others_the_second_time(classes):
    splits = Splits(300, classes, HOSPITALS, folds=4)
    folds = [frozenset(HOSPITALS[splits(run)[2]]) for run in range(8)]
    assert set(folds[:4]) != set(folds[4:])
    for some in (folds[:4], folds[4:]):
        assert sorted(name for fold in some for name in fold) == list("abcdefgh")


@pytest.mark.parametrize("run", range(6))
def test_few_groups_are_parted_too(run):
    groups = np.arange(60) % 5
    splits = Splits(60, np.where(np.arange(60) // 5 % 2, "a", "b"), groups.astype(str), folds=2)
    parts = splits(run)
    assert all(len(part) for part in parts) and sum(map(len, parts)) == 60
    assert len({int(group) for part in parts for group in set(groups[part])}) == 5


def test_one_group_cannot_be_parted():
    groups = np.repeat(["all", "b", "c", "d", "e"], [40, 5, 5, 5, 5])
    splits = Splits(60, np.where(np.arange(60) % 2, "a", "b"), groups)
    with pytest.raises(ValueError, match="a group each, but run 7 leaves them 1 in all"):
        splits._cut(np.arange(40), 0.25, 7)
