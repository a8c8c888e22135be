"""Raw films: texts, posters and genres as they were written, word pieces and genres from train
only, errors that name the file. A small folder, and the real one where it is."""

import json
import os

import h5py
import numpy as np
import pytest
import torch

from deq_fusion.datasets.files.text import WordPieces
from deq_fusion.datasets.imdb.films import PARTS, RARE, read_films
from deq_fusion.datasets.imdb.raw import get_dataloader, train_tokens
from unit_tests.real_data import real

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("tokenizers")

SPLIT = {"train": ["t5", "t1", "t3", "t4"], "dev": ["d2"], "test": ["e9", "e1"]}
GENRES = {
    "t5": ["War", "Drama"],
    "t1": ["Comedy", "Drama", "News"],
    "t3": ["Crime"],
    "t4": ["Drama", "Comedy", "Adult"],
    "d2": ["War", "War", "Reality-TV"],
    "e9": ["Opera", "Crime"],  # a genre that train does not have
    "e1": [],
}
IDS = sum(SPLIT.values(), [])
OPTIONS = {"size": 16, "length": 8, "batch_size": 3, "vocabulary": 60}


@pytest.fixture
def folder(tmp_path):
    """7 films, each with a plot and a poster of its own; returns their folder."""
    folder = tmp_path / "films"
    (folder / "dataset").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, film in enumerate(IDS):
        record = {"plot": f"the film {film} of the war", "genres": GENRES[film], "year": 1990}
        write(folder, film, record)
        pixels = rng.integers(0, 256, (20 + number, 17, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "dataset" / f"{film}.jpeg")
    (folder / "split.json").write_text(json.dumps(SPLIT))
    return folder


def write(folder, film, record):
    (folder / "dataset" / f"{film}.json").write_text(json.dumps(record), encoding="utf-8")


def poster(folder, film):
    """Short side to 16 pixels, the middle, channels first."""
    with Image.open(folder / "dataset" / f"{film}.jpeg") as image:
        high = image.height * 16 // 17
        pixels = np.asarray(image.resize((16, high), Image.Resampling.BILINEAR))
    top = (high - 16) // 2
    return pixels[top : top + 16].transpose(2, 0, 1)


def test_films_come_in_the_order_of_the_split(folder):
    films = read_films(folder)
    assert films.ids == IDS and films.sizes == (4, 1, 2)
    assert films.plots == [f"the film {film} of the war" for film in IDS]
    assert films.posters == [folder / "dataset" / f"{film}.jpeg" for film in IDS]


def test_genres_are_ordered_by_their_frequency_in_train(folder):
    films = read_films(str(folder))
    assert films.genres == ["Drama", "Comedy", "Crime", "War"]  # 3, 2, 1 and 1
    expected = [[name in GENRES[film] for name in films.genres] for film in IDS]
    np.testing.assert_array_equal(films.labels, np.array(expected, dtype=np.float32), strict=True)


def test_rare_genres_have_no_label(folder):
    for film in IDS:
        write(folder, film, {"plot": "", "genres": ["Drama", *RARE]})
    assert read_films(folder).genres == ["Drama"]


def test_given_genres_decide_the_columns(folder):
    films = read_films(folder, genres=np.array(["War", "Opera", "Western", "News"]))
    assert films.genres == ["War", "Opera", "Western", "News"]
    assert films.labels[[0, 1, 4, 5]].tolist() == [
        [1, 0, 0, 0],
        [0, 0, 0, 1],
        [1, 0, 0, 0],
        [0, 1, 0, 0],
    ]
    for genres in ([], ["War", "War"]):
        with pytest.raises(ValueError, match="genres of .*films must be different names"):
            read_films(folder, genres=genres)


def test_the_longest_plot_counts_and_an_empty_one_is_kept(folder):
    write(folder, "t5", {"plot": ["short", "the longest", ""], "genres": []})
    write(folder, "t1", {"plot": [], "genres": []})
    write(folder, "t3", {"plot": "", "genres": []})
    assert read_films(folder).plots[:3] == ["the longest", "", ""]
    for loader in get_dataloader(folder, **OPTIONS):
        assert all((tokens[:, 0] == 2).all() for tokens, _, _ in loader)
    tokens = get_dataloader(folder, **OPTIONS)[0].dataset[[1, 2]][0]
    assert tokens.tolist() == [[2, 3], [2, 3]]


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_serve_every_film_once(folder, tmp_path, workers, cached):
    cache = tmp_path / "posters.hdf5" if cached else None
    loaders = get_dataloader(folder, **OPTIONS, workers=workers, cache=cache, progress=False)
    films = read_films(folder)
    pieces = train_tokens(films, vocabulary=60)
    for loader, part in zip(loaders, PARTS, strict=True):
        batches = list(loader)
        counts = {"train": [3, 1], "dev": [1], "test": [2]}
        assert [len(labels) for _, _, labels in batches] == counts[part]
        rows = {}
        for tokens, images, labels in batches:
            assert tokens.dtype == torch.int64 and images.dtype == torch.uint8
            assert labels.dtype == torch.float32 and tokens.shape[1] <= 8
            assert images.shape[1:] == (3, 16, 16) and labels.shape[1] == 4
            for image, row in zip(images, zip(tokens, labels, strict=True), strict=True):
                rows[image.numpy().tobytes()] = row
        assert len(rows) == len(SPLIT[part])
        for film in SPLIT[part]:
            tokens, labels = rows[poster(folder, film).tobytes()]
            expected = pieces.encode([films.plots[IDS.index(film)]], length=8)[0]
            np.testing.assert_array_equal(tokens[: len(expected)], expected)
            assert not tokens[len(expected) :].any()
            np.testing.assert_array_equal(labels, films.labels[IDS.index(film)])


def test_train_alone_is_shuffled_by_the_global_generator(folder):
    train, valid, test = get_dataloader(folder, **(OPTIONS | {"batch_size": 1}))

    def order(loader, seed):
        torch.manual_seed(seed)
        return [tuple(image.sum().item() for image in images) for _, images, _ in loader]

    orders = [order(train, seed) for seed in (0, 0, 1, 2, 3)]
    assert orders[0] == orders[1] and any(other != orders[0] for other in orders)
    assert order(test, 0) == order(test, 1) == order(test, 2)
    assert len(valid) == 1


def test_what_dev_and_test_hold_changes_nothing_of_train(folder):
    def first():
        loader = get_dataloader(folder, **OPTIONS)[0]
        return read_films(folder).genres, loader.dataset.tokens, loader.dataset[[0, 1, 2, 3]]

    genres, pieces, batch = first()
    for film in SPLIT["dev"] + SPLIT["test"]:
        write(folder, film, {"plot": "zebra quagga zebra quagga", "genres": ["War", "Opera"]})
        Image.new("RGB", (30, 30)).save(folder / "dataset" / f"{film}.jpeg")
    changed = first()
    assert changed[0] == genres and changed[1]._tokenizer.to_str() == pieces._tokenizer.to_str()
    for tensor, expected in zip(changed[2], batch, strict=True):
        torch.testing.assert_close(tensor, expected, rtol=0, atol=0)
    write(folder, "t1", {"plot": "zebra quagga zebra quagga", "genres": ["War", "Opera"]})
    assert first()[1]._tokenizer.to_str() != pieces._tokenizer.to_str()  # the set can tell


def test_given_tokens_are_used(folder):
    tokens = WordPieces.train(["film film", "of of"], size=20)
    loader = get_dataloader(folder, **OPTIONS, tokens=tokens)[2]
    assert loader.dataset.tokens is tokens
    batch, _, _ = next(iter(loader))
    np.testing.assert_array_equal(batch, tokens.encode(read_films(folder).plots[5:], length=8))


def test_the_cache_is_read_instead_of_the_posters(folder, tmp_path):
    options = OPTIONS | {"cache": tmp_path / "posters.hdf5", "progress": False}
    get_dataloader(folder, **options)
    expected = poster(folder, "e1")
    path = folder / "dataset" / "e1.jpeg"
    there = path.stat()
    path.write_bytes(bytes(there.st_size))  # unread, it looks as it did
    os.utime(path, ns=(there.st_atime_ns, there.st_mtime_ns))
    images = get_dataloader(folder, **options)[2].dataset[[1]][1]
    np.testing.assert_array_equal(images[0], expected)
    with pytest.raises(ValueError, match="posters.hdf5 was made with the settings"):
        get_dataloader(folder, **(options | {"size": 17}))


def test_an_unreadable_poster_is_named(folder):
    path = folder / "dataset" / "e1.jpeg"
    path.write_bytes(path.read_bytes()[:300])
    test = get_dataloader(folder, **OPTIONS)[2]
    with pytest.raises(ValueError, match="e1.jpeg must be a whole JPEG"):
        list(test)


def test_missing_files_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*split.json; .*mmimdb.tar.gz"):
        read_films(tmp_path)
    (folder / "dataset" / "t3.jpeg").unlink()
    with pytest.raises(FileNotFoundError, match=r"split.json, but 1 of 7 lack t3\.jpeg"):
        read_films(folder)
    for film in ("d2", "e9"):
        (folder / "dataset" / f"{film}.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"dataset must .* but 2 of 7 lack d2\.json"):
        read_films(folder)


def test_a_repeated_id_is_named(folder):
    split = SPLIT | {"test": ["e9", "t3"]}
    (folder / "split.json").write_text(json.dumps(split))
    with pytest.raises(ValueError, match="split.json must name every id once.* 't3' is there 2"):
        read_films(folder)


@pytest.mark.parametrize(
    "split", ["[]", '{"train": ["t1"], "dev": ["t3"]}', '{"train": [1], "dev": [], "test": []}']
)
def test_a_wrong_split_is_named(folder, split):
    (folder / "split.json").write_text(split)
    with pytest.raises(ValueError, match="split.json must be an object of lists of ids"):
        read_films(folder)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"genres": ["War"]}, "must have a plot, a text or a list of texts"),
        ({"plot": 3, "genres": ["War"]}, "must have a plot"),
        ({"plot": ["a", None], "genres": ["War"]}, "must have a plot"),
        ({"plot": "a"}, "must have genres, a list of texts"),
        ({"plot": "a", "genres": "War"}, "must have genres"),
        ([], "must have a plot"),
    ],
)
def test_a_film_without_plot_or_genres_is_named(folder, record, message):
    write(folder, "d2", record)
    with pytest.raises(ValueError, match=f"d2.json {message}"):
        read_films(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xff\xff"])
def test_damaged_json_is_named(folder, content):
    (folder / "dataset" / "d2.json").write_bytes(content)
    with pytest.raises(ValueError, match="d2.json must be JSON, but"):
        read_films(folder)


@pytest.mark.slow
def test_the_real_films_are_those_of_the_real_features():
    folder = real("imdb/split.json").parent
    with h5py.File(folder / "multimodal_imdb.hdf5") as file:
        names = list(file.attrs["target_names"])
        ids, genres = file["imdb_ids"][:], file["genres"][:]
    films = read_films(folder, genres=names)
    assert films.sizes == (3284, 517, 1639) and films.genres == names
    assert films.ids == [film.decode() for film in ids]
    np.testing.assert_array_equal(films.labels, genres)
    assert round(float(films.labels.sum(axis=1).mean()), 2) == 2.45
    own = read_films(folder)
    assert sorted(own.genres) == sorted(names) and len(names) == 23
    counts = own.labels[:3284].sum(axis=0)
    assert (np.diff(counts) <= 0).all()


@pytest.mark.slow
def test_real_films_are_served():
    options = {"size": 64, "length": 64, "batch_size": 8, "vocabulary": 2000}
    train, valid, test = get_dataloader(real("imdb/split.json").parent, **options)
    assert len(train.dataset.tokens) == 2000
    assert [len(loader) for loader in (train, valid, test)] == [411, 65, 205]
    tokens, images, genres = next(iter(train))
    assert tokens.shape[0] == 8 and tokens.max() < 2000 and (tokens == 1).float().mean() < 0.02
    assert images.shape == (8, 3, 64, 64) and genres.shape == (8, 23)
    assert (tokens != 0).sum() > 8 * 20 and len(images.flatten(1).unique(dim=0)) == 8


def write_features(path, ids=IDS):
    """Image features in MM-IMDB's layout, a row a film."""
    values = np.random.default_rng(1).random((len(ids), 5)).astype(np.float16)
    with h5py.File(path, "w") as file:
        file["vgg_features"], file["imdb_ids"] = values, np.array(ids, dtype="S")
    return values


def test_features_take_the_place_of_the_images(folder):
    values = write_features(folder / "multimodal_imdb.hdf5")
    _, _, test = get_dataloader(folder, features=folder, modalities=("image", "text"), **OPTIONS)
    image, tokens, genres = next(iter(test))
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, torch.from_numpy(values[5:]).float())
    assert tokens.dtype == torch.int64 and len(genres) == 2


def test_features_of_other_films_are_refused(folder):
    write_features(folder / "other.hdf5", ids=[*IDS[:2], "x9", *IDS[3:]])
    with pytest.raises(ValueError, match="row 2 is 'x9', not 't3'"):
        get_dataloader(folder, features=folder / "other.hdf5", **OPTIONS)
    write_features(folder / "short.hdf5", ids=IDS[:3])
    with pytest.raises(ValueError, match="imdb_ids in .*short.hdf5 must be the 7 films"):
        get_dataloader(folder, features=folder / "short.hdf5", **OPTIONS)


def test_one_modality_is_read_alone(folder):
    for path in (folder / "dataset").glob("*.jpeg"):
        path.write_bytes(b"no picture")  # is not looked at
    train, _, _ = get_dataloader(folder, modalities=["text"], **OPTIONS)
    assert [len(batch) for batch in train] == [2, 2]
    with pytest.raises(
        ValueError, match=r"modalities must be different names out of .* \['sound'\]"
    ):
        get_dataloader(folder, modalities=["sound"], **OPTIONS)
