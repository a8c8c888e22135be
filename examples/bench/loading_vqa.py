"""How fast VQA's questions and regions are loaded, beside a naive reader of the same file."""

import json
import statistics
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from datasets.vqa.get_data import VQA, get_dataloader

REGIONS, DIM = 36, 2048  # of the bottom-up features
QUESTIONS = 5  # an image
BATCH = 64
ROUNDS = 3
FEATURES = "features.hdf5"
CHUNK = 256  # images written at once


class RowByRow(Dataset):
    """The same questions, an item at a time: each reads one image from the open file."""

    def __init__(self, dataset: VQA, path: Path) -> None:
        self.dataset, self.path, self.file = dataset, path, None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple:
        if self.file is None:
            self.file = h5py.File(self.path, "r")
            self.row_of = {image: k for k, image in enumerate(self.file["image_ids"][:].tolist())}
        place = self.row_of[int(self.dataset.part.image_ids[row])]
        if "offsets" in self.file:
            start, stop = self.file["offsets"][place : place + 2]
            regions = self.file["features"][start:stop]
        else:
            regions = self.file["features"][place]
        truth = {name: column[row] for name, column in self.dataset.truth.items()}
        return self.dataset.tokens[row], torch.from_numpy(regions).to(self.dataset.dtype), truth


def vqa_case(
    folder: str | Path,
    images: int,
    *,
    offsets: bool = False,
    workers: int = 1,
    dtype: torch.dtype = torch.float32,
    batches: int = 20,
) -> tuple[float, float]:
    """Returns the questions a second of our loader and of the naive one.

    Both shuffle, in batches of 64, with 36 x 2048 float16 regions an image.
    The file has just been written, so it is read from memory as far as that holds it.

    Args:
        folder: to write a made-up set to, 147 kB an image; an earlier one in it is used again.
        images: size of the set, of which the larger half is train.
        offsets: whether regions of all images follow each other, or each image has its block.
        workers: processes that load.
        dtype: of the regions, as loaded; a worker passes half as many bytes in float16.
        batches: how many are timed, after a few that are not; three times for each, in turn.
    """
    folder = Path(folder)
    if not (folder / FEATURES).exists():
        write_set(folder, images, offsets=offsets)
    train, _, _ = get_dataloader(
        folder, batch_size=BATCH, min_count=1, workers=workers, dtype=dtype
    )
    naive = DataLoader(
        RowByRow(train.dataset, folder / FEATURES),
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
    )
    speeds = [[_questions_a_second(x, batches) for x in (train, naive)] for _ in range(ROUNDS)]
    ours, others = zip(*speeds, strict=True)
    return statistics.median(ours), statistics.median(others)


def write_set(folder: Path, images: int, *, offsets: bool) -> None:
    """Writes questions, annotations and features of random content."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, ids in {"train": range(images), "val": range(images - 1, images)}.items():
        questions = [
            {"question_id": 2 * number + (part == "val"), "image_id": image}
            for number, image in enumerate(image for image in ids for _ in range(QUESTIONS))
        ]
        annotations = [
            entry
            | {
                "answer_type": "other",
                "multiple_choice_answer": "cat",
                "answers": [{"answer": "cat", "answer_id": k} for k in range(10)],
            }
            for entry in questions
        ]
        questions = [entry | {"question": "what is this thing here?"} for entry in questions]
        (folder / f"{part}_questions.json").write_text(json.dumps({"questions": questions}))
        (folder / f"{part}_annotations.json").write_text(json.dumps({"annotations": annotations}))
    shape = (images * REGIONS, DIM) if offsets else (images, REGIONS, DIM)
    with h5py.File(folder / FEATURES, "w") as file:
        file["image_ids"] = np.arange(images)
        if offsets:
            file["offsets"] = np.arange(images + 1) * REGIONS
        features = file.create_dataset("features", shape, np.float16)
        step = CHUNK * (REGIONS if offsets else 1)
        for start in range(0, shape[0], step):
            size = min(step, shape[0] - start)
            features[start : start + size] = rng.random((size, *shape[1:]), dtype=np.float32)


def _questions_a_second(loader: Iterable, batches: int) -> float:
    stream = iter(loader)
    for _ in islice(stream, 4):  # starts the workers and opens the file
        pass
    start = time.perf_counter()
    count = sum(len(batch[0]) for batch in islice(stream, batches))
    return count / (time.perf_counter() - start)
