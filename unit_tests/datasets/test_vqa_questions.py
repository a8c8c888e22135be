"""Words of questions: the published tokenisers, a vocabulary that only sees what it is given."""

import pickle

import numpy as np
import pytest

from deq_fusion.datasets.vqa.annotations import read_questions
from deq_fusion.datasets.vqa.vocabulary import PAD, UNK, Words, tokenise_mcan, tokenise_mutan
from unit_tests.real_data import real

TEXTS = ["Is the dog red?", "is it a dog/cat?", "What is the dog's name?", "the end"]
DELETED = {tokenise_mcan: ".,'!?\"()*#:;", tokenise_mutan: "?!'\"$:@(),.;"}


@pytest.mark.parametrize("tokenise", DELETED)
def test_marks_vanish_and_dashes_and_slashes_part_words(tokenise):
    for code in range(33, 127):
        mark = chr(code)
        if mark in "-/":
            expected = ["left", "right"]
        else:
            expected = ["left" + ("" if mark in DELETED[tokenise] else mark.lower()) + "right"]
        assert tokenise(f" Left{mark}Right \n") == expected


def test_the_tokenisers_differ_in_four_marks():
    assert tokenise_mcan("#1 costs $2 @ *") == ["1", "costs", "$2", "@"]
    assert tokenise_mutan("#1 costs $2 @ *") == ["#1", "costs", "2", "*"]
    assert tokenise_mcan(" ?! ") == tokenise_mutan("") == []


def test_words_are_numbered_by_frequency_and_then_by_alphabet():
    words = Words.fit(TEXTS, tokenise="mcan")
    assert words.words == [
        "is",
        "the",
        "dog",
        "a",
        "cat",
        "dogs",
        "end",
        "it",
        "name",
        "red",
        "what",
    ]
    assert len(words) == 13
    assert Words.fit(TEXTS[::-1], tokenise=tokenise_mcan).words == words.words
    assert Words.fit(TEXTS, tokenise=tokenise_mcan, min_count=2).words == ["is", "the", "dog"]
    assert Words.fit(TEXTS, tokenise=str.split, min_count=2).words == ["the", "is"]


def test_texts_are_cut_and_padded():
    words = Words.fit(TEXTS, tokenise="mcan")
    numbers = words.encode([*TEXTS, "The IS unheard-of"], length=4)
    assert numbers.dtype == np.int64 and numbers.shape == (5, 4)
    spelt = {number: word for number, word in enumerate(words.words, 2)}
    for row, text in zip(numbers.tolist(), TEXTS, strict=False):
        tokens = tokenise_mcan(text)[:4]
        assert [spelt.get(number) for number in row] == tokens + [None] * (4 - len(tokens))
    assert numbers[3, 2:].tolist() == [PAD, PAD]
    assert numbers[4].tolist() == [3, 2, UNK, UNK]


def test_a_text_without_words_is_one_unknown_word():
    words = Words.fit(TEXTS, tokenise="mutan")
    assert words.encode(["", "?!"], length=3).tolist() == [[UNK, PAD, PAD]] * 2
    assert words.encode([], length=3).shape == (0, 3)


def test_only_the_texts_given_are_learnt():
    words = Words.fit(TEXTS, tokenise="mcan")
    first = words.encode(["zebra dog"], length=2)
    assert first[0].tolist() == [UNK, 4]  # what was not in train stays unknown
    assert Words.fit([*TEXTS, "zebra"], tokenise="mcan").encode(["zebra"], length=1)[0, 0] > UNK


def test_words_can_be_pickled():
    words = Words.fit(TEXTS, tokenise="mutan")
    again = pickle.loads(pickle.dumps(words))
    np.testing.assert_array_equal(again.encode(TEXTS, length=5), words.encode(TEXTS, length=5))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"one of \['mcan', 'mutan'\] or a function, got 'nltk'"):
        Words.fit(TEXTS, tokenise="nltk")
    with pytest.raises(ValueError, match="min_count must be at least 1, got 0"):
        Words.fit(TEXTS, tokenise="mcan", min_count=0)
    with pytest.raises(ValueError, match="words must differ, 1 of 3 are repeated"):
        Words(["a", "b", "a"], tokenise="mcan")
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        Words(["a"], tokenise="mcan").encode(TEXTS, length=0)


@pytest.mark.slow
def test_the_words_of_vqa_v2_cover_the_other_parts():
    folder = real("vqa/vqa2_text")
    train, test = (
        read_questions(folder / f"{part}_questions.json.gz").texts for part in ("train", "test")
    )
    words = Words.fit(train, tokenise="mcan")
    known, new = (words.encode(texts, length=14) for texts in (train, test))
    assert (known != UNK).all() and set(np.unique(known)) <= set(range(len(words)))
    lengths = np.count_nonzero(new, axis=1)
    assert (lengths == [min(len(tokenise_mcan(text)), 14) for text in test]).all()
    assert 0 < (new == UNK).sum() / lengths.sum() < 0.02
