"""VQA-v2, and sets in its layout: answers to questions about images (Goyal et al., 2017).

A folder holds questions and annotations as JSON (see `read_parts`) and image features (see
`open_features`). The vocabularies of words and of answers are fitted on train only, unless asked
otherwise. `prepare.py` beside this file downloads the text; the README says more of the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..loaders import grouped_split, make_loader
from .annotations import Part, Questions, find_parts, read_part, read_questions
from .answers import warn_of_rule
from .features import Features, open_for
from .vocabulary import PROTOCOLS, AnswerVocabulary, Words, in_numbers

MODALITIES = "question", "image"
LENGTHS = {"mcan": 14, "mutan": 26}
"""The words of a question that each tokeniser's method reads."""
FITTED_ON = {"train": 1, "train+valid": 2, "all": 3}
"""The parts a vocabulary is fitted on: so many of train, valid and test."""


@dataclass(eq=False, repr=False, kw_only=True)
class VQA(Dataset):
    """One part. Indexed with a list of rows, it returns a batch: the modalities, then the truth.

    - question: (batch, length) int64, words; 0 is padding, 1 a word that train does not have;
    - image: (batch, regions, dim), rows of zeros are padding;
    - truth: a dict of `answer` (batch, K) int64, the candidates in the vocabulary, -1 where there
      are fewer than K; `target` and `accuracy` (batch, K) float32, their soft target and the
      official accuracy of predicting them, 0 for every other answer; `type` (batch,) int64, 0 for
      yes/no, 1 for number, 2 for other; `question_id` (batch,) int64; and by Mutan's protocol
      `share` (batch, K) float32, from which it draws the answer to learn. Of questions without
      answers it has `question_id` alone.

    Attributes:
        part: the questions, row for row.
        tokens: their words, (questions, length) int64; None without the questions.
        truth: the truth, row for row.
        dropped: how many questions were left out because no answer of theirs is in the vocabulary.
        modalities: the names of those of a batch, in its order.
        vocabulary: the question vocabulary.
        answers: the answer vocabulary; `len(answers)` classes.
        features: the images' features, which must hold every image; None without images.
        dtype: of the images in a batch.

    Raises:
        ValueError: if an image has no features.
    """

    part: Part | Questions
    tokens: Tensor | None
    truth: dict[str, Tensor]
    dropped: int
    modalities: tuple[str, ...]
    vocabulary: Words
    answers: AnswerVocabulary
    features: Features | None = None
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.features is not None:
            self.features.check(self.part.image_ids)

    @property
    def words(self) -> int:
        """The size of the question vocabulary, padding included."""
        return len(self.vocabulary)

    @property
    def widths(self) -> dict[str, int]:
        """The widths of the modalities asked for: {"question": length, "image": dim}."""
        widths = {} if self.tokens is None else {"question": self.tokens.shape[1]}
        return widths if self.features is None else widths | {"image": self.features.dim}

    @property
    def regions(self) -> int | None:
        """The rows of an image, None without images."""
        return None if self.features is None else self.features.regions

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, rows: Sequence[int]) -> list[Any]:
        rows = torch.as_tensor(rows)
        read = {"question": self._questions, "image": self._images}
        truth = {name: column[rows] for name, column in self.truth.items()}
        return [*(read[modality](rows) for modality in self.modalities), truth]

    def _questions(self, rows: Tensor) -> Tensor:
        return self.tokens[rows]

    def _images(self, rows: Tensor) -> Tensor:
        image_ids = self.part.image_ids[rows.numpy()]
        stored = torch.from_numpy(self.features[image_ids])
        images = stored.to(self.dtype)
        # the features are finite as stored; a narrower dtype may not hold them
        if (
            stored.dtype in (self.dtype, torch.float16)
            or images.sum(dtype=torch.float32).isfinite()
        ):
            return images
        beyond = ~images.flatten(1).isfinite().all(dim=1).numpy()
        if beyond.any():
            raise ValueError(
                f"every feature in {self.features.source} must lie within "
                f"{torch.finfo(self.dtype).max:.5g}, as {self.dtype} does, but those of image "
                f"{image_ids[beyond][0]} do not; rescale them"
            )
        return images


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


def get_dataloader(
    data_dir: str | Path,
    *,
    modalities: Sequence[str] = MODALITIES,
    features: str | Path | None = None,
    regions: int | None = None,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 64,
    length: int | None = None,
    tokenise: str = "mcan",
    words: str = "train",
    answers: str = "train",
    protocol: str | None = None,
    min_count: int | None = None,
    most: int | None = None,
    drop_unanswerable: bool = True,
    valid_share: float = 0.1,
    split_seed: int = 0,
    workers: int = 0,
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Returns the loaders of (train, valid, test); only train is shuffled. A batch: see `VQA`.

    Test may be questions without answers, see `read_parts`: to predict for, as for those of
    another file, see `question_loader`.

    Args:
        data_dir: the folder, see `read_parts`.
        modalities: "question", "image" or both, in the order wanted.
        features: the features' file or folder; None looks for HDF5 files in `data_dir`, then for
            a folder `features` in it.
        regions: rows an image is cut or padded to (MCAN: 100); None: what the features need.
        dtype: of the images, floating; torch.float16 leaves float16 as it is.
        batch_size: questions a batch, the last one may be smaller.
        length: words read of a question; None takes MCAN's 14 or Mutan's 26.
        tokenise: "mcan" or "mutan", whose way of cutting a question into words.
        words: what the words are fitted on, "train", "train+valid", or "all", which published
            MCAN results use and which lets the reported part's questions into the vocabulary.
        answers: the same for the answers; published MCAN results use "all".
        protocol: "mcan" or "mutan", which answers a vocabulary has, see `AnswerVocabulary.fit`;
            None is that of `tokenise`.
        min_count: how often an answer must occur at least; None is the protocol's.
        most: how many answers are kept; None is the protocol's.
        drop_unanswerable: whether train's questions that have no answer in the vocabulary are
            left out; validation's and test's never are.
        valid_share: see `read_parts`.
        split_seed: see `read_parts`.
        workers: processes that load batches ahead; 0 loads in this one.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, an argument or the files do not fit, or no question of
            train has an answer in the vocabulary. A batch with features that are not finite, in
            the file or as `dtype`, raises it, naming the image.

    Warns:
        UserWarning: if no question of validation or test has an answer in the vocabulary; and see
            `read_parts` and `HDF5Features`.
    """
    modalities, protocol = tuple(modalities), protocol or tokenise
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be floating, got {dtype}; take torch.float32")
    _check_choices(modalities, tokenise=tokenise, protocol=protocol, words=words, answers=answers)
    parts = read_parts(data_dir, valid_share=valid_share, split_seed=split_seed)
    texts = [text for part in parts[: FITTED_ON[words]] for text in part.texts]
    answered = [part for part in parts[: FITTED_ON[answers]] if isinstance(part, Part)]
    vocabulary = Words.fit(texts, tokenise=tokenise)
    choice = AnswerVocabulary.fit(answered, protocol=protocol, min_count=min_count, most=most)
    shared: dict[str, Any] = {
        "modalities": modalities,
        "vocabulary": vocabulary,
        "answers": choice,
        "features": open_for(data_dir, features, regions) if "image" in modalities else None,
        "dtype": dtype,
    }
    length = LENGTHS[tokenise] if length is None else length
    numbers = in_numbers(
        dict(zip(("train", "valid", "test"), parts, strict=True)),
        vocabulary,
        choice,
        length=length if "question" in modalities else None,
        drop_unanswerable=drop_unanswerable,
    )
    datasets = [VQA(**columns, **shared) for columns in numbers]
    train, valid, test = (
        make_loader(data, batch_size=batch_size, shuffle=data is datasets[0], workers=workers)
        for data in datasets
    )
    return train, valid, test


def question_loader(
    like: VQA, questions: str | Path, *, batch_size: int = 64, workers: int = 0
) -> DataLoader:
    """Returns the loader of a file of questions, without answers, to predict them.

    Args:
        like: the part that a model was trained on, whose words, answers, features and options
            are taken.
        questions: the file, see `read_questions`.
        batch_size: questions a batch, the last one may be smaller.
        workers: processes that load batches ahead; 0 loads in this one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: see `read_questions`; or an image has no features.
    """
    part, length = read_questions(questions), like.widths.get("question")
    (numbers,) = in_numbers({"questions": part}, like.vocabulary, like.answers, length=length)
    data = VQA(
        **numbers,
        modalities=like.modalities,
        vocabulary=like.vocabulary,
        answers=like.answers,
        features=like.features,
        dtype=like.dtype,
    )
    return make_loader(data, batch_size=batch_size, shuffle=False, workers=workers)


def _check_choices(modalities: tuple[str, ...], **chosen: str) -> None:
    if (
        not modalities
        or set(modalities) - set(MODALITIES)
        or len(set(modalities)) < len(modalities)
    ):
        raise ValueError(
            f"modalities must be different names out of {list(MODALITIES)}, got {list(modalities)}"
        )
    choices = {
        "tokenise": [*LENGTHS],
        "protocol": [*PROTOCOLS],
        "words": [*FITTED_ON],
        "answers": [*FITTED_ON],
    }
    for name, value in chosen.items():
        if value not in choices[name]:
            raise ValueError(f"{name} must be one of {choices[name]}, got {value!r}")
