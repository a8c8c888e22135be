"""VQA: questions and annotations, results, image features in three layouts, and vocabularies."""

import gzip
import io
import json
import pickle
from pathlib import Path

import h5py
import numpy as np

from deq_fusion.datasets.files.text import WordPieces
from deq_fusion.datasets.vqa.annotations import read_part
from deq_fusion.datasets.vqa.answers import read_results, score, write_results
from deq_fusion.datasets.vqa.features import open_features
from deq_fusion.datasets.vqa.get_data import get_dataloader

from .formats import Format, drained
from .independent import demand, hdf5, json_value, npz, text, unique, unpickled

KINDS = ("yes/no", "number", "other")
QUESTIONS, ANNOTATIONS = "{}_questions.json{}", "{}_annotations.json{}"
ENDS = {"train": "", "val": ".gz"}


def _part_files(part: str, first: int, rows: int) -> dict[str, bytes]:
    questions, annotations = [], []
    for row in range(first, first + rows):
        named = {"question_id": row, "image_id": 100 + row // 2}
        questions.append({**named, "question": f"Is it number {row}?"})
        answer = ("yes", str(row), "a dog")[row % 3]
        given = [{"answer": answer if i < 7 else "no", "answer_id": i} for i in range(10)]
        annotation = {"answer_type": KINDS[row % 3], "multiple_choice_answer": answer}
        annotations.append({**named, **annotation, "answers": given})
    contents = ((QUESTIONS, "questions", questions), (ANNOTATIONS, "annotations", annotations))
    files = {}
    for pattern, key, entries in contents:
        written = json.dumps({"info": {}, key: entries}).encode()
        end = ENDS[part]
        files[pattern.format(part, end)] = gzip.compress(written, mtime=0) if end else written
    return files


def _vqa_files() -> dict[str, bytes]:
    return _part_files("train", 1, 8) | _part_files("val", 51, 4)


def _read_vqa(folder: Path) -> dict:
    found = drained(get_dataloader(folder, modalities=["question"], min_count=1, valid_share=0.3))
    for part, end in ENDS.items():
        read = read_part(*(folder / kind.format(part, end) for kind in (QUESTIONS, ANNOTATIONS)))
        found[part] = dict(vars(read))
    return found


def _independent_part(folder: Path, part: str) -> dict:
    end = ENDS[part]
    questions = json_value(folder / QUESTIONS.format(part, end))["questions"]
    annotations = json_value(folder / ANNOTATIONS.format(part, end))["annotations"]
    ids = unique([_whole(question["question_id"]) for question in questions])
    by_id = {_whole(annotation["question_id"]): annotation for annotation in annotations}
    demand(len(by_id) == len(annotations) == len(ids) and by_id.keys() == set(ids))
    found = {
        "question_ids": np.array(ids),
        "texts": [question["question"] for question in questions],
    }
    found["image_ids"] = np.array([_whole(question["image_id"]) for question in questions])
    rows = [by_id[question_id] for question_id in ids]
    demand([_whole(row["image_id"]) for row in rows] == found["image_ids"].tolist())
    found["answer_types"] = [row["answer_type"] for row in rows]
    found["multiple_choice"] = [row["multiple_choice_answer"] for row in rows]
    found["answers"] = [
        [a if isinstance(a, str) else a["answer"] for a in row["answers"]] for row in rows
    ]
    demand(set(found["answer_types"]) <= set(KINDS))
    texts = [*found["texts"], *found["multiple_choice"], *sum(found["answers"], [])]
    demand(all(isinstance(entry, str) for entry in texts) and all(found["answers"]))
    return found


def _whole(value: object) -> int:
    demand(type(value) is int and -(2**63) <= value < 2**63)
    return value


def _independent_vqa(folder: Path) -> dict:
    return {part: _independent_part(folder, part) for part in ENDS}


def _answer_files() -> dict[str, bytes]:
    results = [
        {"question_id": row, "answer": ("yes", "2", "a dog")[row % 3]} for row in range(51, 55)
    ]
    return _part_files("val", 51, 4) | {"results.json": json.dumps(results).encode()}


def _read_answers(folder: Path) -> dict:
    part = read_part(*(folder / kind.format("val", ".gz") for kind in (QUESTIONS, ANNOTATIONS)))
    predictions = read_results(folder / "results.json")
    write_results(folder / "again.json", predictions)
    assert len(read_results(folder / "again.json")) == len(predictions)
    try:
        scored = score(predictions, part)
    except ValueError as error:  # it knows no file: two that were read do not belong together
        scored = str(error)
    return {"predictions": sorted(predictions.items()), "scored": scored}


def _independent_answers(folder: Path) -> dict:
    entries = json_value(folder / "results.json")
    pairs = [(entry["question_id"], entry["answer"]) for entry in entries]
    demand(all(type(question) is int for question, _ in pairs))
    unique([question for question, _ in pairs])
    demand(all(isinstance(answer, str) for _, answer in pairs))
    return {"predictions": sorted(pairs)}


def _image(rng: np.random.Generator, regions: int) -> np.ndarray:
    return rng.normal(1, 1, (regions, 5)).astype("f4")


def _npz_files() -> dict[str, bytes]:
    rng, files = np.random.default_rng(8), {}
    for image in range(3):
        written = io.BytesIO()
        save = np.savez_compressed if image else np.savez
        save(written, x=_image(rng, 2 + image).T, num_bbox=2 + image)
        files[f"COCO_train2014_{image:012d}.jpg.npz"] = written.getvalue()
    return files


def _read_features(folder: Path) -> dict:
    return _features(folder)


def _features(path: Path) -> dict:
    features = open_features(path)
    ids = np.sort(features.image_ids)
    array = features[ids]
    counts = (array != 0).any(axis=2).sum(axis=1)
    return {"ids": ids, "images": [image[:n] for image, n in zip(array, counts, strict=True)]}


def _plain_images(images: dict[int, np.ndarray]) -> dict:
    """Returns images in the order of their ids, without the rows of zeros behind."""
    found = []
    for _, image in sorted(images.items()):
        demand(image.ndim == 2 and image.dtype.kind in "iuf" and np.isfinite(image).all())
        demand(image.shape[1] == next(iter(images.values())).shape[1])
        found.append(image[: (image != 0).any(axis=1).sum()])
    return {"ids": np.array(sorted(images)), "images": found}


def _independent_npz(folder: Path) -> dict:
    paths = sorted(folder.glob("*.npz"))
    return _plain_images({int(p.name[15:27]): npz(p)["x"].T for p in paths})


def _ragged_file() -> dict[str, bytes]:
    rng, written, counts = np.random.default_rng(9), io.BytesIO(), (2, 3, 1, 4)
    with h5py.File(written, "w", libver="earliest") as file:
        file["features"] = np.concatenate([_image(rng, n) for n in counts]).astype("f2")
        file["offsets"] = np.cumsum([0, *counts])
        file["image_ids"] = np.array([3, 5, 9, 12])
    return {"features.hdf5": written.getvalue()}


def _read_ragged(folder: Path) -> dict:
    return _features(folder / "features.hdf5")


def _independent_ragged(folder: Path) -> dict:
    with h5py.File(folder / "features.hdf5") as file:
        features, offsets, ids = (hdf5(file, n) for n in ("features", "offsets", "image_ids"))
    offsets, ids = offsets.tolist(), unique(ids.tolist())
    demand(offsets[0] == 0 and offsets[-1] == len(features) and len(offsets) == len(ids) + 1)
    demand(sorted(offsets) == offsets)
    pieces = (features[a:b] for a, b in zip(offsets, offsets[1:], strict=False))
    return _plain_images(dict(zip(ids, pieces, strict=True)))


def _rows_files() -> dict[str, bytes]:
    rng, written = np.random.default_rng(10), io.BytesIO()
    with h5py.File(written, "w", libver="latest") as file:
        images = np.stack([_image(rng, 3) for _ in range(4)])
        file.create_dataset("image_features", data=images, chunks=(1, 3, 5), compression=1)
    rows = {30 + image: image for image in (2, 0, 3, 1)}
    return {"train36.hdf5": written.getvalue(), "train36_imgid2idx.pkl": pickle.dumps(rows, 2)}


def _read_rows(folder: Path) -> dict:
    return _features(folder / "train36.hdf5")


def _independent_rows(folder: Path) -> dict:
    rows = unpickled(folder / "train36_imgid2idx.pkl")
    with h5py.File(folder / "train36.hdf5") as file:
        demand("image_features" in file)
        features = hdf5(file, "image_features")
    demand(features.ndim == 3)
    for number in (*rows, *rows.values()):
        demand(isinstance(number, (int, np.integer)) and type(number) is not bool and number >= 0)
    unique(list(rows.values()))
    return _plain_images({int(image): features[row] for image, row in rows.items()})


PIECES = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "the",
    "film",
    "##s",
    "a",
    "war",
    "##ring",
    ".",
    "é",
    "f",
)
TEXTS = ("The films, the war.", "warring a f film", "unknown", "")


def _vocabulary_files() -> dict[str, bytes]:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    numbers = {piece: number for number, piece in enumerate(PIECES)}
    tokenizer = Tokenizer(
        models.WordPiece(numbers, unk_token="[UNK]", max_input_chars_per_word=100)
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    written = tokenizer.to_str(pretty=True).encode()
    return {"vocab.txt": "\n".join((*PIECES, "")).encode(), "tokenizer.json": written}


def _read_vocabulary(folder: Path) -> dict:
    found = {}
    for name in ("vocab.txt", "tokenizer.json"):
        pieces = WordPieces.load(folder / name)
        found[name] = {"size": len(pieces), "numbers": pieces.encode(TEXTS, length=9)}
    return found


def _independent_vocabulary(folder: Path) -> dict:
    lines = text(folder / "vocab.txt").removesuffix("\n").split("\n")
    kept = json_value(folder / "tokenizer.json")
    model = kept["model"]["vocab"]
    expected = json.loads(_vocabulary_files()["tokenizer.json"])
    expected["model"]["vocab"] = model
    found = {"vocab.txt": _encoded({piece: n for n, piece in enumerate(unique(lines))})}
    if kept == expected:
        return found | {"tokenizer.json": _encoded(model)}
    return found | {"tokenizer.json": _by_library((folder / "tokenizer.json").read_text(), model)}


def _encoded(numbers: dict[str, int]) -> dict:
    """Returns what greedy longest pieces of lower-case words are, cut to 9 numbers."""
    demand(sorted(numbers.values()) == list(range(len(numbers))) and numbers["[PAD]"] == 0)
    rows = []
    for entry in TEXTS:
        words = entry.lower().replace(",", " , ").replace(".", " . ").split()
        found = [numbers["[CLS]"], *sum((_pieces(word, numbers) for word in words), [])][:8]
        rows.append([*found, numbers["[SEP]"]])
    longest = max(map(len, rows))
    return {"size": len(numbers), "numbers": [row + [0] * (longest - len(row)) for row in rows]}


def _pieces(word: str, numbers: dict[str, int]) -> list[int]:
    found, rest, before = [], word, ""
    while rest:
        ends = [end for end in range(len(rest), 0, -1) if before + rest[:end] in numbers]
        if not ends:
            return [numbers["[UNK]"]]
        found.append(numbers[before + rest[: ends[0]]])
        rest, before = rest[ends[0] :], "##"
    return found


def _by_library(written: str, model: dict[str, int]) -> dict:
    """Returns the library's own reading, where more than the pieces is another."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(written)
    size = tokenizer.get_vocab_size()
    demand(sorted(tokenizer.get_vocab().values()) == list(range(size)))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ends = [tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]")]
    encode = (tokenizer.encode(entry, add_special_tokens=False).ids[:7] for entry in TEXTS)
    rows = [[ends[0], *ids, ends[1]] for ids in encode]
    longest = max(map(len, rows))
    return {"size": size, "numbers": [row + [0] * (longest - len(row)) for row in rows]}


FORMATS = (
    Format("vqa json", _vqa_files, _read_vqa, _independent_vqa),
    Format("vqa answers", _answer_files, _read_answers, _independent_answers, ("results.json",)),
    Format("npz an image", _npz_files, _read_features, _independent_npz),
    Format("ragged hdf5", _ragged_file, _read_ragged, _independent_ragged),
    Format("hdf5 and rows", _rows_files, _read_rows, _independent_rows),
    Format("vocabularies", _vocabulary_files, _read_vocabulary, _independent_vocabulary),
)
