"""Noise for texts: slips in the letters of words, as hands on a keyboard make them.

Names, arguments and defaults are MultiBench's (Liang et al., 2021). Its results differ in two
points: several letters of a word stick where they are (there at the places of a word that has
not grown yet), and draws come from a generator of their own.
"""

import re
from collections.abc import Iterable

import numpy as np

from .drawing import Seed, check_level

SHORTEST = 3  # a word is noised whose last letter or digit is further back than that
ROWS = "qwertyuiop", "asdfghjkl", "zxcvbnm"


def add_text_noise(
    tests: Iterable[str],
    noise_level: float = 0.3,
    swap: bool = True,
    rand_mid: bool = True,
    typo: bool = True,
    sticky: bool = True,
    omit: bool = True,
    *,
    seed: Seed = None,
) -> list[str]:
    """Returns texts of which each word of five letters or more, with a probability, has one slip.

    Texts are taken apart first, at every level, 0 among them: in lower case, numbers become N,
    lines that begin with an address L, and punctuation stands between spaces.

    Args:
        tests: the texts.
        noise_level: the probability in [0, 1] of a word's slip.
        swap: whether two letters may be exchanged, see `swap_letter`.
        rand_mid: whether the middle may be shuffled, see `random_mid`.
        typo: whether a neighbouring key may be hit, see `qwerty_typo`.
        sticky: whether a letter may be doubled, see `sticky_keys`.
        omit: whether a letter may be missing, see `omission`.
        seed: a seed, a generator, or None, see `drawing.Seed`.

    Raises:
        ValueError: for another level.
        TypeError: for a single text in place of a list of them.
    """
    if isinstance(tests, str):
        raise TypeError("tests must be a list of texts, got a single one; give it as [text]")
    level, generator = check_level(noise_level), np.random.default_rng(seed)
    kinds = {
        swap_letter: swap,
        random_mid: rand_mid,
        qwerty_typo: typo,
        sticky_keys: sticky,
        omission: omit,
    }
    slips = [slip for slip, wanted in kinds.items() if wanted]

    def noised(word: str) -> str:
        if not slips or _last(word) <= SHORTEST or generator.random() >= level:
            return word
        return slips[generator.integers(len(slips))](word, seed=generator)

    return [" ".join(noised(word) for word in _words(text)) for text in tests]


def swap_letter(word: str, *, seed: Seed = None) -> str:
    """Returns a word with two neighbouring letters exchanged, neither the first nor the last."""
    last = _last(word)
    if last < SHORTEST:
        return word
    at = int(np.random.default_rng(seed).integers(1, last - 1))
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def random_mid(word: str, *, seed: Seed = None) -> str:
    """Returns a word whose letters are shuffled, but for the first and the last one."""
    last = _last(word)
    middle = np.random.default_rng(seed).permutation(list(word[1 : max(last, 1)]))
    return word[:1] + "".join(middle.tolist()) + word[max(last, 1) :]


def qwerty_typo(word: str, *, seed: Seed = None) -> str:
    """Returns a word in which one letter is a neighbour of the right key."""
    generator = np.random.default_rng(seed)
    places = [i for i, letter in enumerate(word[: _last(word) + 1]) if letter in NEIGHBOURS]
    if not places:
        return word
    at = int(generator.choice(places))
    keys = NEIGHBOURS[word[at]]
    return word[:at] + keys[generator.integers(len(keys))] + word[at + 1 :]


def sticky_keys(word: str, num_sticky: int = 1, *, seed: Seed = None) -> str:
    """Returns a word with so many of its letters doubled, all of them if it has fewer."""
    length = _last(word) + 1
    chosen = np.random.default_rng(seed).permutation(length)[:num_sticky].tolist()
    return "".join(letter * (2 if i in chosen else 1) for i, letter in enumerate(word))


def omission(word: str, num_omit: int = 1, *, seed: Seed = None) -> str:
    """Returns a word without so many of its letters, none of them the first or the last."""
    inside = range(1, max(_last(word), 1))
    missing = np.random.default_rng(seed).permutation(inside)[:num_omit].tolist()
    return "".join(letter for i, letter in enumerate(word) if i not in missing)


def _neighbours() -> dict[str, str]:
    """Returns key -> keys that touch it; each row is shifted half a key to the right."""
    found = {key: "" for row in ROWS for key in row}

    def touch(one: str, other: str) -> None:
        found[one] += other
        found[other] += one

    for row in ROWS:
        for left, right in zip(row, row[1:], strict=False):
            touch(left, right)
    for above, below in zip(ROWS, ROWS[1:], strict=False):
        for i, key in enumerate(below):
            touch(above[i], key)
            if below is ROWS[-1]:  # which is shifted further
                touch(above[i + 1], key)
    return {key: "".join(sorted(keys)) for key, keys in found.items()}


NEIGHBOURS = _neighbours()


def _words(text: str) -> list[str]:
    """Returns the words of a text, taken apart as MultiBench does."""
    text = text.lower().replace("<br />", " ").strip()
    text = re.sub(r"^https?://.*[\r\n]*", " L ", text, flags=re.MULTILINE)
    text = re.sub(r"[~*+^`_#\[\]|]", " ", text)
    text = re.sub(r"[0-9]+", " N ", text)
    return re.sub(r"""([/'\-.?!()",:;])""", r" \1 ", text).split()


def _last(word: str) -> int:
    """Returns the place of the last letter or digit, -1 if there is none."""
    places = [i for i, letter in enumerate(word) if letter.isalpha() or letter.isdigit()]
    return places[-1] if places else -1
