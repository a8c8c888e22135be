"""The parts of VQA: which files they are, and how validation is cut from train."""

from itertools import combinations
from pathlib import Path

import numpy as np

from ..loaders import grouped_split
from .annotations import Part, read_part

OFFICIAL = {
    "questions": "v2_OpenEnded_mscoco_{part}2014_questions.json",
    "annotations": "v2_mscoco_{part}2014_annotations.json",
}
PLAIN = "{part}_{kind}.json"
PARTS = "train", "valid", "val", "test"


def read_parts(
    data_dir: str | Path, *, valid_share: float = 0.1, split_seed: int = 0
) -> tuple[Part, Part, Part]:
    """Reads (train, valid, test).

    With files of three parts, they are taken as they are. With train and one other, as published,
    the other is the reported part, test, and validation is cut from train, by image: what is
    selected on never saw what is reported.

    Args:
        data_dir: folder of the questions and annotations, by their official names or as
            `train_questions.json`, `train_annotations.json` and alike for valid (or val) and
            test; each may be gzipped.
        valid_share: validation's share of train's images, in (0, 1), where it is cut from train.
        split_seed: chooses them; the same seed gives the same split.

    Raises:
        FileNotFoundError: if the folder lacks train, or any other part.
        ValueError: names a damaged file, two files of one kind, or a question of two parts.
    """
    files = find_parts(data_dir)
    parts = {name: read_part(*paths) for name, paths in files.items()}
    for one, other in combinations(parts, 2):
        shared = np.intersect1d(parts[one].question_ids, parts[other].question_ids)
        if len(shared):
            raise ValueError(
                f"no question may be in two parts, but question {shared[0]} is in "
                f"{files[one][0]} and in {files[other][0]}; leave it out of one"
            )
    train, *others = parts.values()
    if len(others) == 1:
        kept, held = grouped_split(train.image_ids, share=valid_share, seed=split_seed)
        return train.take(kept), train.take(held), others[0]
    return train, *others


def find_parts(data_dir: str | Path) -> dict[str, tuple[Path, Path]]:
    """Returns the (questions, annotations) of each part: train, then one or two others.

    Raises:
        FileNotFoundError, ValueError: see `read_parts`.
    """
    folder = Path(data_dir)
    found = {name: [_find(folder, name, kind) for kind in OFFICIAL] for name in PARTS}
    files = {name: (paths[0], paths[1]) for name, paths in found.items() if all(paths)}
    for name, paths in found.items():
        if any(paths) and not all(paths):
            raise FileNotFoundError(
                f"{folder} has only {next(filter(None, paths))} of {name}, which needs its "
                "questions and its annotations; get the other file too"
            )
    if "train" not in files or len(files) == 1:
        raise FileNotFoundError(
            f"{folder} must hold the questions and annotations of train and of val, or of train, "
            f"valid and test, got those of {sorted(files)}; for VQA-v2: "
            f"python -m datasets.vqa.prepare --data-dir {folder}"
        )
    if len(files) == len(PARTS):
        raise ValueError(
            f"{folder} must hold at most three parts, got {list(files)}; move valid or val away"
        )
    return files


def _find(folder: Path, part: str, kind: str) -> Path | None:
    names = [pattern.format(part=part, kind=kind) for pattern in (OFFICIAL[kind], PLAIN)]
    there = [folder / f"{name}{end}" for name in names for end in ("", ".gz")]
    there = [path for path in there if path.is_file()]
    if len(there) > 1:
        raise ValueError(
            f"the {kind} of {part} must be one file, got {there[0]} and {there[1].name}; move "
            "one away"
        )
    return there[0] if there else None
