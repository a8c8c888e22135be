"""The parts of VQA: questions and annotations as VQA-v2 has them, JSON (Goyal et al., 2017).

- questions: {"questions": [{"question_id", "image_id", "question"}]},
- annotations: {"annotations": [{"question_id", "image_id", "answer_type",
  "multiple_choice_answer", "answers": [{"answer", ...}]}]}, ten answers a question.

Either may be gzipped. Other entries are left aside. The two files may list the questions in
different orders. Half a surrogate pair in a text is read as U+FFFD. Ids are whole numbers that
int64 holds. Of test there may be questions alone, whose answers its publisher keeps.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..files.json_files import read_json
from ..files.numbers import INT64
from ..files.reading import clean_text, shown

ANSWER_TYPES = ("yes/no", "number", "other")
KINDS = {"answer_type": str, "answers": list, "multiple_choice_answer": str}
"""The entries of an annotation beside its ids."""
OFFICIAL = {
    "questions": "v2_OpenEnded_mscoco_{part}2014_questions.json",
    "annotations": "v2_mscoco_{part}2014_annotations.json",
}
PLAIN = "{part}_{kind}.json"
PARTS = "train", "valid", "val", "test"
UNANSWERED = "test"  # the part of which there may be questions alone
PUBLISHED = "v2_OpenEnded_mscoco_{part}2015_questions.json"
"""The questions of VQA-v2's test and test-dev, which `find_questions` finds, and `read_parts` not:
with them in the folder, val stays the part that is reported."""


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


def find_parts(data_dir: str | Path) -> dict[str, tuple[Path, Path | None]]:
    """Returns the (questions, annotations) of each part: train, then one or two others.

    Test has None as annotations where there are none.

    Raises:
        FileNotFoundError: if the folder lacks train, or any other part.
        ValueError: if there are two files of one kind, or four parts.
    """
    folder = Path(data_dir)
    found = {name: [_find(folder, name, kind) for kind in OFFICIAL] for name in PARTS}
    files = {}
    for name, (questions, annotations) in found.items():
        if questions and (annotations or name == UNANSWERED):
            files[name] = questions, annotations
        elif questions or annotations:
            raise FileNotFoundError(
                f"{folder} has only {questions or annotations} of {name}, which needs its "
                "questions and its annotations; get the other file too"
            )
    if "train" not in files or len(files) == 1:
        raise FileNotFoundError(
            f"{folder} must hold the questions and annotations of train and of val, or of train, "
            f"valid and test, got those of {sorted(files)}; for VQA-v2: "
            f"deq-fusion prepare vqa --data-dir {folder}"
        )
    if len(files) == len(PARTS):
        raise ValueError(
            f"{folder} must hold at most three parts, got {list(files)}; move valid or val away"
        )
    return files


def lacks_answers(data_dir: str | Path) -> bool:
    """Says whether test of a folder is questions alone."""
    questions, annotations = (_find(Path(data_dir), UNANSWERED, kind) for kind in OFFICIAL)
    return bool(questions and not annotations)


def find_questions(data_dir: str | Path, part: str) -> Path:
    """Returns the file of a part's questions, which may be VQA-v2's "test" or "test-dev" of 2015.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if there are several.
    """
    found = _find(Path(data_dir), part, "questions", PUBLISHED)
    if found is None:
        names = PLAIN.format(part=part, kind="questions"), PUBLISHED.format(part=part)
        raise FileNotFoundError(
            f"no questions of {part} in {data_dir}, neither {names[0]} nor {names[1]}; get them, "
            "or name their file"
        )
    return found


def _find(folder: Path, part: str, kind: str, *more: str) -> Path | None:
    names = [pattern.format(part=part, kind=kind) for pattern in (OFFICIAL[kind], PLAIN, *more)]
    there = [folder / f"{name}{end}" for name in names for end in ("", ".gz")]
    there = [path for path in there if path.is_file()]
    if len(there) > 1:
        raise ValueError(
            f"the {kind} of {part} must be one file, got {there[0]} and {there[1].name}; move "
            "one away"
        )
    return there[0] if there else None
