"""Questions and annotations in VQA-v2's JSON layout (Goyal et al., 2017), plain or gzipped.

- questions: {"questions": [{"question_id", "image_id", "question"}]},
- annotations: {"annotations": [{"question_id", "image_id", "answer_type",
  "multiple_choice_answer", "answers": [{"answer", ...}]}]}, ten answers a question.

Other entries are left aside. The two files may list the questions in different orders. Half a
surrogate pair in a text is read as U+FFFD. Ids are whole numbers that int64 holds.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..files.json_files import read_json
from ..files.reading import clean_text, shown

ANSWER_TYPES = ("yes/no", "number", "other")
KINDS = {"answer_type": str, "answers": list, "multiple_choice_answer": str}
"""What annotations have beside their ids."""
INT64 = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True)
class Questions:
    """Questions about images, one a row.

    Attributes:
        question_ids: (questions,) int64, unique.
        image_ids: (questions,) int64.
        texts: the questions.
    """

    question_ids: np.ndarray
    image_ids: np.ndarray
    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Sequence[int] | np.ndarray):
        """Returns the chosen rows, in the order given, as the same kind of part."""
        rows = np.asarray(rows, dtype=np.int64)
        columns = (getattr(self, field.name) for field in fields(self))
        return type(self)(
            *(
                column[rows]
                if isinstance(column, np.ndarray)
                else [column[row] for row in rows.tolist()]
                for column in columns
            )
        )


@dataclass(frozen=True)
class Part(Questions):
    """Questions with the annotators' answers.

    Attributes:
        answers: for each question the answers as given, ten in VQA-v2.
        answer_types: each "yes/no", "number" or "other".
        multiple_choice: for each question the answer that stands for all, as given.
    """

    answers: list[list[str]]
    answer_types: list[str]
    multiple_choice: list[str]


def read_questions(path: str | Path) -> Questions:
    """Reads questions alone, as of a test part without answers.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: names the file and what is wrong: it is damaged, an entry is missing or of
            another kind, or a question id occurs twice.
    """
    entries = _read_list(path, "questions")
    ids = _ids(path, entries, "question_id")
    if len(np.unique(ids)) < len(ids):
        repeated, times = Counter(ids.tolist()).most_common(1)[0]
        raise ValueError(
            f"every question_id in {path} must occur once, {repeated} occurs {times} times; "
            "leave the copies out"
        )
    images = _ids(path, entries, "image_id")
    texts = [clean_text(text) for text in _column(path, entries, "question", str)]
    return Questions(ids, images, texts)


def read_part(questions_path: str | Path, annotations_path: str | Path) -> Part:
    """Reads questions and their annotations, in the order of the questions.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: names the file and what is wrong: see `read_questions`; or the two files do
            not hold the same questions about the same images, a question has no answers, or an
            answer type is unknown.
    """
    questions = read_questions(questions_path)
    path, entries = annotations_path, _read_list(annotations_path, "annotations")
    columns = [_column(path, entries, key, kind) for key, kind in KINDS.items()]
    order = _align(questions_path, questions, path, entries)
    types, answers, choices = ([column[row] for row in order] for column in columns)
    if unknown := set(types) - set(ANSWER_TYPES):
        named = ", ".join(map(shown, sorted(unknown)[:3]))
        raise ValueError(
            f"every answer_type in {path} must be one of {list(ANSWER_TYPES)}, got [{named}]; call "
            "them 'other' if they are neither"
        )
    for question_id, given in zip(questions.question_ids, answers, strict=True):
        if not given or not all(type(answer) is str for answer in given):
            raise ValueError(
                f'answers in {path} must hold at least one {{"answer": text}} a question, those '
                f"of question {question_id} do not; leave the question out of both files"
            )
    # Of millions of answers few differ, and of these hardly any need cleaning.
    if any(clean_text(text) != text for text in set(chain.from_iterable(answers))):
        answers = [[clean_text(text) for text in given] for given in answers]
    choices = [clean_text(text) for text in choices]
    return Part(
        questions.question_ids, questions.image_ids, questions.texts, answers, types, choices
    )


def _read_list(path: str | Path, name: str) -> list:
    # VQA-v2 has 6.6 million answers of few kinds: each is kept as one shared text at once, or
    # the entries around them would take gigabytes.
    texts: dict[str, str] = {}

    def keep_answer(entry: dict) -> Any:
        answer = entry.get("answer")
        is_answer = type(answer) is str and "question_id" not in entry
        return texts.setdefault(answer, answer) if is_answer else entry

    content = read_json(path, hook=keep_answer)
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(
            f'{path} must hold {{"{name}": [...]}} with an entry at least, and does not; get it '
            "again"
        )
    return entries


def _column(path: str | Path, entries: list, key: str, kind: type) -> list:
    """Returns what the entries hold under a key, all of one kind."""
    try:
        values = [entry[key] for entry in entries]
    except (KeyError, TypeError, IndexError):
        values = [entry.get(key) if isinstance(entry, dict) else None for entry in entries]
    # type, not isinstance: true and false are no integers here
    wrong = next((row for row, value in enumerate(values) if type(value) is not kind), None)
    if wrong is None:
        return values
    raise ValueError(
        f"every entry of {path} must have {key!r}, of type {kind.__name__}; entry {wrong}, "
        f"counted from 0, has {shown(values[wrong])}, of type {type(values[wrong]).__name__}; get "
        "the file again"
    )


def _ids(path: str | Path, entries: list, key: str) -> np.ndarray:
    """Returns the ids under a key, (entries,) int64."""
    ids = _column(path, entries, key, int)
    if ids and (min(ids) not in INT64 or max(ids) not in INT64):
        row = next(row for row, number in enumerate(ids) if number not in INT64)
        raise ValueError(
            f"every {key} in {path} must be a number that int64 holds; entry {row}, counted from "
            f"0, has {shown(ids[row])}; number them anew"
        )
    return np.array(ids, dtype=np.int64)


def _align(
    questions_path: str | Path, questions: Questions, path: str | Path, entries: list
) -> list[int]:
    """Returns the rows of the annotations in the order of the questions."""
    ids, images = (_ids(path, entries, key) for key in ("question_id", "image_id"))
    row_of = {question_id: row for row, question_id in enumerate(ids.tolist())}
    wanted, problem = questions.question_ids.tolist(), None
    if len(row_of) < len(ids):
        repeated, times = Counter(ids.tolist()).most_common(1)[0]
        problem = f"question {repeated} has {times} annotations"
    elif missing := [question_id for question_id in wanted if question_id not in row_of]:
        problem = f"{len(missing)} questions have none, the first is {missing[0]}"
    elif len(ids) > len(wanted):
        unknown = row_of.keys() - set(wanted)
        problem = f"{len(unknown)} are of unknown questions, one of them {min(unknown)}"
    else:
        order = [row_of[question_id] for question_id in wanted]
        if len(differ := np.flatnonzero(images[order] != questions.image_ids)):
            row = differ[0]
            problem = (
                f"question {wanted[row]} is about image {questions.image_ids[row]} there and "
                f"about {images[order[row]]} here"
            )
    if problem:
        raise ValueError(
            f"{path} must have one annotation for every question of {questions_path}, about the "
            f"same image, but {problem}; get both files of one part"
        )
    return order
