"""The parts of VQA: which files they are, and how validation is cut from train.

Test may be questions alone, whose answers its publisher keeps.
"""

from itertools import combinations
from pathlib import Path

import numpy as np

from ..loaders import grouped_split
from .annotations import Part, Questions, read_part, read_questions
from .answers import warn_of_rule

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


def read_parts(
    data_dir: str | Path, *, valid_share: float = 0.1, split_seed: int = 0
) -> tuple[Part, Part, Part | Questions]:
    """Reads (train, valid, test).

    With files of three parts, they are taken as they are. With train and one other, as published,
    the other is the reported part, test, and validation is cut from train, by image: what is
    selected on never saw what is reported.

    Args:
        data_dir: folder of the questions and annotations, by their official names or as
            `train_questions.json`, `train_annotations.json` and alike for valid (or val) and
            test; each may be gzipped. Of test, `test_questions.json` alone will do: it is then
            read as questions without answers.
        valid_share: validation's share of train's images, in (0, 1), where it is cut from train.
        split_seed: chooses them; the same seed gives the same split.

    Raises:
        FileNotFoundError: if the folder lacks train, or any other part.
        ValueError: names a damaged file, two files of one kind, or a question of two parts.

    Warns:
        UserWarning: where answers are not what the official accuracy is made for, see
            `warn_of_rule`.
    """
    files = find_parts(data_dir)
    parts = {name: _read(*paths) for name, paths in files.items()}
    for one, other in combinations(parts, 2):
        shared = np.intersect1d(parts[one].question_ids, parts[other].question_ids)
        if len(shared):
            raise ValueError(
                f"no question may be in two parts, but question {shared[0]} is in "
                f"{files[one][0]} and in {files[other][0]}; leave it out of one"
            )
    train, *others = parts.values()
    if len(others) == 1:
        try:
            kept, held = grouped_split(train.image_ids, share=valid_share, seed=split_seed)
        except ValueError as error:
            raise ValueError(f"{files['train'][0]} cannot be split by image: {error}") from error
        return train.take(kept), train.take(held), others[0]
    return train, *others


def _read(questions: Path, annotations: Path | None) -> Part | Questions:
    if annotations is None:
        return read_questions(questions)
    part = read_part(questions, annotations)
    warn_of_rule(annotations, part.answers)
    return part


def find_parts(data_dir: str | Path) -> dict[str, tuple[Path, Path | None]]:
    """Returns the (questions, annotations) of each part: train, then one or two others.

    Test has None as annotations where there are none.

    Raises:
        FileNotFoundError, ValueError: see `read_parts`.
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
