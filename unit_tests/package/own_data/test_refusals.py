"""What no comparison can be made of is refused in a sentence, what spoils one warned of."""

import numpy as np
import pandas as pd
import pytest

from deq_fusion.own_data import own_data
from deq_fusion.own_data.refusals import Leak

N = 60
RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(N, 4)), RNG.normal(size=(N, 3))
Y = np.array(["cat", "dog"])[RNG.integers(2, size=N)]
TABLES = {"a": A, "b": B}


def refused(match, tables=TABLES, y=Y, **options):
    with pytest.raises(ValueError, match=match):
        own_data(tables, y, **options)


def test_too_little_is_refused():
    refused("at least 30 rows to train and to score on, got 29", {"a": A[:29]}, Y[:29])
    refused(
        "every class must have at least 5 rows, .* got 4 of cow",
        y=np.where(np.arange(N) < 4, "cow", Y),
    )
    refused("one class alone, 'cat'", y=np.full(N, "cat"))


def test_targets_that_make_no_sense_are_refused():
    numbers = np.arange(N) / 7
    refused("y must have a value in every row", y=np.where(np.arange(N) == 3, np.nan, numbers))
    refused("y must be finite", y=np.where(np.arange(N) == 3, np.inf, numbers))
    refused('60 whole numbers could be either; say task="class', y=np.arange(N))
    refused("class_weight must be left out of regression", y=numbers, class_weight="balanced")
    refused("task must be one of", task="guess")


def test_groups_that_cannot_be_parted_are_refused():
    refused(
        "at least 5 groups, so that no part shares one with another, got 4", groups=np.arange(N) % 4
    )
    refused("at least 8 groups, .* got 6", groups=np.arange(N) % 6, folds=8)
    of_class = np.where(Y == "cat", RNG.integers(2, size=N), np.arange(N))
    refused("in at least 3 groups, one for each part, but cat is in 2", groups=of_class)
    missing = np.where(np.arange(N) == 7, None, "g")
    refused("known of every row, but 1 rows have none, first row 7", groups=missing)


def test_options_that_make_no_sense_are_refused():
    few = int(min((Y == "cat").sum(), (Y == "dog").sum()))
    for folds in (1, few + 1, 2.5, True):
        refused(f"folds must be a number from 2 to {few}", folds=folds)
    refused("folds make the test part from all rows", folds=3, test=(TABLES, Y))
    refused('class_weight must be "balanced" or None', class_weight={"cat": 2})
    refused("encoders must be of tables in", encoders={"c": None})
    refused(
        "weights must be finite, not negative and not all 0, got -1 in row 2",
        sample_weight=np.where(np.arange(N) == 2, -1, 1),
    )
    refused("weights must be finite, not negative and not all 0, got 0", sample_weight=np.zeros(N))
    refused("weights must be numbers", sample_weight=np.full(N, "much"))


def test_test_sets_that_differ_are_refused():
    frames = {"a": pd.DataFrame(A, columns=list("wxyz")), "b": pd.DataFrame(B, columns=list("pqr"))}
    other = {"a": frames["a"].rename(columns={"w": "v"}), "b": frames["b"]}
    refused(
        "the test set's a must have the columns of the other rows, but they differ: v, w",
        frames,
        test=(other, Y),
    )
    refused(r"they differ: \[2\], not \[3\]", test=({"a": A, "b": B[:, 1:]}, Y))
    refused("the test set must have the tables", test=({"a": A}, Y))
    refused("test must be a pair", test=[TABLES, Y])
    refused("'cow' is new", test=(TABLES, np.where(np.arange(N) < 9, "cow", Y)))
    named = {name: frame.set_axis([f"P{i}" for i in range(N)]) for name, frame in frames.items()}
    y = pd.Series(Y, named["a"].index)
    later = {
        name: frame.rename(index=lambda x: f"{x}b" if x != "P3" else x)
        for name, frame in named.items()
    }
    refused(
        "must have other rows, but 1 of its ids are among the others, such as P3",
        named,
        y=y,
        test=(later, pd.Series(Y, later["a"].index)),
    )
    housed = {"a": frames["a"].assign(house=np.arange(N)), "b": frames["b"]}
    refused("but 60 of its groups are among the others", housed, groups="house", test=(housed, Y))


def test_constant_columns_are_warned_of():
    a = A.copy()
    a[:, 1] = 3
    with pytest.warns(UserWarning, match="but column 1 of a does not; leave it out"):
        own_data({"a": a, "b": B}, Y)
    frame = pd.DataFrame(B, columns=list("pqr")).assign(q="same", r=np.nan)
    with pytest.warns(UserWarning, match="but column 1 of a, r of b, q of b do not"):
        own_data({"a": a, "b": frame}, Y)


@pytest.mark.parametrize(
    "leak",
    [
        (Y == "dog") * 1.0,
        np.where(Y == "dog", RNG.normal(size=N), 10 + RNG.normal(size=N)),
        np.where(Y == "dog", "barks", "purrs"),
        np.where(
            Y == "dog",
            np.array(["hound", "poodle"])[np.arange(N) % 2],
            np.array(["fox", "tabby"])[np.arange(N) % 2],
        ),
        np.where(Y == "dog", np.nan, RNG.normal(size=N)),
    ],
    ids=["codes", "scores", "words", "finer words", "missing"],
)
def test_a_column_that_tells_the_class_alone_is_warned_of(leak):
    tables = {"a": A, "b": pd.DataFrame(B, columns=list("pqr")).assign(after=leak)}
    with pytest.warns(
        Leak, match=r"THE TARGET MAY LEAK: .*accuracy after of b \(.*\) does; leave it"
    ):
        own_data(tables, Y)
    own_data(tables, Y, allow=["after"])
    own_data(tables, Y, drop=["after"])


def test_a_column_that_tells_numbers_or_labels_alone_is_warned_of():
    number = RNG.normal(size=N)
    for leak in (3 * number - 1, np.exp(number)):
        with pytest.warns(Leak, match=r"by R2 column 3 of b \(.*\) does"):
            own_data({"a": A, "b": np.c_[B, leak]}, number)
    labels = (RNG.normal(size=(N, 2)) > 0).astype(int)
    with pytest.warns(Leak, match=r"column 3 of b \(100 %\) does"):
        own_data({"a": A, "b": np.c_[B, labels[:, 1]]}, labels)
    sequences = RNG.normal(size=(N, 4, 2))
    sequences[:, 2, 1] = number
    with pytest.warns(Leak, match=r"column 2, 1 of b \(.*\) does"):
        own_data({"a": A, "b": sequences}, number)


def test_noise_and_useful_columns_are_not_taken_for_leaks_but_the_useful_are_said():
    dog = Y == "dog"
    useful = np.where(np.arange(N) % 5 < 1, ~dog, dog) * 1.0  # right in four rows of five
    own = own_data({"a": RNG.normal(size=(N, 90)), "b": np.c_[B, useful]}, Y)
    shares = [np.mean(useful[dog]), np.mean(1 - useful[~dog])]
    assert f"held out: column 3 of b ({100 * np.mean(shares):.0f} %); was" in own.said[-2]
    assert own.recipe.about[-2] == own.said[-2]
    own = own_data({"a": A, "b": np.c_[B, RNG.normal(size=N)]}, Y)
    assert not any("alone" in sentence for sentence in own.said)


def test_a_group_is_the_same_as_a_whole_or_a_broken_number():
    houses = {"a": pd.DataFrame(A, columns=list("wxyz")).assign(house=np.arange(N, dtype=float))}
    later = {"a": houses["a"].assign(house=np.arange(N))}
    refused("but 60 of its groups are among the others", houses, groups="house", test=(later, Y))


def test_numbers_that_do_not_differ_or_that_no_float32_holds_are_refused():
    refused("y must differ between rows to be predicted", y=np.full(N, 3.5), task="regression")
    refused("y must spread by 1e-16 to 1e[+]16", y=np.linspace(0, 1e20, N), task="regression")
