"""Questions and answers as numbers: the words that a model knows, and the answers it can give.

Two tokenisers (`TOKENISERS`), and two protocols for the answers (`PROTOCOLS`), both over
`multiple_choice_answer`:

- "mcan" (Yu et al., 2019): normalised answers occurring more than 8 times. The published code
  counts them in train and val: pass both parts to do so, and know that the answers of the part
  that is reported then take part in the choice. Train alone is the default everywhere here.
  Nothing is left of "a" when it is normalised; the published 3129 hold the empty answer too.
- "mutan" (Ben-younes et al., 2017): train's 2000 most frequent answers, as written.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import contains
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..files.reading import shown
from .annotations import ANSWER_TYPES, Part, Questions
from .answers import (
    accuracy_of_count,
    cached_normalise,
    count_references,
    merge_counts,
    normalise,
)

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


class Protocol(NamedTuple):
    """The rule by which a vocabulary is chosen.

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
    """The right answers of n questions; K is the largest number of right answers of one of them.

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


def in_numbers(
    parts: Mapping[str, Part | Questions],
    words: Words,
    answers: AnswerVocabulary,
    *,
    length: int | None,
    drop_unanswerable: bool = False,
) -> list[dict[str, Any]]:
    """Returns each part's questions and answers as numbers; all have K candidates a question.

    Args:
        parts: their names, "train" among them or not, and the parts.
        words: the words of the questions.
        answers: the answers that can be given.
        length: words kept of a question; None leaves the questions out.
        drop_unanswerable: whether train's questions that have no answer in the vocabulary are
            left out; those of other parts, which are scored, never are.

    Returns:
        For each part its `part`, row for row, the `tokens`, (questions, length) int64 or None,
        the `truth`, as a batch of `VQA` has it, and how many questions were `dropped`.

    Raises:
        ValueError: if no question of train has an answer in the vocabulary.

    Warns:
        UserWarning: if none of another part has.
    """
    truths = _pad_alike([_truth(part, answers) for part in parts.values()])
    for (name, part), truth in zip(parts.items(), truths, strict=True):
        _check_answerable(name, part, truth, len(answers))
    numbers = []
    for (name, part), truth in zip(parts.items(), truths, strict=True):
        size = len(part)
        if drop_unanswerable and name == "train":
            part, truth = _keep_answerable(part, truth)
        tokens = (
            None if length is None else torch.from_numpy(words.encode(part.texts, length=length))
        )
        numbers.append(
            {"part": part, "tokens": tokens, "truth": truth, "dropped": size - len(part)}
        )
    return numbers


def _truth(part: Part | Questions, answers: AnswerVocabulary) -> dict[str, Tensor]:
    columns = {"question_id": part.question_ids}
    if isinstance(part, Part):
        columns |= answers.targets(part)._asdict()
        kinds = [ANSWER_TYPES.index(kind) for kind in part.answer_types]
        columns["type"] = np.array(kinds, np.int64)
        if not answers.normalised:
            columns["share"] = answers.sampling(part)
    return {name: torch.from_numpy(column) for name, column in columns.items()}


def _pad_alike(truths: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Makes all parts have equally many candidates a question, so that any batch has one shape."""
    width = max((truth["answer"].shape[1] for truth in truths if "answer" in truth), default=0)

    def fill(name: str, column: Tensor) -> Tensor:
        if column.ndim < 2:
            return column
        lacking = (0, width - column.shape[1])
        return torch.nn.functional.pad(column, lacking, value=-1 if name == "answer" else 0)

    return [{name: fill(name, column) for name, column in truth.items()} for truth in truths]


def _check_answerable(name: str, part: Part | Questions, truth: dict[str, Tensor], most: int):
    """From a part without any answer of the vocabulary nothing is learnt, nor is anything told."""
    if not isinstance(part, Part) or (_learnt(truth) > 0).any():
        return
    named = sum(map(contains, part.answers, part.multiple_choice))
    among = f"the answers of {named} of them" if named else "no question's answers"
    why = (
        f"none has one of the {most} answers of the vocabulary, which are chosen by "
        f"multiple_choice_answer, and that is among {among}"
    )
    if name == "train":
        raise ValueError(
            f"all {len(part)} questions of train would be left out: {why}; look at the annotations"
        )
    warnings.warn(
        f"every prediction for the {len(part)} questions of {name} scores 0: {why}",
        UserWarning,
        stacklevel=4,
    )


def _keep_answerable(
    part: Part | Questions, truth: dict[str, Tensor]
) -> tuple[Part | Questions, dict[str, Tensor]]:
    kept = (_learnt(truth) > 0).any(dim=1)
    part = part.take(np.flatnonzero(kept.numpy()))
    return part, {name: column[kept] for name, column in truth.items()}


def _learnt(truth: dict[str, Tensor]) -> Tensor:
    return truth.get("share", truth["target"])  # Mutan learns an answer as written
