"""Image features of VQA: every layout gives the same regions, whatever is missing or damaged is
named with its file and image, and what comes out survives a trip into a worker."""

import pickle
import re

import h5py
import numpy as np
import pytest

from deq_fusion.datasets.vqa.features import HDF5Features, open_features
from deq_fusion.datasets.vqa.image_files import (
    JoinedFeatures,
    NpzFeatures,
    find_images,
    read_npz,
)

DIM = 6
NO_NPZ = "(must be a whole npz file|cannot be read: it must hold the array 'x' once|.* unknown way)"
COUNTS = {40: 3, 7: 5, 123456: 1, 8: 2}  # regions of each image, in the order of the file


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return {
        image: rng.normal(size=(count, DIM)).astype(np.float16) for image, count in COUNTS.items()
    }


def padded(images, image_ids, regions):
    """The second computation: one image after the other, row by row."""
    array = np.zeros((len(image_ids), regions, DIM), np.float16)
    for place, image in enumerate(image_ids):
        for row, feature in enumerate(images[image][:regions]):
            array[place, row] = feature
    return array


def write_npz(folder, images):
    for image, features in images.items():
        part = folder / ("train2014" if image % 2 else "val2014")
        part.mkdir(parents=True, exist_ok=True)
        name = f"COCO_{part.name}_{image:012d}.jpg.npz"
        np.savez_compressed(part / name, x=features.T, num_bbox=len(features))
    return folder


def write_ragged(path, images, **changes):
    arrays = {
        "features": np.concatenate(list(images.values())),
        "offsets": np.cumsum([0, *map(len, images.values())]),
        "image_ids": np.array(list(images)),
    }
    return write_arrays(path, arrays | changes)


def write_fixed(path, images, **changes):
    most = max(map(len, images.values()))
    arrays = {"features": padded(images, list(images), most), "image_ids": np.array(list(images))}
    return write_arrays(path, arrays | changes)


def write_arrays(path, arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            if array is not None:
                file[name] = array
    return path


def write_bottom_up(path, images):
    """`image_features` with rows in an order that only the pickle beside the file knows."""
    order = sorted(images, key=str)
    most = max(map(len, images.values()))
    write_arrays(path, {"image_features": padded(images, order, most)})
    rows = {image: row for row, image in enumerate(order)}
    path.with_name(f"{path.stem}_imgid2idx.pkl").write_bytes(pickle.dumps(rows, protocol=2))
    return path


WRITERS = {
    "npz": lambda folder, images: write_npz(folder / "npz", images),
    "ragged": lambda folder, images: write_ragged(folder / "ragged.hdf5", images),
    "fixed": lambda folder, images: write_fixed(folder / "fixed.h5", images),
    "bottom-up": lambda folder, images: write_bottom_up(folder / "train36.hdf5", images),
}
every_layout = pytest.mark.parametrize("layout", WRITERS)


@every_layout
@pytest.mark.parametrize("regions", [1, 2, 5, 9])
def test_every_layout_gives_the_same_regions(tmp_path, images, layout, regions):
    features = open_features(WRITERS[layout](tmp_path, images), regions=regions)
    assert (len(features), features.regions, features.dim) == (4, regions, DIM)
    assert sorted(features.image_ids) == sorted(images)
    for wanted in ([7], [123456, 40, 8, 7], [8, 8, 40, 8], []):
        got = features[wanted]
        np.testing.assert_array_equal(got, padded(images, wanted, regions))
        assert got.dtype == np.float16 or not wanted


def test_regions_default_to_what_the_features_need(tmp_path, images):
    for layout, regions in {"npz": 100, "ragged": 5, "fixed": 5, "bottom-up": 5}.items():
        assert open_features(WRITERS[layout](tmp_path, images)).regions == regions


@every_layout
def test_they_work_after_a_trip_through_pickle(tmp_path, images, layout):
    features = open_features(WRITERS[layout](tmp_path, images))
    before = features[[7, 8]]  # opens the file, which must not be carried along
    carried = pickle.loads(pickle.dumps(features))
    np.testing.assert_array_equal(carried[[7, 8]], before)


@every_layout
def test_images_without_features_are_counted_and_the_first_is_named(tmp_path, images, layout):
    path = WRITERS[layout](tmp_path, images)
    features = open_features(path)
    features.check([7, 40, 7])
    for act in (features.check, features.__getitem__):
        with pytest.raises(ValueError, match=f"{path}.* 2 have no .* first is image 9;"):
            act([999999, 7, 9, 9])


@every_layout
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_with_file_and_image(tmp_path, images, layout, value):
    images[8][1, 3] = value
    path = WRITERS[layout](tmp_path, images)
    features = open_features(path)
    features[[7, 40]]
    with pytest.raises(ValueError, match=f"{path} must be finite, those of image 8 are not"):
        features[[7, 8, 40]]


def test_large_finite_features_pass(tmp_path, images):
    images = {image: np.full((2, DIM), 3e38, np.float32) for image in images}  # their sum is not
    path = write_arrays(
        tmp_path / "a.h5", {"features": np.stack([*images.values()]), "image_ids": [*images]}
    )
    assert (open_features(path)[[7, 8]] == np.float32(3e38)).all()


def test_several_files_are_one(tmp_path, images):
    first, second = ({image: images[image] for image in pair} for pair in ((40, 7), (123456, 8)))
    write_bottom_up(tmp_path / "train36.hdf5", first)
    write_bottom_up(tmp_path / "val36.hdf5", second)
    features = open_features(tmp_path)
    assert isinstance(features, JoinedFeatures) and features.regions == 5
    for wanted in ([8, 7, 40, 123456, 7], [8, 8], [7]):
        np.testing.assert_array_equal(features[wanted], padded(images, wanted, 5))
    assert features[[]].shape == (0, 5, DIM)
    with pytest.raises(ValueError, match="2 have no features, the first is image 1;"):
        features.check([7, 8, 2, 1])
    write_ragged(tmp_path / "more.h5", first)
    with pytest.raises(ValueError, match=f"{tmp_path} must hold every image once, but image 7 "):
        open_features(tmp_path)


def test_files_of_other_widths_are_not_joined(tmp_path, images):
    write_ragged(tmp_path / "a.h5", images)
    write_ragged(tmp_path / "b.h5", {1: np.zeros((2, DIM + 1))})
    with pytest.raises(ValueError, match=rf"equally wide, got \[{DIM}, {DIM + 1}\]"):
        open_features(tmp_path)


@pytest.mark.parametrize("layout", ["ragged", "fixed", "bottom-up"])
def test_a_truncated_file_is_named(tmp_path, images, layout):
    path = WRITERS[layout](tmp_path, images)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=re.escape(path.name)):
        open_features(path)


def test_arrays_that_do_not_fit_are_named(tmp_path, images):
    path = tmp_path / "a.h5"
    rows = sum(COUNTS.values())
    for offsets in (
        [0, 3, 8, rows],
        [0, 3, 8, 9, rows + 1],
        [0, 8, 3, 9, rows],
        [1, 3, 8, 9, rows],
    ):
        with pytest.raises(ValueError, match=f"offsets in {path} must be 5 .* from 0 to {rows}"):
            HDF5Features(write_ragged(path, images, offsets=np.array(offsets)))
    with pytest.raises(ValueError, match=r"a.h5 must be real .* got float16 \(4, 5, 6\)"):
        HDF5Features(write_fixed(path, images, offsets=np.arange(5)))
    for features in (np.full((4, 5, 6), b"a"), np.ones((4, 5, 6), complex)):
        with pytest.raises(ValueError, match=r"features in .*a.h5 must be real numbers"):
            HDF5Features(write_fixed(path, images, features=features))
    for count in (3, 5):
        with pytest.raises(ValueError, match=f"each of its {count} images, got shape"):
            HDF5Features(write_fixed(path, images, image_ids=np.arange(count)))
    with pytest.raises(ValueError, match="every image once, but image 3 is there twice"):
        HDF5Features(write_fixed(path, images, image_ids=np.array([1, 3, 2, 3])))
    with pytest.raises(ValueError, match=r"a.h5 must hold .*image_ids.*, got \['features'\]"):
        HDF5Features(write_fixed(path, images, image_ids=None))
    with pytest.raises(ValueError, match=r"'image_ids'\] in .*a.h5 must be lists of integers"):
        HDF5Features(write_fixed(path, images, image_ids=np.ones(4)))
    for name in ("image_ids", "offsets"):
        with h5py.File(write_fixed(path, images, **{name: None}), "r+") as file:
            file.create_group(name)
        with pytest.raises(ValueError, match=f"a.h5 must hold a dataset '{name}', it has"):
            HDF5Features(path)
    with pytest.raises(ValueError, match="a.h5 must hold a dataset 'features'"):
        HDF5Features(write_fixed(path, images, features=None))


def test_the_pickle_beside_the_bottom_up_file_is_checked(tmp_path, images):
    path = write_bottom_up(tmp_path / "train36.hdf5", images)
    table = tmp_path / "train36_imgid2idx.pkl"
    table.write_bytes(pickle.dumps({7: 0, 8: 4}))
    with pytest.raises(ValueError, match="a row for each of its 2 images, got shape"):
        HDF5Features(path)
    table.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match=f"{table} must be a dict of image ids"):
        HDF5Features(path)
    table.unlink()
    with pytest.raises(FileNotFoundError, match=f"no file {table}, which must say"):
        HDF5Features(path)


def test_the_pickle_of_another_file_is_not_taken(tmp_path, images):
    write_bottom_up(tmp_path / "train36.hdf5", images)
    path = write_bottom_up(tmp_path / "val36.hdf5", images)
    (tmp_path / "val36_imgid2idx.pkl").unlink()
    with pytest.raises(FileNotFoundError, match="no file .*val36_imgid2idx.pkl, which must say"):
        HDF5Features(path)


class Trap:
    def __reduce__(self):
        return (open, ("trap-has-run", "w"))


def test_a_pickle_that_would_run_code_is_refused(tmp_path, images, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_bottom_up(tmp_path / "train36.hdf5", images)
    (tmp_path / "train36_imgid2idx.pkl").write_bytes(pickle.dumps({7: Trap()}))
    with pytest.raises(ValueError, match="train36_imgid2idx.pkl"):
        HDF5Features(path)
    assert not (tmp_path / "trap-has-run").exists()


def test_regions_must_be_positive(tmp_path, images):
    with pytest.raises(ValueError, match="regions must be at least 1, got 0"):
        open_features(WRITERS["ragged"](tmp_path, images), regions=0)


def test_image_ids_follow_the_last_underscore(tmp_path):
    names = {"7.JPG": 7, "COCO_train2014_000000000009.jpg": 9, "a_b_10.jpeg": 10, "x_1.png": None}
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "3.jpg").touch()
    found = find_images(tmp_path, (".jpg", ".jpeg"))
    assert list(found) == [3, 7, 9, 10]
    assert {path.name: image for image, path in found.items()} == {
        "3.jpg": 3,
        **{name: image for name, image in names.items() if image},
    }
    (tmp_path / "COCO_7.jpg").touch()
    with pytest.raises(ValueError, match="7.* and .*7.* are both of image 7;"):
        find_images(tmp_path, (".jpg",))
    (tmp_path / "poster.png").touch()
    with pytest.raises(ValueError, match="poster.png must be named after its image"):
        find_images(tmp_path, (".png",))


def test_a_folder_without_features_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"ends in .npz in {tmp_path}"):
        open_features(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file .*none.hdf5"):
        open_features(tmp_path / "none.hdf5")


def test_a_damaged_archive_is_named(tmp_path, images):
    folder = write_npz(tmp_path, images)
    path = folder / "val2014" / "COCO_val2014_000000000008.jpg.npz"
    whole = path.read_bytes()
    for content in (b"", b"nothing", whole[: len(whole) // 2], whole[:-10]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path} {NO_NPZ}"):
            read_npz(path)
    with pytest.raises(ValueError, match=path.name):
        NpzFeatures(folder)[[7, 8]]
    np.savez(path, x=images[8].T)
    method = path.read_bytes().index(b"PK\x01\x02") + 10  # of the compression, in the directory
    content = bytearray(path.read_bytes())
    content[method] = 99
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} {NO_NPZ}"):
        read_npz(path)
    np.savez(path, y=images[8])
    with pytest.raises(ValueError, match=f"{path} {NO_NPZ}"):
        read_npz(path)
    np.savez(path, x=np.array([None]))  # pickled: neither shape nor content is taken
    with pytest.raises(ValueError, match=path.name):
        read_npz(path)
    np.savez(path, x=np.ones(3))
    with pytest.raises(ValueError, match=rf"x in {path} must be floating, of shape .* \(3,\)"):
        read_npz(path)
    np.savez(path, x=np.ones((DIM + 1, 2)))
    with pytest.raises(ValueError, match=f"as wide as the other files, {DIM}, got {DIM + 1}"):
        NpzFeatures(folder)[[8]]
