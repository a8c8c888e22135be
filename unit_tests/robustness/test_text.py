"""Noise of texts: each slip by what it may do to a word, and how many words have one."""

from collections import Counter

import numpy as np
import pytest

from deq_fusion.robustness.text_robust import (
    NEIGHBOURS,
    add_text_noise,
    omission,
    qwerty_typo,
    random_mid,
    sticky_keys,
    swap_letter,
)

SLIPS = swap_letter, random_mid, qwerty_typo, sticky_keys, omission
NAMES = "swap", "rand_mid", "typo", "sticky", "omit"


def made(slip, word, **options):
    """All that a slip makes of a word in many draws."""
    generator = np.random.default_rng(0)
    return {slip(word, seed=generator, **options) for _ in range(300)}


def test_neighbouring_letters_are_exchanged_inside_the_word():
    word = "abcdef"
    expected = {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(1, 4)}
    assert made(swap_letter, word) == expected
    assert made(swap_letter, "abcdef'") == {w + "'" for w in expected}
    assert made(swap_letter, "abc") == {"abc"}


def test_the_middle_is_shuffled():
    found = made(random_mid, "abcde")
    assert len(found) == 6 and {w[0] + w[-1] for w in found} == {"ae"}
    assert {"".join(sorted(w)) for w in found} == {"abcde"}
    assert made(random_mid, "a") == {"a"} and made(random_mid, "") == {""}


def test_a_typo_is_a_neighbouring_key():
    found = made(qwerty_typo, "salz")
    assert {sum(a != b for a, b in zip(w, "salz", strict=True)) for w in found} == {1}
    expected = {"salz"[:i] + k + "salz"[i + 1 :] for i in range(4) for k in NEIGHBOURS["salz"[i]]}
    assert found == expected
    assert NEIGHBOURS["g"] == "bfhtv" and NEIGHBOURS["p"] == "o" and NEIGHBOURS["a"] == "qsz"
    assert all(key in NEIGHBOURS[other] for key, keys in NEIGHBOURS.items() for other in keys)
    assert made(qwerty_typo, "1234") == {"1234"}


def test_letters_stick_where_they_are():
    assert made(sticky_keys, "abc") == {"aabc", "abbc", "abcc"}
    assert made(sticky_keys, "abc", num_sticky=2) == {"aabbc", "aabcc", "abbcc"}
    assert made(sticky_keys, "abc.", num_sticky=9) == {"aabbcc."}


def test_letters_inside_are_left_out():
    assert made(omission, "abcd") == {"acd", "abd"}
    assert made(omission, "abcde", num_omit=2) == {"abe", "ace", "ade"}
    assert made(omission, "ab") == {"ab"}


def test_texts_are_taken_apart_at_every_level():
    text = "It's 20 <br />Miles, (see [here])\nhttp://a.b/c d"
    expected = "it ' s N miles , ( see here ) L"
    for level in (0, 1):
        slipped = add_text_noise([text], level, swap=False, rand_mid=False, typo=False, omit=False)
        assert len(slipped[0].split()) == len(expected.split())
    assert add_text_noise([text], 0) == [expected]


@pytest.mark.parametrize("level", [0.2, 0.8])
def test_words_of_five_letters_or_more_slip_with_their_probability(level):
    words = ["abcde", "four", "wonderful"] * 400
    noisy = add_text_noise([" ".join(words)], level, rand_mid=False, seed=0)[0].split()
    changed = [a != b for a, b in zip(words, noisy, strict=True)]
    long = [c for word, c in zip(words, changed, strict=True) if len(word) > 4]
    assert not any(c for word, c in zip(words, changed, strict=True) if len(word) < 5)
    assert abs(np.mean(long) - level) < 5 * (level * (1 - level) / len(long)) ** 0.5


def test_slips_are_chosen_alike_and_only_those_that_are_wanted():
    word, number = "abcdef", 3000
    sets = {slip.__name__: made(slip, word) for slip in (swap_letter, sticky_keys, omission)}
    noisy = add_text_noise([word] * number, 1, rand_mid=False, typo=False, seed=0)
    counts = Counter(name for text in noisy for name, found in sets.items() if text in found)
    assert sum(counts.values()) == number
    assert max(abs(counts[name] / number - 1 / 3) for name in sets) < 5 * (2 / 9 / number) ** 0.5
    for wanted, slip in zip(NAMES, SLIPS, strict=True):
        noisy = add_text_noise([word] * 50, 1, **{n: n == wanted for n in NAMES}, seed=1)
        assert set(noisy) <= made(slip, word)
    assert add_text_noise([word], 1, **dict.fromkeys(NAMES, False)) == [word]


def test_the_seed_alone_decides():
    texts = ["wonderful things happen", "sometimes"] * 20
    first, again, other = (add_text_noise(texts, 0.5, seed=s) for s in (1, 1, 2))
    assert first == again != other
    with pytest.raises(TypeError, match="must be a list of texts"):
        add_text_noise("a text")
    with pytest.raises(ValueError, match=r"noise_level .* \[0, 1\]"):
        add_text_noise(texts, 3)
