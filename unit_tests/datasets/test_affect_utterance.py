"""CMU-MOSI at utterance level: read exactly, split by video, standardised on train only, errors
that name the array. A small synthetic file, and the real one where it is."""

import zipfile

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from deq_fusion.datasets.affect.utterance import (
    FILE,
    MODALITIES,
    get_dataloader,
    read_utterances,
    split_arrays,
    split_rows,
)
from unit_tests.real_data import real

WIDTHS = {"text": 5, "audio": 3, "vision": 4}
VIDEOS, EACH, TEST_VIDEOS = 14, 3, 4


@pytest.fixture
def arrays():
    """14 videos of 3 utterances in mixed order, 4 of them test's, all on different scales."""
    rng = np.random.default_rng(0)
    videos = rng.permutation(np.repeat(np.arange(VIDEOS), EACH))
    shift = videos[:, None]  # a part's mean tells which videos it has
    arrays = {
        name: (10**power * (rng.normal(size=(len(videos), width)) + shift)).astype(np.float32)
        for power, (name, width) in enumerate(WIDTHS.items())
    }
    names = np.array([f"video{number}" for number in videos])
    return arrays | {
        "labels": rng.uniform(-3, 3, len(videos)).astype(np.float32),
        "id": np.array([f"{name}_{row}" for row, name in enumerate(names)]),
        "video_id": names,
        "split": np.where(videos < TEST_VIDEOS, "test", "train"),
    }


@pytest.fixture
def write(tmp_path, arrays):
    """Writes the arrays, with changes, and returns the folder; None leaves an array out."""

    def write(**changes):
        kept = {name: array for name, array in (arrays | changes).items() if array is not None}
        np.savez(tmp_path / FILE, **kept)
        return tmp_path

    return write


def rows_of(arrays, **options):
    return split_rows(arrays["video_id"], arrays["split"] == "test", **options)


def test_utterances_are_read_as_they_were_written(write, arrays):
    for path in (write(), write() / FILE, str(write())):
        views, labels, videos, is_test = read_utterances(path)
        for view, name in zip(views, MODALITIES, strict=True):
            np.testing.assert_array_equal(view, arrays[name], strict=True)
        np.testing.assert_array_equal(labels, arrays["labels"][:, None], strict=True)
        np.testing.assert_array_equal(videos, arrays["video_id"])
        np.testing.assert_array_equal(is_test, arrays["split"] == "test")


def test_modalities_come_in_the_order_asked_for(write):
    folder = write(audio=None)  # what is not asked for need not be there
    for modalities in (("vision", "text"), ["text"]):
        for loader in get_dataloader(folder, modalities=modalities):
            *views, _ = next(iter(loader))
            assert [view.shape[1] for view in views] == [WIDTHS[name] for name in modalities]


def test_parts_share_no_video_and_leave_none_out(arrays):
    for seed in range(5):
        parts = rows_of(arrays, split_seed=seed)
        videos = [set(arrays["video_id"][rows]) for rows in parts]
        assert [len(names) for names in videos] == [8, 2, 4]  # a fifth of train's ten
        assert len(set.union(*videos)) == VIDEOS
        assert sorted(np.concatenate(parts)) == list(range(VIDEOS * EACH))
        assert parts[2].tolist() == np.flatnonzero(arrays["split"] == "test").tolist()


def test_the_split_seed_alone_decides_the_split(arrays):
    first, again, other = (np.concatenate(rows_of(arrays, split_seed=s)) for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_scale_is_fitted_on_train_only(write, arrays):
    parts, rows = split_arrays(write(), split_seed=2), rows_of(arrays, split_seed=2)
    for index, name in enumerate(MODALITIES):
        scaler = StandardScaler().fit(arrays[name][rows[0]].astype(np.float64))
        for (views, labels), chosen in zip(parts, rows, strict=True):
            expected = scaler.transform(arrays[name][chosen].astype(np.float64))
            np.testing.assert_allclose(views[index], expected, rtol=1e-5, atol=1e-5)
            assert views[index].dtype == labels.dtype == np.float32
            np.testing.assert_array_equal(labels, arrays["labels"][chosen, None])
        means = [abs(views[index].mean()) for views, _ in parts]
        assert means[0] < 1e-5 and min(means[1:]) > 0.1  # the set can tell the scales apart


def test_what_valid_and_test_hold_does_not_move_train(write, arrays):
    rows = rows_of(arrays)
    before = split_arrays(write())[0][0]
    changed = arrays["text"].copy()
    changed[np.concatenate(rows[1:])] *= 100
    for view, expected in zip(split_arrays(write(text=changed))[0][0], before, strict=True):
        np.testing.assert_array_equal(view, expected)


@pytest.mark.parametrize("value", [0.0, 0.1, -12345.678])
def test_a_feature_that_is_constant_in_train_becomes_zero(write, arrays, value):
    rows = rows_of(arrays)
    audio = arrays["audio"].copy()
    audio[rows[0], 1] = value  # not in the other parts
    for views, _ in split_arrays(write(audio=audio)):
        assert (views[1][:, 1] == 0).all() and (views[1][:, 2] != 0).any()


def test_loaders_serve_the_split_arrays(write):
    folder = write()
    loaders = get_dataloader(folder, split_seed=1, batch_size=5)
    for loader, (views, labels) in zip(loaders, split_arrays(folder, split_seed=1), strict=True):
        batches = list(loader)
        assert max(len(batch[-1]) for batch in batches) == 5
        served = [torch.cat(columns) for columns in zip(*batches, strict=True)]
        order = served[0][:, 0].argsort(), views[0][:, 0].argsort()
        for got, expected in zip(served, (*views, labels), strict=True):
            torch.testing.assert_close(got[order[0]], torch.from_numpy(expected[order[1]]))


def test_a_missing_file_is_named_with_its_source(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no file .*{FILE}; .*declare-lab.*Cross-Modal-B"):
        get_dataloader(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file .*other.npz"):
        get_dataloader(tmp_path / "other.npz")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(
        ValueError,
        match=f"{FILE} must be a whole npz file, but .*; get it again: it has .*declare-lab",
    ):
        get_dataloader(tmp_path)


def test_pickled_arrays_are_not_loaded(write, arrays):
    with pytest.raises(ValueError, match=f"{FILE} .*video_id holds Python objects"):
        get_dataloader(write(video_id=arrays["video_id"].astype(object)))


@pytest.mark.parametrize("name", ["audio", "labels", "id", "video_id", "split"])
def test_a_missing_array_is_named(write, name):
    with pytest.raises(ValueError, match=f"must hold the array '{name}' once"):
        get_dataloader(write(**{name: None}))


@pytest.mark.parametrize("name", ["vision", "labels", "video_id", "split"])
def test_an_array_with_other_rows_is_named(write, arrays, name):
    with pytest.raises(ValueError, match=rf"{name} in .* each of the 42 ids, got shape \(41"):
        get_dataloader(write(**{name: arrays[name][1:]}))


def test_names_have_one_column(write, arrays):
    with pytest.raises(ValueError, match=r"video_id in .* one name, for each .* got shape \(42, 2"):
        get_dataloader(write(video_id=np.stack([arrays["video_id"]] * 2, axis=1)))


def test_what_float32_cannot_hold_is_located(write, arrays):
    text = arrays["text"].astype(np.float64)
    text[9, 1] = 1e300
    with pytest.raises(ValueError, match="text in .* within 3.4e.?38.* row 9"):
        get_dataloader(write(text=text))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_file_is_named_wherever_it_is_damaged(write, tmp_path, method):
    """Zip files fail in many ways: wrong sums, methods, versions and sizes, broken streams."""
    path, random = write() / FILE, np.random.default_rng(0)
    with zipfile.ZipFile(path) as file:
        content = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", method) as file:
        for name, array in content.items():
            file.writestr(name, array)
    whole, failed = path.read_bytes(), 0
    for end in (1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=f"{path.name} must be a whole npz file"):
            read_utterances(path)
    for _ in range(300):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[random.integers(len(whole), size=5)] = random.integers(256, size=5)
        path.write_bytes(damaged.tobytes())
        try:
            read_utterances(path)
        except ValueError as error:
            failed += str(path) in str(error)
    assert failed > 250


def test_arrays_must_be_numbers_of_the_right_shape(write, arrays):
    with pytest.raises(ValueError, match=r"text in .*\(utterances, features\), got .*42, 1, 5"):
        get_dataloader(write(text=arrays["text"][:, None]))
    with pytest.raises(ValueError, match=r"labels in .* shape \(utterances,\), got <U"):
        get_dataloader(write(labels=arrays["id"]))


@pytest.mark.parametrize("name", ["text", "labels"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_number_that_is_not_finite_is_located(write, arrays, name, value):
    damaged = arrays[name].copy()
    damaged[[7, 30]] = value
    with pytest.raises(ValueError, match=f"{name} in .* finite, but rows 7, 30 are not"):
        get_dataloader(write(**{name: damaged}))


def test_a_repeated_id_is_named(write, arrays):
    ids = arrays["id"].copy()
    ids[3] = ids[4]
    with pytest.raises(ValueError, match=f"every id in .* '{ids[4]}' occurs 2 times"):
        get_dataloader(write(id=ids))


def test_a_wrong_split_is_named(write, arrays):
    split = arrays["split"].copy()
    split[arrays["video_id"] == "video9"] = "valid"
    with pytest.raises(ValueError, match=r"'train' or 'test', .* got \['test', 'train', 'va"):
        get_dataloader(write(split=split))
    with pytest.raises(ValueError, match=r"with rows of both, got \['train'\]"):
        get_dataloader(write(split=np.full_like(split, "train")))
    split[arrays["video_id"] == "video9"] = ["train", "test", "train"]
    with pytest.raises(ValueError, match="in train and in test, but 'video9' is"):
        get_dataloader(write(split=split))


@pytest.mark.parametrize("modalities", [("text", "video"), ("text", "text"), ()])
def test_a_wrong_modality_is_answered_with_the_choices(write, modalities):
    with pytest.raises(ValueError, match=r"out of \['text', 'audio', 'vision'\], got"):
        get_dataloader(write(), modalities=modalities)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_valid_share_must_lie_between_0_and_1(write, share):
    with pytest.raises(ValueError, match="valid_share must lie between 0 and 1, got"):
        get_dataloader(write(), valid_share=share)


@pytest.mark.parametrize(("share", "videos"), [(0.01, 0), (0.99, 10)])
def test_train_and_validation_must_have_a_video(write, share, videos):
    with pytest.raises(ValueError, match=f"{share} puts {videos} of 10 into validation"):
        get_dataloader(write(), valid_share=share)


@pytest.fixture
def real_file():
    return real(f"mosi/{FILE}")


@pytest.mark.slow
def test_the_real_file_is_what_its_description_says(real_file):
    views, labels, videos, is_test = read_utterances(real_file)
    assert [view.shape for view in views] == [(2199, 100), (2199, 73), (2199, 100)]
    assert labels.min() == -3 and labels.max() == 3 and labels.shape == (2199, 1)
    assert [len(np.unique(videos[part])) for part in (~is_test, is_test)] == [62, 31]
    assert [np.count_nonzero(part) for part in (~is_test, is_test)] == [1447, 752]


@pytest.mark.slow
def test_the_real_file_can_be_split_by_any_seed(real_file):
    _, labels, videos, is_test = read_utterances(real_file, modalities=["text"])
    for seed in range(20):
        parts = split_rows(videos, is_test, split_seed=seed)
        names = [set(videos[rows]) for rows in parts]
        assert [len(part) for part in names] == [50, 12, 31]
        assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
        assert sorted(np.concatenate(parts)) == list(range(len(labels)))


@pytest.mark.slow
def test_the_real_file_is_standardised_in_train(real_file):
    for view in split_arrays(real_file)[0][0]:
        np.testing.assert_allclose(view.mean(axis=0), 0, atol=1e-5)
        spread = view.std(axis=0)
        assert (np.isclose(spread, 1, atol=1e-4) | (spread == 0)).all()


def test_a_file_of_something_else_is_no_npz(tmp_path):
    (tmp_path / FILE).write_text("hello")
    with pytest.raises(ValueError, match="must be a whole npz file"):
        get_dataloader(tmp_path)
