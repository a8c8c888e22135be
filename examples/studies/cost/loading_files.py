"""Files of random content in the layout and, at full scale, about the size of the real sets."""

import json
import pickle
from pathlib import Path

import h5py
import numpy as np

FILMS = 25_959
IMAGES, QUESTIONS = 10_000, 5  # a twelfth of VQA-v2's images, questions an image
REGIONS, DIM = 36, 2048  # of the bottom-up features
PATIENTS, WIDTHS = (612, 263), (1000, 1000, 503)  # of BRCA: train and test, by modality
UTTERANCES = {"train": 1284, "valid": 229, "test": 686}
FEATURES = {"text": 100, "audio": 73, "vision": 100}
STEPS, SEQUENCES = 50, {"vision": 35, "audio": 74, "text": 300}
BYTES = IMAGES * REGIONS * DIM * 2  # of the largest set
BLOCK = 256  # rows of the one block that is written over and over


def write_imdb(path: Path, films: int) -> Path:
    """Writes MM-IMDB's word2vec and VGG features and its genres."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["genres"] = rng.integers(0, 2, (films, 23), dtype=np.int32)
        for name, width in {"features": 300, "vgg_features": 4096}.items():
            dataset = file.create_dataset(name, (films, width), np.float32)
            _fill(dataset, rng.random((BLOCK, width), dtype=np.float32))
    return path


def write_vqa(folder: Path, images: int, *, offsets: bool) -> Path:
    """Writes questions, annotations and features; returns the features' path.

    With `offsets`, the regions of all images follow each other; else each image has a block.
    """
    for part, chosen in {"train": range(images), "val": range(images - 1, images)}.items():
        entries = [
            {"question_id": 2 * number + (part == "val"), "image_id": image}
            for number, image in enumerate(image for image in chosen for _ in range(QUESTIONS))
        ]
        truth = {
            "answer_type": "other",
            "multiple_choice_answer": "cat",
            "answers": [{"answer": "cat", "answer_id": k} for k in range(10)],
        }
        content = {
            "questions": [entry | {"question": "what is this thing here?"} for entry in entries],
            "annotations": [entry | truth for entry in entries],
        }
        for kind, listed in content.items():
            text = json.dumps({kind: listed})
            (folder / f"{part}_{kind}.json").write_text(text, encoding="utf-8")
    path = folder / "features.hdf5"
    shape = (images * REGIONS, DIM) if offsets else (images, REGIONS, DIM)
    block = np.random.default_rng(0).random((BLOCK, *shape[1:]), dtype=np.float32)
    with h5py.File(path, "w") as file:
        file["image_ids"] = np.arange(images)
        if offsets:
            file["offsets"] = np.arange(images + 1) * REGIONS
        _fill(file.create_dataset("features", shape, np.float16), block.astype(np.float16))
    return path


def write_brca(folder: Path, patients: tuple[int, int]) -> Path:
    """Writes MOGONET's tables of three modalities and five classes."""
    rng = np.random.default_rng(0)
    for part, count in zip(("tr", "te"), patients, strict=True):
        np.savetxt(folder / f"labels_{part}.csv", np.arange(count) % 5, fmt="%d")
        for modality, width in enumerate(WIDTHS, start=1):
            table = rng.random((count, width))
            np.savetxt(folder / f"{modality}_{part}.csv", table, fmt="%.8f", delimiter=",")
    return folder


def write_utterances(path: Path, counts: dict[str, int]) -> Path:
    """Writes CMU-MOSI at utterance level; a video has 20 of them."""
    rng, count = np.random.default_rng(0), sum(counts.values())
    numbers = np.arange(count)
    np.savez_compressed(
        path,
        **{key: rng.random((count, width), dtype=np.float32) for key, width in FEATURES.items()},
        labels=rng.uniform(-3, 3, count).astype(np.float32),
        id=numbers.astype(str),
        video_id=(numbers // 20).astype(str),
        split=np.where(numbers // 20 * 20 < count - counts["test"], "train", "test"),
    )
    return path


def write_sequences(path: Path, counts: dict[str, int]) -> Path:
    """Writes CMU-MOSI as MultiBench pickles it: 1 to 50 steps, zeros in front."""
    rng, content = np.random.default_rng(0), {}
    for part, count in counts.items():
        lengths = rng.integers(1, STEPS + 1, (count, 1, 1))
        spoken = np.arange(STEPS)[:, None] >= STEPS - lengths
        content[part] = {
            key: rng.random((count, STEPS, width), dtype=np.float32) * spoken
            for key, width in SEQUENCES.items()
        } | {
            "labels": rng.uniform(-3, 3, (count, 1, 1)).astype(np.float32),
            "id": np.array([f"{part}{row}" for row in range(count)]),
        }
    path.write_bytes(pickle.dumps(content))
    return path


def _fill(dataset: h5py.Dataset, block: np.ndarray) -> None:
    for start in range(0, len(dataset), len(block)):
        rows = min(len(block), len(dataset) - start)
        dataset[start : start + rows] = block[:rows]
