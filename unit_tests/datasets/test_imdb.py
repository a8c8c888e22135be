"""MM-IMDB's file: three ways to say a split, rows read exactly with and without workers, errors
that name file, dataset and row. Small files of its layout, one of its size, and a real one."""

import json

import h5py
import numpy as np
import pytest
import torch

from deq_fusion.datasets.files.hdf5 import Rows
from deq_fusion.datasets.imdb.get_data import FILE, STANDARD, get_dataloader, read_contents
from unit_tests.real_data import real

COUNTS = (20, 6, 9)
FILMS = sum(COUNTS)
NAMES = ["Drama", "Comedy", "Film-Noir"]
workers_allowed = pytest.mark.filterwarnings(
    "ignore:This process .* multi-threaded:DeprecationWarning",
    "ignore:This DataLoader will create 2 worker processes:UserWarning",
)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "features": rng.normal(size=(FILMS, 5)).astype(np.float32),
        "vgg_features": rng.random((FILMS, 7)).astype(np.float32),
        "images": rng.integers(-120, 130, (FILMS, 3, 8, 5), dtype=np.int32),
        "genres": rng.integers(0, 2, (FILMS, 3), dtype=np.int32),
        "imdb_ids": np.array([b"%07d" % film for film in range(FILMS)]),
    }


@pytest.fixture
def write(tmp_path, arrays):
    """Writes the arrays, with changes and file attributes, and returns the folder."""

    def write(*, attrs=None, names=NAMES, **changes):
        with h5py.File(tmp_path / FILE, "w") as file:
            for name, array in (arrays | changes).items():
                if array is not None:
                    file.create_dataset(name, data=array)
            file.attrs.update({"splits": json_splits()} if attrs is None else attrs)
            if names is not None and "genres" in file:
                file["genres"].attrs["target_names"] = json.dumps(names)
        return tmp_path

    return write


def json_splits(names=("train", "dev", "test"), counts=COUNTS):
    return json.dumps(dict(zip(names, counts, strict=True)))


def fuel_splits(bounds, names=("train", "dev", "test"), sources=("features", "genres")):
    """The array that Fuel writes: a record for each part and dataset."""
    kind = [
        ("split", "S5"),
        ("source", "S8"),
        ("start", np.int64),
        ("stop", np.int64),
        ("indices", h5py.ref_dtype),
        ("available", bool),
        ("comment", "S1"),
    ]
    records = [
        (name.encode(), source.encode(), start, stop, h5py.Reference(), True, b".")
        for name, (start, stop) in zip(names, bounds, strict=True)
        for source in sources
    ]
    return np.array(records, dtype=kind)


def served(loader):
    return [torch.cat(columns) for columns in zip(*loader, strict=True)]


def check_parts(loaders, arrays, parts, names=("features", "vgg_features")):
    for loader, rows in zip(loaders, parts, strict=True):
        for got, name in zip(served(loader), (*names, "genres"), strict=True):
            expected = torch.from_numpy(arrays[name][rows].astype(np.float32))
            torch.testing.assert_close(got, expected, rtol=0, atol=0)


PARTS = (slice(0, 20), slice(20, 26), slice(26, 35))


@pytest.mark.parametrize(
    ("attrs", "splits"),
    [
        ({"splits": json_splits()}, None),
        ({"splits": json_splits(("test", "train", "valid"), (9, 20, 6))}, None),
        ({"split": fuel_splits([(0, 20), (20, 26), (26, 35)])}, None),
        ({}, COUNTS),
        ({"splits": json_splits(counts=(1, 1, 1))}, COUNTS),  # who passes it means it
    ],
)
def test_parts_are_those_that_the_file_or_the_caller_says(write, arrays, attrs, splits):
    folder = write(attrs=attrs)
    for path in (folder, str(folder / FILE)):
        loaders = get_dataloader(path, splits=splits, train_shuffle=False, batch_size=8)
        check_parts(loaders, arrays, PARTS)


def test_fuels_parts_may_lie_in_any_order(write, arrays):
    folder = write(attrs={"split": fuel_splits([(15, 35), (9, 15), (0, 9)])})
    loaders = get_dataloader(folder, train_shuffle=False, batch_size=8)
    check_parts(loaders, arrays, (slice(15, 35), slice(9, 15), slice(0, 9)))


def test_train_alone_is_shuffled_anew_each_pass(write, arrays):
    train, valid, test = get_dataloader(write(), batch_size=6)
    first, second = served(train), served(train)
    assert (first[0] != second[0]).any()
    for got in (first, second):  # rows stay together
        order = got[0][:, 0].argsort(), arrays["features"][:20, 0].argsort()
        for view, name in zip(got, ("features", "vgg_features", "genres"), strict=True):
            np.testing.assert_array_equal(view[order[0]], arrays[name][:20][order[1]])
    assert [len(batch[-1]) for batch in train] == [6, 6, 6, 2]
    check_parts([valid, test], arrays, PARTS[1:])


@workers_allowed
def test_workers_give_the_same_batches_pass_after_pass(write):
    passes = []
    for workers in (0, 2):
        torch.manual_seed(3)
        train, valid, _ = get_dataloader(write(), batch_size=6, workers=workers)
        passes.append([served(loader)[0] for loader in (train, valid, train, train)])
        passes[-1].append(torch.rand(2))  # and what is drawn afterwards
    for alone, helped in zip(*passes, strict=True):
        torch.testing.assert_close(alone, helped, rtol=0, atol=0)


@workers_allowed
def test_a_resumed_run_meets_the_same_batches(write):
    folder = write()
    expected, states = [], []
    train = get_dataloader(folder, batch_size=6, workers=1)[0]
    for _ in range(3):
        states.append(torch.get_rng_state())
        expected.append(served(train)[0])
    for workers in (0, 1):
        torch.set_rng_state(states[1])
        again = get_dataloader(folder, batch_size=6, workers=workers)[0]
        for batches in expected[1:]:
            torch.testing.assert_close(served(again)[0], batches, rtol=0, atol=0)


def test_modalities_and_datasets_can_be_chosen(write, arrays):
    folder = write(vgg_features=None)  # what is not asked for need not be there
    for names, options in [
        (("features",), {"modalities": ["text"]}),
        (("images", "features"), {"modalities": ("image", "text"), "image": "images"}),
        (("features", "images"), {"vgg": False}),
        (("images", "features"), {"text": "images", "image": "features"}),
    ]:
        loaders = get_dataloader(folder, train_shuffle=False, **options)
        check_parts(loaders, arrays, PARTS, names)
        widths = tuple(np.prod(arrays[name].shape[1:]) for name in names)
        assert loaders[0].dataset.widths == widths


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("genres", [np.int8, np.int32, np.uint8])
def test_any_precision_is_served_as_float32(write, arrays, kind, genres):
    changes = {"vgg_features": arrays["vgg_features"].astype(kind)}
    changes["genres"] = arrays["genres"].astype(genres)
    loaders = get_dataloader(write(**changes), train_shuffle=False)
    check_parts(loaders, arrays | changes, PARTS)


def test_a_call_written_for_multibench_works(write, arrays):
    loaders = get_dataloader(write(), "raw", 0, False, 40, True, False, True)
    assert len(loaders[0]) == 1
    check_parts(loaders, arrays, PARTS)
    with pytest.raises(ValueError, match="skip_process is of the noisy test sets"):
        get_dataloader(write(), skip_process=True)


@pytest.mark.parametrize("kept", ["json", "array", "file", None])
def test_contents_are_read_without_the_features(write, kept):
    folder = write(names=NAMES if kept == "json" else None)
    with h5py.File(folder / FILE, "r+") as file:
        if kept in ("array", "file"):
            (file if kept == "file" else file["genres"]).attrs["target_names"] = NAMES
    contents = read_contents(folder)
    assert contents.films == FILMS
    assert contents.genres == (NAMES if kept else ["0", "1", "2"])
    assert [len(part) for part in contents.parts] == list(COUNTS)
    assert contents.shapes["features"] == (5,) and contents.shapes["images"] == (3, 8, 5)


def test_a_file_of_mm_imdbs_size_has_its_split(tmp_path):
    films, path = sum(STANDARD), tmp_path / FILE
    kinds = {"features": "f4", "vgg_features": "f4", "images": "i4", "genres": "i4"}
    shapes = {"features": (300,), "vgg_features": (4096,), "images": (3, 256, 160), "genres": (23,)}
    with h5py.File(path, "w") as file:  # sparse: the last row alone takes room
        for number, (name, shape) in enumerate(shapes.items(), start=1):
            file.create_dataset(name, (films, *shape), kinds[name])[-1] = min(number, 4) % 2
        file["genres"][:, 3] = 1
    assert path.stat().st_size > 1e10 and path.stat().st_blocks * 512 < 1e8
    for image in ("vgg_features", "images"):
        loaders = get_dataloader(path, image=image, batch_size=32)
        assert [len(loader.dataset) for loader in loaders] == [15552, 2608, 7799]
        *views, genres = next(iter(loaders[0]))
        assert [view.shape[1:] for view in views] == [shapes["features"], shapes[image]]
        assert genres.shape == (32, 23) and genres[:, 3].all() and genres.sum() == 32
        text, _, _ = loaders[2].dataset[[0, 7798]]
        assert text[:, 0].tolist() == [0, 1]


def test_a_file_must_say_its_split(write):
    with pytest.raises(ValueError, match=rf"{FILE} must say its split .* 35; pass splits="):
        get_dataloader(write(attrs={}))


@pytest.mark.parametrize(
    ("attrs", "splits", "match"),
    [
        ({"splits": json_splits(counts=(20, 6, 10))}, None, "three separate parts of the 35 rows"),
        ({"splits": json_splits(counts=(26, 0, 9))}, None, "three separate parts of the 35 rows"),
        ({"splits": json_splits(("train", "dev", "held"))}, None, r"train, dev \(or valid\) and t"),
        ({"split": fuel_splits([(0, 20), (19, 26), (26, 35)])}, None, "three separate parts"),
        ({"split": fuel_splits([(0, 20)], names=["train"])}, None, r"test, but it has \['train'\]"),
        ({"splits": "{no JSON"}, None, rf"'splits' of .*{FILE} must be JSON counts, .* but Expect"),
        ({"splits": "[20, 6, 9]"}, None, "must be JSON counts, .* pass splits="),
        ({"splits": json_splits(counts=(20, 6, 8.5))}, None, r"three counts, .* \[20, 6, 8.5\]"),
        ({"splits": h5py.Empty("f4")}, None, rf"attribute splits of .*{FILE}"),
        ({"split": "20, 6, 9"}, None, f"of .*{FILE} must .* Fuel's records"),
        ({"split": np.arange(3)}, None, "Fuel's records"),
        ({}, ("20", "6", "9"), "splits must be three counts"),
        ({}, (20, 15), r"splits must be three counts"),
        ({}, (20, 10, 9), "three separate parts of the 35 rows"),
    ],
)
def test_a_wrong_split_is_named(write, attrs, splits, match):
    with pytest.raises(ValueError, match=match):
        get_dataloader(write(attrs=attrs), splits=splits)


def test_a_missing_or_truncated_file_is_named(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no file .*{FILE}"):
        get_dataloader(tmp_path)
    path = write() / FILE
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=f"{FILE} must be a complete HDF5 file"):
        get_dataloader(path)


@pytest.mark.parametrize("name", ["features", "vgg_features", "genres"])
def test_a_missing_dataset_is_named_with_those_there(write, name):
    with pytest.raises(ValueError, match=rf"{FILE} must hold a dataset '{name}', it has \[.*imdb"):
        get_dataloader(write(**{name: None}))


@pytest.mark.parametrize("name", ["features", "vgg_features"])
def test_a_dataset_with_other_rows_is_named(write, arrays, name):
    with pytest.raises(ValueError, match=rf"{name} in .* each of the 35 rows of genres, got .*34"):
        get_dataloader(write(**{name: arrays[name][1:]}))
    with pytest.raises(ValueError, match=rf"{name} in .* must hold numbers"):
        get_dataloader(write(**{name: arrays["imdb_ids"]}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["features", "vgg_features"])
def test_a_feature_that_is_not_finite_is_located(write, arrays, name, value):
    damaged = arrays[name].copy()
    damaged[[22, 24], 3] = value
    train, valid, test = get_dataloader(write(**{name: damaged}))
    served(train), served(test)
    rows = r"rows 22 \(film '0000022'\), 24 \(film '0000024'\) are not"
    with pytest.raises(ValueError, match=rf"{name} in .*{FILE} must be finite, but {rows}"):
        served(valid)


def test_finite_features_may_have_an_infinite_sum(write, arrays):
    huge = np.full((FILMS, 5), 3e38, dtype=np.float32)
    loaders = get_dataloader(write(features=huge), train_shuffle=False)
    check_parts(loaders, arrays | {"features": huge}, PARTS)


@pytest.mark.parametrize("value", [2, -1])
def test_genres_other_than_0_and_1_are_located(write, arrays, value):
    genres = arrays["genres"].copy()
    genres[23, 1] = value
    with pytest.raises(ValueError, match=f"genres in .*{FILE} must be 0 or 1, row 23 is not"):
        get_dataloader(write(genres=genres))


def test_names_must_fit_the_genres(write):
    for names in (NAMES[:2], 3, {}):
        with pytest.raises(ValueError, match=f"{FILE} must name the 3 columns of genres, .* got "):
            get_dataloader(write(names=names))
    for names, match in (
        (h5py.Empty("f4"), rf"attribute target_names of .*{FILE}"),
        (3, "columns of genres, .* got 0 names"),
        ("[no JSON", "columns of genres, .* got 0 names"),
    ):
        attrs = {"splits": json_splits(), "target_names": names}
        with pytest.raises(ValueError, match=match):
            get_dataloader(write(names=None, attrs=attrs))


def test_a_film_that_is_there_twice_is_named(write, arrays):
    ids = arrays["imdb_ids"].copy()
    ids[30] = ids[4]  # in train and in test
    with pytest.raises(
        ValueError, match=rf"{FILE} must occur once, .* '0000004' in the rows \[4, 30"
    ):
        get_dataloader(write(imdb_ids=ids))
    get_dataloader(write(imdb_ids=None))


def test_what_has_no_rows_is_passed_over(write):
    path = write() / FILE
    with h5py.File(path, "a") as file:
        file["version"], file["nothing"] = 3, h5py.Empty("f4")
        file["link"], file["other"] = h5py.SoftLink("/none"), h5py.ExternalLink("none.h5", "/x")
    assert set(read_contents(path).shapes) == {
        "features",
        "vgg_features",
        "images",
        "genres",
        "imdb_ids",
    }
    with h5py.File(path, "a") as file:
        del file["features"]
        file["features"] = 3.0
    with pytest.raises(ValueError, match="features in .* must have rows"):
        get_dataloader(path)


@pytest.mark.parametrize("modalities", [("text", "audio"), ("text", "text"), ()])
def test_a_wrong_modality_is_answered_with_the_choices(write, modalities):
    with pytest.raises(ValueError, match=r"out of \('text', 'image'\), got"):
        get_dataloader(write(), modalities=modalities)


@pytest.fixture
def real_set():
    return real(f"imdb/{FILE}").parent


@pytest.mark.slow
def test_the_real_file_is_what_its_description_says(real_set):
    contents, loaders = read_contents(real_set), get_dataloader(real_set, batch_size=512)
    assert contents.genres[0] == "Drama" and len(contents.genres) == 23
    assert [len(part) for part in contents.parts] == [3284, 517, 1639]
    assert loaders[0].dataset.widths == (300, 4096)
    genres = torch.cat([loader.dataset.genres for loader in loaders])
    assert genres.shape == (5440, 23) and genres.sum() / 5440 == pytest.approx(2.45, abs=0.005)
    for text, image, labels in loaders[1]:
        assert text.dtype == image.dtype == labels.dtype == torch.float32
        assert image.std() > 0 and text.std() > 0


@pytest.mark.slow
def test_the_real_rows_lie_in_the_order_of_the_split(real_set):
    listed = json.loads((real_set / "split.json").read_text())
    ids, parts = Rows(real_set / FILE, "imdb_ids"), read_contents(real_set).parts
    names = [[name.decode() for name in ids[part]] for part in parts]
    assert names == [listed[part] for part in ("train", "dev", "test")]
    assert len({name for part in names for name in part}) == 5440


@pytest.mark.slow
def test_the_real_labels_are_those_of_the_raw_films(real_set):
    contents, (_, valid, _) = read_contents(real_set), get_dataloader(real_set)
    ids = Rows(real_set / FILE, "imdb_ids")[contents.parts[1]]
    for row in range(0, 517, 50):
        film = json.loads((real_set / "dataset" / f"{ids[row].decode()}.json").read_text())
        named = [contents.genres[column] for column in valid.dataset.genres[row].nonzero()]
        assert sorted(named) == sorted(set(film["genres"]) & set(contents.genres))
