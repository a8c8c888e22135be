"""CMU-MOSI in five files: MultiBench's pickles, MMSA's, CM-BERT's tables, and utterances."""

import io
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deq_fusion.datasets.affect import cm_bert, get_data, mmsa, transcripts, utterance

from .formats import Format, drained
from .independent import demand, float32, npz, number, text, unique, unpickled

PARTS = {"train": 5, "valid": 3, "test": 3}
STEPS = 6


def _mosi_file(protocol: int) -> dict[str, bytes]:
    rng, content = np.random.default_rng(4), {}
    for part, rows in PARTS.items():
        arrays = {
            key: rng.normal(0, 1, (rows, STEPS, width)).astype("f4")
            for key, width in (("vision", 3), ("audio", 2), ("text", 4))
        }
        for row in range(rows):
            for array in arrays.values():
                array[row, : row % 3] = 0
        arrays["audio"][0, 4, 1] = -np.inf
        arrays["labels"] = rng.uniform(-3, 3, (rows, 1, 1)).astype("f4")
        arrays["id"] = np.array([[f"{part}{row}", "0", "1"] for row in range(rows)])
        content[part] = arrays
    return {"mosi.pkl": pickle.dumps(content, protocol)}


def _read_parts(parts: dict[str, Any]) -> dict:
    """Returns what the project calls parts, as plain containers."""
    return {name: {**part._asdict(), "views": dict(part.views)} for name, part in parts.items()}


def _read_mosi(folder: Path) -> dict:
    path = folder / "mosi.pkl"
    loaders = get_data.get_dataloader(path, num_workers=0, batch_size=4)
    return {"parts": _read_parts(get_data.read_parts(path))} | drained(loaders)


def _independent_mosi(folder: Path) -> dict:
    content, parts = unpickled(folder / "mosi.pkl"), {}
    for name in PARTS:
        arrays = content[name]
        labels = _labels(arrays["labels"])
        views = {key: _features(arrays[key], len(labels)) for key in ("vision", "audio", "text")}
        demand(len({view.shape[1] for view in views.values()}) == 1)
        starts = [_start([view[row] for view in views.values()]) for row in range(len(labels))]
        lengths = views["text"].shape[1] - np.array(starts)
        moved = {key: _moved(view, starts) for key, view in views.items()}
        ids = _names(arrays["id"], len(labels)) if arrays.get("id") is not None else None
        parts[name] = _part({k: _sequences(v, lengths) for k, v in moved.items()}, labels, ids)
    return _checked(parts)


def _features(array: Any, rows: int) -> np.ndarray:
    array = np.asarray(array)
    demand(array.dtype.kind in "iuf")
    array = np.where(array == -np.inf, 0, array) if array.dtype.kind == "f" else array
    return float32(array, dims=3, rows=rows)


def _start(steps: list[np.ndarray]) -> int:
    """Returns the first step with text, else with anything, else the last."""
    *_, words = steps
    for chosen in ([words], steps):
        for step in range(len(words)):
            if any((view[step] != 0).any() for view in chosen):
                return step
    return len(words) - 1


def _moved(view: np.ndarray, starts: list[int]) -> np.ndarray:
    moved = np.zeros_like(view)
    for row, start in enumerate(starts):
        moved[row, : view.shape[1] - start] = view[row, start:]
    return moved


def _sequences(values: np.ndarray, lengths: np.ndarray) -> tuple:
    values = values.copy()
    lengths = np.minimum(np.asarray(lengths).astype(np.int64), values.shape[1])
    for row, length in enumerate(lengths.tolist()):
        values[row, length:] = 0
    present = np.array([(row != 0).any() for row in values])
    return values, np.maximum(lengths, 1), present


def _labels(array: Any) -> np.ndarray:
    labels = float32(array)
    demand(labels.size == len(labels) > 0 and (abs(labels) <= 3).all())
    return labels.reshape(-1, 1)


def _names(array: Any, rows: int) -> list[str]:
    array = np.asarray(array)
    demand(len(array) == rows)
    rows_of = array.reshape(rows, -1).tolist()
    return [" ".join(map(_decoded, row)) for row in rows_of]


def _decoded(entry: Any) -> str:
    return entry.decode("utf-8", "replace") if isinstance(entry, bytes) else str(entry)


def _part(views: dict, labels: np.ndarray, ids: Any = None, texts: Any = None) -> dict:
    return {"views": views, "labels": labels, "ids": ids, "texts": texts}


def _checked(parts: dict) -> dict:
    unique([name for part in parts.values() for name in part["ids"] or ()])
    return {"parts": parts, "rows": sum(len(part["labels"]) for part in parts.values())}


def _mmsa_file() -> dict[str, bytes]:
    rng, content = np.random.default_rng(5), {}
    for part, rows in PARTS.items():
        lengths = rng.integers(1, STEPS + 1, rows)
        inside = np.arange(STEPS) < lengths[:, None]
        arrays = {
            key: (rng.normal(0, 1, (rows, STEPS, width)) * inside[..., None]).astype("f4")
            for key, width in (("text", 4), ("audio", 2), ("vision", 3))
        }
        bert = np.stack([inside * 101, inside, inside * 0], axis=1).astype("f4")
        arrays |= {"text_bert": bert, "audio_lengths": lengths.tolist()}
        arrays["regression_labels"] = rng.uniform(-3, 3, rows).astype("f4")
        arrays["id"] = np.array([f"{part}$_${row}" for row in range(rows)])
        arrays["raw_text"] = np.array([f"WORDS {row}" for row in range(rows)])
        content[part] = arrays
    return {"aligned_50.pkl": pickle.dumps(content, 4)}


def _read_mmsa(folder: Path) -> dict:
    path = folder / "aligned_50.pkl"
    loaders = mmsa.get_dataloader(path, batch_size=4)
    return {"parts": _read_parts(mmsa.read_parts(path))} | drained(loaders)


def _independent_mmsa(folder: Path) -> dict:
    content, parts = unpickled(folder / "aligned_50.pkl"), {}
    for name in PARTS:
        arrays = content[name]
        labels = _labels(arrays["regression_labels"])
        views = {}
        for key in ("text", "audio", "vision"):
            view = _features(arrays[key], len(labels))
            if key != "text" and f"{key}_lengths" in arrays:
                lengths = np.asarray(arrays[f"{key}_lengths"])
                demand(lengths.dtype.kind in "iu" and lengths.shape == labels[:, 0].shape)
                demand((lengths >= 0).all())
            else:
                mask = np.asarray(arrays["text_bert"])[:, 1]
                demand(mask.shape == view.shape[:2] and np.isin(mask, (0, 1)).all())
                demand((np.diff(mask.astype(float), axis=1) <= 0).all())
                lengths = mask.sum(axis=1)
            views[key] = _sequences(view, lengths)
        given = (
            _names(arrays[key], len(labels)) if key in arrays else None
            for key in ("id", "raw_text")
        )
        parts[name] = _part(views, labels, *given)
    return _checked(parts)


class Lengths:
    """A tokeniser that writes how long each word is."""

    def encode(self, texts, *, length):
        rows = [[1, *map(len, text.split()), 1][:length] for text in texts]
        longest = max(map(len, rows), default=0)
        return np.array([row + [0] * (longest - len(row)) for row in rows]).reshape(len(rows), -1)


def _cm_bert_files() -> dict[str, bytes]:
    rng, files, audio = np.random.default_rng(6), {}, []
    for part, rows in PARTS.items():
        lines = [
            f'SO {part} "{row}\t{label:.3f}' for row, label in enumerate(rng.uniform(-3, 3, rows))
        ]
        files[cm_bert.FILES[part]] = "\n".join(["text\tlabel", *lines, ""]).encode()
        steps = rng.normal(0, 1, (rows, STEPS, 3))
        for row in range(rows):
            steps[row, 2 + row :] = 0
        audio.append(steps)
    return files | {"audio.pkl": pickle.dumps(tuple(audio), 2)}


def _read_cm_bert(folder: Path) -> dict:
    loaders = cm_bert.get_dataloader(
        folder, folder / "audio.pkl", Lengths(), length=9, batch_size=4
    )
    return {"parts": _read_parts(cm_bert.read_parts(folder, folder / "audio.pkl"))} | drained(
        loaders
    )


def _independent_cm_bert(folder: Path) -> dict:
    audio, parts = unpickled(folder / "audio.pkl"), {}
    demand(isinstance(audio, (tuple, list)) and len(audio) == len(PARTS))
    for (name, file), sounds in zip(cm_bert.FILES.items(), audio, strict=True):
        lines = [line.split("\t") for line in text(folder / file).split("\n") if line.strip()]
        header, *rows = lines
        unique(header)
        demand(all(len(row) == len(header) for row in rows))
        labels = _labels([number(row[header.index("label")]) for row in rows])
        values = _features(sounds, len(rows))
        steps = [max((s + 1 for s in range(len(row)) if row[s].any()), default=0) for row in values]
        texts = [row[header.index("text")] for row in rows]
        parts[name] = _part({"audio": _sequences(values, np.array(steps))}, labels, None, texts)
    return _checked(parts)


def _utterance_file() -> dict[str, bytes]:
    rng, written = np.random.default_rng(7), io.BytesIO()
    rows = 16
    arrays = {
        key: rng.normal(0, 1, (rows, width)).astype("f4")
        for key, width in (("text", 4), ("audio", 3), ("vision", 5))
    }
    videos = np.array([f"video{row // 2}" for row in range(rows)])
    arrays |= {"labels": rng.uniform(-3, 3, rows).astype("f4"), "video_id": videos}
    arrays["id"] = np.array([f"video{row // 2}_{row % 2}" for row in range(rows)])
    arrays["split"] = np.where(np.arange(rows) < 12, "train", "test")
    arrays["transcript"] = np.array([f"SO {row}" for row in range(rows)])
    np.savez_compressed(written, **arrays)
    return {"mosi_utterance.npz": written.getvalue()}


def _read_utterance(folder: Path) -> dict:
    found = utterance.read_utterances(folder)
    parts = transcripts.read_parts(folder, audio_dim=2)
    loaders = transcripts.get_dataloader(folder, Lengths(), audio_dim=2, length=9, batch_size=4)
    texts = sorted(text for part in parts.values() for text in part.texts)
    plain = drained(utterance.get_dataloader(folder))
    return {**found._asdict(), "texts": texts, "plain": plain["batches"]} | drained(loaders)


def _independent_utterance(folder: Path) -> dict:
    arrays = npz(folder / "mosi_utterance.npz")
    rows = len(unique(arrays["id"].tolist()))
    names = ("text", "audio", "vision")
    views = [float32(arrays[key], dims=2, rows=rows) for key in names]
    videos, split = arrays["video_id"], arrays["split"].tolist()
    demand(set(split) == {"train", "test"} and videos.shape == (rows,) == (len(split),))
    is_test = np.array([part == "test" for part in split])
    demand(not set(videos[is_test].tolist()) & set(videos[~is_test].tolist()))
    texts = arrays["transcript"]
    demand(texts.dtype.kind == "U" and texts.shape == (rows,))
    found = {"views": views, "labels": _labels(arrays["labels"]), "videos": videos}
    demand(arrays["labels"].ndim == 1)
    return found | {"is_test": is_test, "texts": sorted(texts.tolist()), "rows": rows}


FORMATS = (
    Format("mosi pickle 2", partial(_mosi_file, 2), _read_mosi, _independent_mosi),
    Format("mosi pickle 4", partial(_mosi_file, 4), _read_mosi, _independent_mosi),
    Format("mmsa pickle", _mmsa_file, _read_mmsa, _independent_mmsa),
    Format("cm-bert tsv", _cm_bert_files, _read_cm_bert, _independent_cm_bert),
    Format("utterance npz", _utterance_file, _read_utterance, _independent_utterance),
)
