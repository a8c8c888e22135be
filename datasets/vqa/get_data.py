"""VQA-v2, and sets in its layout: answers to questions about images (Goyal et al., 2017).

A folder holds questions and annotations as JSON (see `read_parts`) and image features (see
`open_features`). The vocabularies of words and of answers are fitted on train only, unless asked
otherwise. `prepare.py` beside this file downloads the text; the README says more of the data.
"""

import warnings
from collections.abc import Sequence
from operator import contains
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..loaders import make_loader
from .annotations import ANSWER_TYPES, Part, Questions, read_questions
from .features import Features, open_features
from .parts import read_parts
from .questions import Words
from .vocabulary import PROTOCOLS, AnswerVocabulary

MODALITIES = "question", "image"
LENGTHS = {"mcan": 14, "mutan": 26}
"""How many words of a question each tokeniser's method reads."""
FITTED_ON = {"train": 1, "train+valid": 2, "all": 3}
"""Which parts a vocabulary is fitted on: so many of train, valid and test."""


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
        words: size of the question vocabulary, padding included.
        vocabulary: the question vocabulary.
        answers: the answer vocabulary; `len(answers)` classes.
        widths: {"question": length, "image": dim} of the modalities asked for.
        regions: rows of an image, None without images.
        part: the questions, row for row.
        truth: the truth, row for row.
        dropped: how many questions were left out because no answer of theirs is in the vocabulary.
    """

    def __init__(
        self,
        part: Part | Questions,
        truth: dict[str, Tensor],
        *,
        modalities: Sequence[str],
        vocabulary: Words,
        length: int,
        answers: AnswerVocabulary,
        features: Features | None = None,
        dtype: torch.dtype = torch.float32,
        drop_unanswerable: bool = False,
    ) -> None:
        self.dropped = 0
        if drop_unanswerable:
            kept = (_learnt(truth) > 0).any(dim=1)
            self.dropped = int((~kept).sum())
            part = part.take(np.flatnonzero(kept.numpy()))
            truth = {name: column[kept] for name, column in truth.items()}
        self.part, self.modalities, self.truth = part, tuple(modalities), truth
        self.vocabulary, self.words, self.answers = vocabulary, len(vocabulary), answers
        self.features, self.dtype, self.regions = features, dtype, None
        self.length = length
        self.widths = {}
        if "question" in modalities:
            self.tokens = torch.from_numpy(vocabulary.encode(part.texts, length=length))
            self.widths["question"] = length
        if "image" in modalities:
            features.check(part.image_ids)
            self.widths["image"], self.regions = features.dim, features.regions

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
        data_dir, valid_share, split_seed: see `read_parts`.
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
        min_count, most: how frequent an answer must be, and how many are kept; None is the
            protocol's.
        drop_unanswerable: whether train's questions that have no answer in the vocabulary are
            left out; validation's and test's never are.
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
    shared = {
        "modalities": modalities,
        "vocabulary": Words.fit(texts, tokenise=tokenise),
        "length": LENGTHS[tokenise] if length is None else length,
        "answers": AnswerVocabulary.fit(
            [part for part in parts[: FITTED_ON[answers]] if isinstance(part, Part)],
            protocol=protocol,
            min_count=min_count,
            most=most,
        ),
        "features": _open(data_dir, features, regions) if "image" in modalities else None,
        "dtype": dtype,
    }
    datasets = _make_datasets(parts, drop_unanswerable, **shared)
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
        batch_size, workers: see `get_dataloader`.

    Raises:
        FileNotFoundError, ValueError: see `read_questions`; or an image has no features.
    """
    part = read_questions(questions)
    data = VQA(
        part,
        _truth(part, like.answers),
        modalities=like.modalities,
        vocabulary=like.vocabulary,
        length=like.length,
        answers=like.answers,
        features=like.features,
        dtype=like.dtype,
    )
    return make_loader(data, batch_size=batch_size, shuffle=False, workers=workers)


def _make_datasets(
    parts: Sequence[Part | Questions], drop_unanswerable: bool, **shared: Any
) -> list[VQA]:
    truths = _pad_alike([_truth(part, shared["answers"]) for part in parts])
    for name, part, truth in zip(("train", "valid", "test"), parts, truths, strict=True):
        _check_answerable(name, part, truth, len(shared["answers"]))
    drop = drop_unanswerable, False, False  # what is scored is never left out
    return [
        VQA(part, truth, drop_unanswerable=dropped, **shared)
        for part, truth, dropped in zip(parts, truths, drop, strict=True)
    ]


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


def _learnt(truth: dict[str, Tensor]) -> Tensor:
    return truth.get("share", truth["target"])  # Mutan learns an answer as written


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
    width = max(truth["answer"].shape[1] for truth in truths if "answer" in truth)

    def fill(name: str, column: Tensor) -> Tensor:
        if column.ndim < 2:
            return column
        lacking = (0, width - column.shape[1])
        return torch.nn.functional.pad(column, lacking, value=-1 if name == "answer" else 0)

    return [{name: fill(name, column) for name, column in truth.items()} for truth in truths]


def find_features(data_dir: str | Path) -> Path | None:
    """Returns what `get_dataloader` takes for a folder's image features, None if there are none."""
    folder = Path(data_dir)
    if any(folder.glob("*.hdf5")) or any(folder.glob("*.h5")):
        return folder
    return folder / "features" if (folder / "features").is_dir() else None


def _open(data_dir: str | Path, features: str | Path | None, regions: int | None) -> Features:
    path = features or find_features(data_dir)
    if path is None:
        raise FileNotFoundError(
            f"no image features in {data_dir}, neither *.hdf5 nor a folder `features`; say by "
            "`features` where they are, or make them with: "
            "python -m deq_fusion.examples.vqa.extract_features --help"
        )
    return open_features(path, regions=regions)


def _check_choices(modalities: tuple[str, ...], **chosen: str) -> None:
    if (
        not modalities
        or set(modalities) - set(MODALITIES)
        or len(set(modalities)) < len(modalities)
    ):
        raise ValueError(
            f"modalities must be different names out of {list(MODALITIES)}, got {list(modalities)}"
        )
    choices = {"tokenise": LENGTHS, "protocol": PROTOCOLS, "words": FITTED_ON, "answers": FITTED_ON}
    for name, value in chosen.items():
        if value not in choices[name]:
            raise ValueError(f"{name} must be one of {list(choices[name])}, got {value!r}")
