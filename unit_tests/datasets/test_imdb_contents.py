"""MM-IMDB's file where it is not as published: ids, splits, labels and features of other kinds are
read right or refused by name, and nothing large is read because a small file says so."""

import h5py
import numpy as np
import pytest

from deq_fusion.datasets.imdb.contents import read_ids
from deq_fusion.datasets.imdb.get_data import FILE, get_dataloader
from unit_tests.datasets import test_imdb

arrays, write = test_imdb.arrays, test_imdb.write  # its fixtures
check_parts, fuel_splits, json_splits = (
    test_imdb.check_parts,
    test_imdb.fuel_splits,
    test_imdb.json_splits,
)
FILMS, PARTS, served = test_imdb.FILMS, test_imdb.PARTS, test_imdb.served


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (np.arange(FILMS), [f"{film:07d}" for film in range(FILMS)]),
        (np.arange(FILMS, dtype=np.uint64) + 10**8, [f"1{film:08d}" for film in range(FILMS)]),
        ([f"tt{film}é" for film in range(FILMS)], [f"tt{film}é" for film in range(FILMS)]),
        (np.array([f"{film}".encode() for film in range(FILMS)]), list(map(str, range(FILMS)))),
    ],
)
def test_ids_may_be_texts_of_any_kind_or_whole_numbers(write, arrays, ids, expected):
    folder = write(imdb_ids=ids)
    with h5py.File(folder / FILE) as file:
        assert read_ids(file) == expected
    check_parts(get_dataloader(folder, train_shuffle=False), arrays, PARTS)
    ids[30] = ids[4]  # in train and in test
    with pytest.raises(ValueError, match=rf"has '{expected[4]}' in the rows \[4, 30\]"):
        get_dataloader(write(imdb_ids=ids))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.arange(FILMS) + 0.0, r"imdb_ids in .* of whole numbers, a film's each, got float64 \("),
        (np.zeros((FILMS, 2), int), r"imdb_ids in .*, got int64 \(35, 2\); write them as texts"),
        (np.arange(FILMS) - 1, "imdb_ids in .* must be 0 or more, got -1"),
        (np.arange(FILMS) > 3, "imdb_ids"),
        (np.arange(FILMS - 1), "imdb_ids in .* name each of its 35 films, but has 34 names"),
        (np.array([b"\xff%d" % film for film in range(FILMS)]), "imdb_ids in .* must be UTF-8"),
        (np.array([b"\x1b[2J"] * FILMS), r"has '\\x1b\[2J' in the rows \[0, 1\]"),
    ],
)
def test_other_ids_are_refused_with_their_type(write, ids, message):
    with pytest.raises(ValueError, match=message) as error:
        get_dataloader(write(imdb_ids=ids))
    assert str(error.value).isprintable()


def test_ids_of_another_file_are_not_followed(write, tmp_path):
    path = write(imdb_ids=None) / FILE
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["imdb_ids"] = np.arange(FILMS)
    with h5py.File(path, "a") as file:
        file["imdb_ids"] = h5py.ExternalLink("other.h5", "/imdb_ids")
    with pytest.raises(ValueError, match="imdb_ids in .* link to another file's"):
        get_dataloader(path)


@pytest.mark.parametrize(
    ("attrs", "match"),
    [
        ({"splits": json_splits(counts=(True, 6, 9))}, r"three counts, .* got \[True, 6, 9\]"),
        ({"splits": json_splits(counts=(20, -6, 9))}, "three separate parts of the 35 rows"),
        ({"splits": json_splits(counts=(10**30, 6, 9))}, "parts of the 35 rows .* got 0 to 10000"),
        ({"splits": json_splits(counts=([20], 6, 9))}, r"three counts, .* got \[a list of 1, 6"),
        ({"splits": json_splits(counts=(1e400, 6, 9))}, r"three counts, .* got \[inf, 6"),
        ({"splits": "[" * 60_000}, "must be JSON counts"),
        ({"splits": '{"train": 20, "train": 2, "dev": 6, "test": 9}'}, "it has a name twice"),
        (
            {"splits": '{"train": 20, "dev": 6, "valid": 6, "test": 9}'},
            "but it has .'dev', 'test', 'train', 'valid'.",
        ),
        ({"splits": json_splits(("train", "dev", "\x1b[2J"))}, r"it has .'\\x1b\[2J', 'dev'"),
    ],
)
def test_a_damaged_split_is_named(write, attrs, match):
    with pytest.raises(ValueError, match=match) as error:
        get_dataloader(write(attrs=attrs))
    assert str(error.value).isprintable() and len(str(error.value)) < 600


def test_fuels_records_must_agree(write):
    records = fuel_splits([(0, 20), (20, 26), (26, 35)])
    for change, match in [
        (lambda r: r["start"].__setitem__(2, 19), r"'dev' has the rows \(19, 26\) of one"),
        (lambda r: r["stop"].__setitem__(0, 2**62), "'train' has the rows"),
        (lambda r: r["source"].__setitem__(1, b"g"), r"test, but it has .'dev', 'test'."),
        (lambda r: r["split"].__setitem__(1, b"\xff"), "can't decode byte 0xff"),
        (lambda r: r["available"].__setitem__(slice(2), False), r"but it has .'dev', 'test'."),
    ]:
        changed = records.copy()
        change(changed)
        with pytest.raises(ValueError, match=match):
            get_dataloader(write(attrs={"split": changed}))
    floats = records.astype(
        [(n, "f8" if n == "start" else records.dtype[n]) for n in records.dtype.names]
    )
    for damaged in (floats, records[["split", "source", "start"]]):
        with pytest.raises(ValueError, match="without whole numbers as start and stop"):
            get_dataloader(write(attrs={"split": damaged}))
    with h5py.File(write(attrs={}) / FILE, "a") as file:  # rows in any order, listed elsewhere
        records["indices"][:2] = file["genres"].ref
        file.attrs["split"] = records
        path = file.filename
    with pytest.raises(ValueError, match="rows of 'train' are a list elsewhere"):
        get_dataloader(path)


def test_a_split_that_leaves_films_out_is_said(write, arrays):
    folder = write(attrs={"splits": json_splits(counts=(20, 6, 2))})
    with pytest.warns(
        UserWarning, match=rf"7 of the 35 films of .*{FILE} are in none of the parts"
    ):
        loaders = get_dataloader(folder, train_shuffle=False)
    check_parts(loaders, arrays, (slice(0, 20), slice(20, 26), slice(26, 28)))
    get_dataloader(folder, splits=(20, 6, 2))  # who passes it means it


@pytest.mark.parametrize("name", ["features", "vgg_features"])
def test_what_float32_cannot_hold_is_located(write, arrays, name):
    changed = arrays[name].astype(np.float64)
    changed[21, 2] = -1e300
    _, valid, _ = get_dataloader(write(**{name: changed}))
    with pytest.raises(
        ValueError, match=rf"{name} in .* 3.4e38.* row 21 \(film '0000021'\) is not"
    ):
        served(valid)
    _, valid, _ = get_dataloader(write(**{name: changed, "imdb_ids": None}))
    with pytest.raises(ValueError, match=rf"{name} in .* 3.4e38.* row 21 is not.*; rescale it"):
        served(valid)


@pytest.mark.parametrize("value", [np.nan, 1e-50, 0.5, -np.inf])
def test_genres_are_looked_at_as_they_are_stored(write, arrays, value):
    genres = arrays["genres"].astype(np.float64)
    get_dataloader(write(genres=genres))
    genres[23, 1] = value  # as float32, 1e-50 would be a 0
    with pytest.raises(ValueError, match=f"genres in .*{FILE} must be 0 or 1, row 23 is not"):
        get_dataloader(write(genres=genres))


def test_films_without_genres_are_said(write, arrays):
    genres = arrays["genres"].copy()
    genres[26:31] = 0
    with pytest.warns(UserWarning, match="of the 9 films from row 26 on of .* no genre at all"):
        get_dataloader(write(genres=genres))


def test_arrays_that_lie_on_their_side_are_said(write, arrays):
    with pytest.raises(
        ValueError, match=r"features in .* got float32 \(5, 35\), which looks trans"
    ):
        get_dataloader(write(features=arrays["features"].T))
    square = np.arange(FILMS**2, dtype=np.float32).reshape(FILMS, FILMS)
    with pytest.warns(UserWarning, match="features in .* as wide as it is long, 35: its rows are"):
        loaders = get_dataloader(write(features=square), train_shuffle=False)
    check_parts(loaders, arrays | {"features": square}, PARTS)


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        ("genres", (10**9, 23), "genres in .* is declared to be 1,000,000,000 x 23"),
        ("genres", (10**12, 1), "genres in"),
        ("features", (FILMS, 10**9), r"features in .* 1 to 1,048,576 numbers a film"),
        ("features", (FILMS, 0), r"features in .* 1 to 1,048,576 numbers a film"),
        ("imdb_ids", (10**9,), "imdb_ids in"),
    ],
)
@pytest.mark.parametrize("written", [False, True])
def test_what_is_declared_and_too_large_is_refused(write, name, shape, match, written):
    folder = write(**{name: None})
    with h5py.File(folder / FILE, "a") as file:
        chunks = tuple(min(size, 1 << 20) for size in shape) if all(shape) else None
        options = {"chunks": chunks, "compression": chunks and "gzip"}
        dataset = file.create_dataset(name, shape, np.int8, **options)
        if written and all(shape):
            dataset[(0,) * len(shape)] = 1
    assert (folder / FILE).stat().st_size < 1 << 20
    with pytest.raises(ValueError, match=rf"{name} in .* (declared|written|numbers a film)"):
        get_dataloader(folder)


def test_names_of_genres_are_texts_and_differ(write):
    for names in (["a", "b", "a"], ["a", "b", 3], ["a", "b", ["c"]], {"a": 1, "b": 2, "c": 3}):
        with pytest.raises(ValueError, match=f"{FILE} must name the 3 columns of genres, each its"):
            get_dataloader(write(names=names))
    with pytest.raises(ValueError, match=f"{FILE} must name the 3 columns") as error:
        get_dataloader(write(names=["\x1b[2J" * 1000]))
    assert str(error.value).isprintable() and len(str(error.value)) < 600
