"""Small sets in the layout of real ones, for the tests of more than one file."""

import json

import h5py
import numpy as np
import pytest

PLOTS = ["a war of the worlds", "love and laughter in paris"]


@pytest.fixture
def films(tmp_path):
    """48 films of two genres, told apart by features, plots and posters alike."""
    tmp_path = tmp_path / "films"
    tmp_path.mkdir()
    rng = np.random.default_rng(0)
    kind = np.arange(48) % 2
    ids = [f"tt{n:07d}" for n in range(48)]
    with h5py.File(tmp_path / "multimodal_imdb.hdf5", "w") as file:
        file["features"] = (rng.normal(size=(48, 6)) + 3 * kind[:, None]).astype("f4")
        posters = (rng.random((48, 10)) + kind[:, None]).astype("f2")
        file.create_dataset("vgg_features", data=posters, chunks=(16, 10), compression="gzip")
        file["genres"] = np.stack([kind, 1 - kind], 1).astype("i1")
        file["imdb_ids"] = np.array(ids, dtype="S")
        file.attrs["splits"] = json.dumps({"train": 24, "dev": 12, "test": 12})
        file.attrs["target_names"] = json.dumps(["Romance", "War"])
    split = {"train": ids[:24], "dev": ids[24:36], "test": ids[36:]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    return tmp_path


@pytest.fixture
def raw_films(films):
    Image = pytest.importorskip("PIL.Image")
    pytest.importorskip("tokenizers")
    (films / "dataset").mkdir()
    for number in range(48):
        path = films / "dataset" / f"tt{number:07d}.json"
        genre = ["War", "Romance"][number % 2]
        path.write_text(json.dumps({"plot": PLOTS[number % 2], "genres": [genre]}))
        Image.new("RGB", (20, 30), ["red", "blue"][number % 2]).save(path.with_suffix(".jpeg"))
    return films
