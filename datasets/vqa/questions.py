"""Questions as numbers: two published tokenisers, and the words that a model knows."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ..files.reading import shown

PAD, UNK = 0, 1

_SPACES = dict.fromkeys("-/", " ")
_MCAN = str.maketrans(dict.fromkeys(".,'!?\"()*#:;", "") | _SPACES)
_MUTAN = str.maketrans(dict.fromkeys("?!'\"$:@(),.;", "") | _SPACES)


def tokenise_mcan(text: str) -> list[str]:
    """Splits a question as MCAN does (Yu et al., 2019): $ and @ stay, * and # go."""
    return text.lower().translate(_MCAN).split()


def tokenise_mutan(text: str) -> list[str]:
    """Splits a question as Mutan's code does (Ben-younes et al., 2017): * and # stay."""
    return text.lower().translate(_MUTAN).split()


TOKENISERS = {"mcan": tokenise_mcan, "mutan": tokenise_mutan}


class Words:
    """The words a model knows: number 0 pads, 1 is any unknown word, 2 and more are `words`.

    Args:
        words: different words.
        tokenise: "mcan", "mutan", or a function from a text to its words.

    Raises:
        ValueError: if a word occurs twice or is no text, or there is no tokeniser of that name.
    """

    def __init__(self, words: Iterable[str], *, tokenise: str | Callable[[str], Sequence[str]]):
        self.words = list_texts(words, "words")
        self.tokenise = _find_tokeniser(tokenise)
        self._number_of = {word: number for number, word in enumerate(self.words, UNK + 1)}
        if len(self._number_of) < len(self.words):
            raise ValueError(
                f"words must differ, {len(self.words) - len(self._number_of)} of "
                f"{len(self.words)} are repeated; leave the copies out"
            )

    def __len__(self) -> int:
        """Returns how many numbers there are, padding and the unknown word included."""
        return len(self.words) + UNK + 1

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        *,
        tokenise: str | Callable[[str], Sequence[str]],
        min_count: int = 1,
    ) -> "Words":
        """Learns the words of some texts, the most frequent first and then by alphabet.

        Args:
            texts: train's questions. The published codes add those of the other parts (MCAN: of
                val, test and Visual Genome); pass them as well to do so.
            tokenise: "mcan", "mutan", or a function from a text to its words.
            min_count: how often a word must occur to be known.
        """
        if min_count < 1:
            raise ValueError(f"min_count must be at least 1, got {min_count}")
        split = _find_tokeniser(tokenise)
        counts = Counter(word for text in texts for word in split(text))
        known = [word for word in counts if counts[word] >= min_count]
        return cls(sorted(known, key=lambda word: (-counts[word], word)), tokenise=tokenise)

    def encode(self, texts: Sequence[str], *, length: int) -> np.ndarray:
        """Returns the first `length` words of every text, (n, length) int64, zeros after them.

        A text without any word is one unknown word, since models cannot read nothing.
        """
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}; MCAN has 14, Mutan 26")
        numbers = np.full((len(texts), length), PAD, dtype=np.int64)
        for row, text in enumerate(texts):
            words = self.tokenise(text)[:length]
            found = [self._number_of.get(word, UNK) for word in words] or [UNK]
            numbers[row, : len(found)] = found
        return numbers


def list_texts(texts: Iterable[str], what: str) -> list[str]:
    """Returns the texts as a list; ValueError if one is none, or all are one text."""
    listed = [texts] if isinstance(texts, str | bytes) else list(texts)
    wrong = next((text for text in listed if not isinstance(text, str)), None)
    if wrong is not None or isinstance(texts, str):
        raise ValueError(
            f"{what} must be a list of texts, got {shown(texts if wrong is None else wrong)}, of "
            f"type {type(texts if wrong is None else wrong).__name__}"
        )
    return listed


def _find_tokeniser(tokenise: str | Callable[[str], Sequence[str]]):
    if callable(tokenise):
        return tokenise
    if tokenise not in TOKENISERS:
        raise ValueError(
            f"tokenise must be one of {sorted(TOKENISERS)} or a function, got {tokenise!r}"
        )
    return TOKENISERS[tokenise]
