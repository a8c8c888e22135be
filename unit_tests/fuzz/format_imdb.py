"""MM-IMDB: the HDF5 file of features, in the old layout and in the latest, and the raw folder."""

import io
import json
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from PIL import Image, ImageOps

from deq_fusion.datasets.imdb.contents import read_contents
from deq_fusion.datasets.imdb.films import read_films
from deq_fusion.datasets.imdb.get_data import get_dataloader
from deq_fusion.datasets.imdb.raw import get_dataloader as get_raw_dataloader

from .formats import Format, drained
from .independent import demand, float32, hdf5, json_value, unique

FILE, COUNTS, GENRES = "multimodal_imdb.hdf5", (6, 3, 3), ("Drama", "Comedy", "War")
VIEWS = {"features": 4, "vgg_features": 6}
SIZE = 8  # of the posters


def _hdf5_file(libver: str) -> dict[str, bytes]:
    rng, written, films = np.random.default_rng(2), io.BytesIO(), sum(COUNTS)
    with h5py.File(written, "w", libver=libver) as file:
        for name, width in VIEWS.items():
            chunks = {"chunks": (5, width), "compression": 1} if name[0] == "f" else {}
            chunks = chunks if libver == "latest" else {}
            file.create_dataset(name, data=rng.normal(0, 1, (films, width)).astype("f4"), **chunks)
        file["genres"] = rng.integers(0, 2, (films, len(GENRES))).astype("i4")
        file["imdb_ids"] = np.array([f"{row:07d}" for row in range(films)], "S7")
        file["genres"].attrs["target_names"] = json.dumps(GENRES)
        if libver == "latest":
            file.attrs["splits"] = json.dumps(
                dict(zip(("train", "dev", "test"), COUNTS, strict=True))
            )
        else:
            file.attrs["split"] = _fuel_split()
    return {FILE: written.getvalue()}


def _fuel_split() -> np.ndarray:
    """Returns Fuel's records, one a part and dataset, as `H5PYDataset.create_split_array` does."""
    names = ("train", "dev", "test")
    ends = np.cumsum(COUNTS)
    kind = [("split", "S5"), ("source", "S12"), ("start", np.int64), ("stop", np.int64)]
    kind += [("indices", h5py.special_dtype(ref=h5py.Reference)), ("available", bool)]
    kind += [("comment", "S1")]
    rows = [
        (name, source, end - count, end, h5py.Reference(), True, ".")
        for name, count, end in zip(names, COUNTS, ends, strict=True)
        for source in ("features", "genres", "vgg_features")
    ]
    return np.array(rows, dtype=kind)


def _read_hdf5(folder: Path) -> dict:
    loaders = get_dataloader(folder / FILE, train_shuffle=False, batch_size=5)
    contents = read_contents(folder / FILE)
    found = drained(loaders)
    parts = [
        [np.concatenate(view) for view in zip(*loader, strict=True)] for loader in found["batches"]
    ]
    return found | {"parts": parts, "genres": contents.genres}


def _independent_hdf5(folder: Path) -> dict:
    with h5py.File(folder / FILE) as file:
        names = [n for n in (*VIEWS, "genres") if isinstance(file[n], h5py.Dataset)]
        views = [float32(hdf5(file, name), rows=len(file["genres"])) for name in names]
        demand(np.isin(views[2], (0, 1)).all() and views[2].ndim == 2)
        if "imdb_ids" in file and len(file["imdb_ids"]) == len(views[2]):
            unique(file["imdb_ids"][()].tolist())
        bounds = _bounds(file)
        genres = file["genres"].attrs.get("target_names", file.attrs.get("target_names"))
    if genres is None:
        genres = [str(column) for column in range(views[2].shape[1])]
    genres = list(json.loads(genres) if isinstance(genres, (str, bytes)) else genres)
    demand(len(genres) == views[2].shape[1])
    parts = [[view[start:stop] for view in views] for start, stop in bounds]
    return {"parts": parts, "genres": genres, "rows": sum(stop - start for start, stop in bounds)}


def _bounds(file: h5py.File) -> list[tuple[int, int]]:
    if "splits" in file.attrs:
        counts = json.loads(file.attrs["splits"])
        ends = np.cumsum([counts["train"], counts["dev"], counts["test"]]).tolist()
        return list(zip((0, *ends), ends, strict=False))
    found = {
        record["split"].decode(): (int(record["start"]), int(record["stop"]))
        for record in file.attrs["split"]
        if record["source"] == b"genres"
    }
    return [found["train"], found["dev"], found["test"]]


def _raw_files() -> dict[str, bytes]:
    rng = np.random.default_rng(3)
    ids = [f"{row:07d}" for row in range(8)]
    split = {"train": ids[:4], "dev": ids[4:6], "test": ids[6:]}
    files = {"split.json": json.dumps(split).encode()}
    for row, film in enumerate(ids):
        plots = [f"A film of number {row}.", "It is the film that was told twice: a war, a love."]
        film_json = {"plot": plots, "genres": ["Drama", "War"][: 1 + row % 2], "title": "x"}
        files[f"dataset/{film}.json"] = json.dumps(film_json).encode()
        written = io.BytesIO()
        pixels = rng.integers(0, 256, (SIZE, SIZE + row % 2, 3)).astype("u1")
        Image.fromarray(pixels).save(written, "JPEG")
        files[f"dataset/{film}.jpeg"] = written.getvalue()
    written = io.BytesIO()
    with h5py.File(written, "w", libver="latest") as file:
        file["imdb_ids"] = np.array(ids, "S7")
        file["vgg_features"] = rng.normal(0, 1, (8, 5)).astype("f4")
    return files | {"features.hdf5": written.getvalue()}


def _read_raw(folder: Path) -> dict:
    films = read_films(folder)
    options = {"size": SIZE, "batch_size": 3, "length": 40, "vocabulary": 200}
    loaders = get_raw_dataloader(folder, **options)
    # the order in which train is served is drawn, the rows themselves are not
    posters = [
        batch[1] for loader in loaders for batch in (loader.dataset[range(len(loader.dataset))],)
    ]
    features = folder / "features.hdf5"
    others = get_raw_dataloader(folder, modalities=["image"], features=features, **options)
    known = [
        batch[0] for loader in others for batch in (loader.dataset[range(len(loader.dataset))],)
    ]
    found = {"ids": films.ids, "plots": films.plots, "genres": films.genres, "labels": films.labels}
    found |= {"posters": np.concatenate(posters), "features": np.concatenate(known)}
    return found | drained(loaders)


def _independent_raw(folder: Path) -> dict:
    split = json_value(folder / "split.json")
    ids = unique([film for part in ("train", "dev", "test") for film in split[part]])
    demand(all(isinstance(film, str) and "/" not in film for film in ids))
    films = [json_value(folder / "dataset" / f"{film}.json") for film in ids]
    plots = [_plot(film["plot"]) for film in films]
    counts: dict[str, int] = {}
    for film in films[: len(split["train"])]:
        demand(isinstance(film["genres"], list))
        for name in film["genres"]:
            counts[name] = counts.get(name, 0) + 1
    rare = ("News", "Adult", "Talk-Show", "Reality-TV")
    genres = sorted(counts.keys() - set(rare), key=lambda name: (-counts[name], name))
    labels = np.array([[genre in film["genres"] for genre in genres] for film in films], "f4")
    posters = [_poster(folder / "dataset" / f"{film}.jpeg") for film in ids]
    with h5py.File(folder / "features.hdf5") as file:
        demand([name.decode() for name in file["imdb_ids"][()].tolist()] == ids)
        features = float32(hdf5(file, "vgg_features"), rows=len(ids))
    found = {"ids": ids, "plots": plots, "genres": genres, "labels": labels}
    found |= {"posters": np.stack(posters), "features": features}
    return found | {"rows": len(ids)}


def _plot(plot: object) -> str:
    if isinstance(plot, str):
        return plot
    demand(isinstance(plot, list) and all(isinstance(text, str) for text in plot))
    return max(plot, key=len, default="")


def _poster(path: Path) -> np.ndarray:
    with Image.open(path, formats=["JPEG", "PNG"]) as image:
        demand(image.mode in ("RGB", "L", "CMYK"), image.mode)
        image = ImageOps.exif_transpose(image).convert("RGB")
    scale = min(image.size)
    image = image.resize(tuple(side * SIZE // scale for side in image.size), Image.BILINEAR)
    top, left = ((side - SIZE) // 2 for side in (image.height, image.width))
    return np.asarray(image)[top : top + SIZE, left : left + SIZE].transpose(2, 0, 1)


FORMATS = (
    Format("imdb hdf5 old", partial(_hdf5_file, "earliest"), _read_hdf5, _independent_hdf5),
    Format("imdb hdf5 latest", partial(_hdf5_file, "latest"), _read_hdf5, _independent_hdf5),
    Format("imdb raw", _raw_files, _read_raw, _independent_raw),
)
