"""How well a column tells the target alone, against loops written from the definition."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, r2_score

from deq_fusion.own_data import own_data
from deq_fusion.own_data.alone import FOLDS, LEAKING, TELLING, _folds, described, telling
from deq_fusion.own_data.refusals import Leak

RNG = np.random.default_rng(0)
N = 240


def by_loops(values, truth, fold, answer):
    """What rows are told that are held out, value by value: None where it was not there."""
    told = []
    for value, own in zip(values, fold, strict=True):
        known = (values == value) & (fold != own)
        told.append(answer(truth[known], truth[fold != own]) if known.any() else None)
    return told


def test_classes_are_told_as_a_loop_over_held_out_rows_tells_them():
    y = RNG.choice(3, p=[0.6, 0.3, 0.1], size=N)
    column = np.where(RNG.random(N) < 0.7, y, RNG.integers(5, size=N)).astype(float)
    fold = _folds(N, y[:, None], "classification", None)

    def likeliest(here, everywhere):
        return np.argmax([np.mean(here == c) / np.mean(everywhere == c) for c in range(3)])

    guess = by_loops(column, y, fold, likeliest)
    (found,) = telling({"t": pd.DataFrame({"code": column})}, y, "classification")
    assert found.score == pytest.approx(balanced_accuracy_score(y, guess))
    assert found.way == pytest.approx((found.score - 1 / 3) / (2 / 3))
    assert str(found) == f"code of t ({100 * found.score:.0f} %)"


def test_numbers_are_told_as_a_loop_over_held_out_rows_tells_them():
    column = RNG.integers(6, size=N).astype(float)
    y = column**2 + RNG.normal(size=N) * 5
    fold = _folds(N, y[:, None], "regression", None)
    guess = by_loops(column, y, fold, lambda here, everywhere: here.mean())
    (found,) = telling({"t": column[:, None]}, y[:, None], "regression")
    assert found.score == found.way == pytest.approx(r2_score(y, guess))
    assert str(found) == f"column 0 of t ({found.score:.2f})"


def test_words_missing_cells_and_several_labels_count_too():
    y = np.arange(N) % 2
    words = np.where(RNG.random(N) < 0.8, np.array(["ill", "well"])[y], "unsure").astype(object)
    gone = np.where(y == 1, np.nan, RNG.normal(size=N))
    frame = pd.DataFrame({"noise": RNG.normal(size=N), "word": words, "gone": gone})
    found = telling({"t": frame}, np.stack([RNG.integers(2, size=N), y], 1), "multilabel")
    assert [each.column for each in found] == ["gone", "word"] and found[0].way == 1
    assert TELLING < found[1].way < 1


def test_what_only_names_a_group_tells_nothing_of_other_groups():
    groups = np.repeat(np.arange(40), 6)
    y = RNG.integers(2, size=40)[groups]
    frame = pd.DataFrame({"ward": [f"w{g}" for g in groups // 2 * 2 + y], "score": groups + 0.0})
    assert telling({"t": frame}, y, "classification")
    assert telling({"t": frame[["score"]]}, y, "classification", groups.astype(str)) == []
    fold = _folds(N, y[:, None], "classification", groups)
    assert all(len(set(fold[groups == g])) == 1 for g in range(40))
    assert (np.bincount(fold) == N / FOLDS).all()


@pytest.mark.parametrize("share", [0.9, 0.95, 0.98, 1])
def test_a_code_that_is_mostly_the_class_is_warned_of(share):
    y = np.arange(N) % 2
    code = np.where(RNG.permutation(N) < share * N, y, 1 - y).astype(float)
    tables = {"a": RNG.normal(size=(N, 3)), "b": pd.DataFrame({"code": code})}
    with pytest.warns(Leak, match=f"go {100 * LEAKING:.0f} % of the way .* code of b .* does"):
        own = own_data(tables, np.array(["ill", "well"])[y])
    assert "code of b" in own.said[-2]
    own = own_data(tables, np.array(["ill", "well"])[y], allow=["code"])
    assert "code of b" in own.said[-2]  # what is allowed is still said


def test_noise_is_not_said_however_many_columns_there_are():
    noise = RNG.normal(size=(60, 4000))
    for task, y in (("classification", np.arange(60) % 3), ("regression", RNG.normal(size=60))):
        assert telling({"t": noise}, y, task) == []
    assert described([]) == []


def test_a_label_that_is_the_same_in_all_rows_and_many_cells_cost_nothing():
    y = np.stack([np.zeros(N), np.arange(N) % 2], 1)
    (found,) = telling({"t": y[:, 1:]}, y, "multilabel")
    assert found.way == 1 and telling({"t": y}, y[:, :1], "multilabel") == []
    long = np.repeat(RNG.integers(2, size=9000), 2)[:, None] + RNG.normal(size=(18000, 3)) / 2
    assert telling({"t": long}, (long[:, 0] > 0.5).astype(int), "classification")[0].way > 0.9
