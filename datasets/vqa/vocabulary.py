"""Which answers a model can give, and how right each of them is for a question.

Two published protocols (`PROTOCOLS`), both over `multiple_choice_answer`:

- "mcan" (Yu et al., 2019): normalised answers occurring more than 8 times. The published code
  counts them in train and val: pass both parts to do so, and know that the answers of the part
  that is reported then take part in the choice. Train alone is the default everywhere here.
  Nothing is left of "a" when it is normalised; the published 3129 hold the empty answer too.
- "mutan" (Ben-younes et al., 2017): train's 2000 most frequent answers, as written.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from .annotations import Part
from .answers import (
    accuracy_of_count,
    cached_normalise,
    count_references,
    merge_counts,
    normalise,
)
from .questions import list_texts


class Protocol(NamedTuple):
    """How a vocabulary is chosen.

    Attributes:
        normalised: whether answers are counted and given in normalised form, or as written.
        min_count: how often an answer must occur at least.
        most: how many are kept, the most frequent ones; None keeps all.
    """

    normalised: bool
    min_count: int
    most: int | None


PROTOCOLS = {"mcan": Protocol(True, 9, None), "mutan": Protocol(False, 1, 2000)}


class Targets(NamedTuple):
    """What is right, for n questions; K is the largest number of right answers of one of them.

    Attributes:
        answer: (n, K) int64, places in the vocabulary, the best target first; -1 where a
            question has fewer right answers.
        target: (n, K) float32, MCAN's soft score in [0, 1]: 0.3, 0.6, 0.9 and 1 for an answer
            that 1, 2, 3 and more annotators gave, theirs and the vocabulary's normalised; 1 for
            the answer of a question that has just one.
        accuracy: (n, K) float32, the official accuracy in [0, 1] if that answer is predicted.
    """

    answer: np.ndarray
    target: np.ndarray
    accuracy: np.ndarray


class AnswerVocabulary:
    """The answers that a classifier chooses from; place i of `answers` is class i.

    Raises:
        ValueError: if there are none, one occurs twice, or one is no text.

    Args:
        answers: different texts.
        normalised: whether they are in normalised form, or as written.
    """

    def __init__(self, answers: Iterable[str], *, normalised: bool = True):
        self.answers = list_texts(answers, "answers")
        self.normalised = normalised
        if not self.answers or len(set(self.answers)) < len(self.answers):
            raise ValueError(
                f"answers must be different texts, at least one, got {len(self.answers)} of which "
                f"{len(set(self.answers))} differ; fit on more questions or lower min_count"
            )
        self._place_of = {answer: place for place, answer in enumerate(self.answers)}
        # Answers as written can share their normalised form, and then are equally right.
        self._places_of: dict[str, list[int]] = {}
        for place, answer in enumerate(self.answers):
            self._places_of.setdefault(normalise(answer), []).append(place)

    def __len__(self) -> int:
        return len(self.answers)

    @classmethod
    def fit(
        cls,
        parts: Part | Sequence[Part],
        *,
        protocol: str = "mcan",
        min_count: int | None = None,
        most: int | None = None,
    ) -> "AnswerVocabulary":
        """Chooses the answers, the most frequent first and equally frequent ones by alphabet.

        Args:
            parts: train, or all the parts whose answers may be seen.
            protocol: "mcan" or "mutan", see the top of the file.
            min_count: how often an answer must occur at least; None is the protocol's.
            most: how many are kept; None is the protocol's.

        Raises:
            ValueError: if the protocol is unknown, a number is not positive, or no answer is left.
        """
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol must be one of {sorted(PROTOCOLS)}, got {protocol!r}")
        chosen = PROTOCOLS[protocol]
        min_count = chosen.min_count if min_count is None else min_count
        most = chosen.most if most is None else most
        if min_count < 1 or (most is not None and most < 1):
            raise ValueError(
                f"min_count and most must be at least 1, got {min_count} and {most}; leave them "
                "out to follow the protocol"
            )
        form = _form(chosen.normalised)
        counts = Counter(
            form(answer)
            for part in ([parts] if isinstance(parts, Part) else parts)
            for answer in part.multiple_choice
        )
        frequent = [answer for answer in counts if counts[answer] >= min_count]
        ranked = sorted(frequent, key=lambda answer: (-counts[answer], answer))
        return cls(ranked[:most], normalised=chosen.normalised)

    def targets(self, part: Part) -> Targets:
        """Returns every answer with a target or an accuracy above 0, for each question."""
        return _pad([self._right_answers(answers) for answers in part.answers])

    def sampling(self, part: Part) -> np.ndarray:
        """Returns the shares from which Mutan draws the answer to learn, (n, K) float32.

        They are the annotators' answers restricted to the vocabulary, and stand where
        `targets(part).answer` has their places. A question that has none of them has only zeros.
        """
        answer, form = self.targets(part).answer, _form(self.normalised)
        counts = np.zeros(answer.shape, dtype=np.float32)
        for row, given in enumerate(part.answers):
            found = Counter(self._place_of.get(form(text)) for text in given)
            counts[row] = [found[place] for place in answer[row].tolist()]
        return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def _right_answers(self, answers: Sequence[str]) -> list[tuple[int, float, float]]:
        """Returns (place, target, accuracy) of a question's right answers, the best first."""
        counts = merge_counts(Counter(answers), cached_normalise)
        references = count_references(answers)
        share = 0.3 if len(answers) > 1 else 1
        right = [
            (place, min(share * counts[form], 1), accuracy_of_count(references[form], len(answers)))
            for form in counts  # references match no other form that can be predicted
            for place in self._places_of.get(form, ())
        ]
        return sorted(right, key=lambda answer: (-answer[1], -answer[2], answer[0]))


def _form(normalised: bool) -> Callable[[str], str]:
    return cached_normalise if normalised else str


def _pad(rows: list[list[tuple[int, float, float]]]) -> Targets:
    most = max(map(len, rows), default=0)
    table = np.zeros((len(rows), max(most, 1), 3))
    table[..., 0] = -1
    for row, right in enumerate(rows):
        if right:
            table[row, : len(right)] = right
    answer, target, accuracy = np.moveaxis(table, -1, 0)
    return Targets(answer.astype(np.int64), target.astype(np.float32), accuracy.astype(np.float32))
