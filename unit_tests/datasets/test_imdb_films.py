"""Raw films where they are not as published: ids that are paths, texts that are none, files that
take the memory, features of other films; each read right, or refused by name."""

import json
import os

import h5py
import numpy as np
import pytest
import torch

from deq_fusion.datasets.imdb.films import read_films
from deq_fusion.datasets.imdb.raw import get_dataloader
from unit_tests.datasets import test_imdb_raw

folder = test_imdb_raw.folder  # its fixture
IDS, OPTIONS, SPLIT = test_imdb_raw.IDS, test_imdb_raw.OPTIONS, test_imdb_raw.SPLIT
write, write_features = test_imdb_raw.write, test_imdb_raw.write_features


@pytest.mark.parametrize(
    ("film", "told"),
    [(7, "7, of type int"), ("../t5", "'../t5'"), ("a\\b", r"'a\\\\b'"), ("", "''")]
    + [("\x1b[2J", r"'\\x1b\[2J'"), ("\ud83d", r"'\\ud83d'"), ("a\0", r"'a\\x00'")]
    + [(["t5"], "a list of 1"), (None, "None"), ("x" * 300, "xxx")],
)
def test_ids_that_cannot_name_a_file_are_refused(folder, film, told):
    (folder / "split.json").write_text(json.dumps(SPLIT | {"dev": ["d2", film]}))
    with pytest.raises(ValueError, match=f"split.json must be .* of ids, texts .*{told}") as error:
        read_films(folder)
    assert str(error.value).isprintable() and len(str(error.value)) < 600


def test_half_a_pair_of_surrogates_is_read_as_the_replacement_character(folder):
    for film, text in (("t5", '"cut off \\ud83d"'), ("t1", '["", "whole \\ud83d\\ude00"]')):
        content = f'{{"plot": {text}, "genres": ["War\\udc00"]}}'
        (folder / "dataset" / f"{film}.json").write_text(content)
    films = read_films(folder)
    assert films.plots[:2] == ["cut off \ufffd", "whole \U0001f600"] and "War\ufffd" in films.genres
    for loader in get_dataloader(folder, **OPTIONS):
        list(loader)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "d2.json must be JSON"),
        (
            json.dumps({"plot": "a " * 60_000, "genres": []}),
            "d2.json .* at most 100,000 characters",
        ),
        (b" " * (1 << 23), "d2.json must have at most 4,194,304 bytes"),
        (json.dumps({"plot": {"a": "b"}, "genres": []}), "d2.json must have a plot,.* dict of 1;"),
        (
            json.dumps({"plot": "a", "genres": ["War", 3]}),
            "d2.json must have genres,.*a list of 2;",
        ),
    ],
)
def test_a_film_takes_no_more_than_a_film_needs(folder, content, message):
    path = folder / "dataset" / "d2.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as error:
        read_films(folder)
    assert len(str(error.value)) < 600


def test_a_pipe_in_a_films_place_is_refused(folder):
    path = folder / "dataset" / "d2.json"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="d2.json must be a file, but is a pipe"):
        read_films(folder)


def test_more_labels_than_memory_are_refused(folder, monkeypatch):
    monkeypatch.setattr("deq_fusion.datasets.imdb.films.MOST_LABELS", 27)
    with pytest.raises(ValueError, match="at most 27 labels, films times genres, got 7 x 4; pass"):
        read_films(folder)
    read_films(folder, genres=["War", "Drama", "Crime"])


def test_whole_numbers_are_ids_of_seven_digits(folder):
    ids = [f"{number:07d}" for number in range(7)]
    for name, film in zip(IDS, ids, strict=True):
        for ending in ("json", "jpeg"):
            (folder / "dataset" / f"{name}.{ending}").rename(
                folder / "dataset" / f"{film}.{ending}"
            )
    split = {"train": ids[:4], "dev": ids[4:5], "test": ids[5:]}
    (folder / "split.json").write_text(json.dumps(split))
    path = folder / "numbers.hdf5"
    values = write_features(path)
    with h5py.File(path, "a") as file:
        del file["imdb_ids"]
        file["imdb_ids"] = np.arange(7)
    image = get_dataloader(folder, features=path, modalities=["image"], **OPTIONS)[2].dataset[[1]][
        0
    ]
    torch.testing.assert_close(image, torch.from_numpy(values[6:]).float())
    with h5py.File(path, "a") as file:
        file["imdb_ids"][3] = 30
    with pytest.raises(ValueError, match="row 3 is '0000030', not '0000003'"):
        get_dataloader(folder, features=path, **OPTIONS)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, -1e39])
def test_features_that_are_not_finite_as_float32_are_named_by_film(folder, value):
    path = folder / "multimodal_imdb.hdf5"
    values = write_features(path).astype(np.float64)
    values[6, 2] = value
    with h5py.File(path, "a") as file:
        del file["vgg_features"]
        file["vgg_features"] = values
    train, _, test = get_dataloader(folder, features=folder, modalities=["image"], **OPTIONS)
    list(train)
    with pytest.raises(ValueError, match="vgg_features in .* row e1 is not"):
        list(test)


@pytest.mark.parametrize("shape", [(6, 5), (7,), (7, 5, 1), (7, 0)])
@pytest.mark.parametrize("kind", ["f4", "u1"])
def test_features_of_another_shape_are_refused(folder, shape, kind):
    path = folder / "multimodal_imdb.hdf5"
    write_features(path)
    with h5py.File(path, "a") as file:
        del file["vgg_features"]
        file["vgg_features"] = np.zeros(shape if kind == "f4" else (7, 5), kind)
    with pytest.raises(ValueError, match=r"vgg_features in .* must be floating, \(7, 1 to"):
        get_dataloader(folder, features=folder, **OPTIONS)
