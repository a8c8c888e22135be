"""Image features in neighbouring layouts, and damaged ones: regions last, tables of other numbers,
indices that lie; each read right, or refused with what is wrong."""

import pickle

import h5py
import numpy as np
import pytest

from deq_fusion.datasets.files.numbers import INT64
from deq_fusion.datasets.vqa.features import HDF5Features, open_features
from deq_fusion.datasets.vqa.image_files import NpzFeatures, image_id, read_npz
from unit_tests.datasets import test_vqa_features

images = test_vqa_features.images  # its fixture
DIM, COUNTS = test_vqa_features.DIM, test_vqa_features.COUNTS
padded, write_arrays = test_vqa_features.padded, test_vqa_features.write_arrays
write_bottom_up, write_npz = test_vqa_features.write_bottom_up, test_vqa_features.write_npz
write_fixed, write_ragged = test_vqa_features.write_fixed, test_vqa_features.write_ragged


@pytest.mark.parametrize(("regions", "dim"), [(36, 2048), (49, 200), (100, 512), (127, 3)])
def test_regions_come_before_their_width(tmp_path, regions, dim):
    rng = np.random.default_rng(0)
    values = rng.random((3, regions, dim)).astype(np.float16)
    ids = np.array([9, 25, 30])
    features = open_features(
        write_arrays(tmp_path / "a.h5", {"features": values, "image_ids": ids})
    )
    assert (features.regions, features.dim) == (regions, dim)
    np.testing.assert_array_equal(features[[25]], values[1:2])
    if dim < 128:
        return
    turned = {"features": values.transpose(0, 2, 1), "image_ids": ids}
    path = write_arrays(tmp_path / "b.h5", turned)
    message = rf"features in {path} must be \(images, regions, dim\), .* {regions} regions of width"
    with pytest.raises(ValueError, match=message):
        HDF5Features(path)
    with pytest.raises(ValueError, match=message):
        HDF5Features(path, regions=9)
    assert HDF5Features(path, regions=dim).dim == regions  # who says so means it
    (folder := tmp_path / "npz").mkdir()
    np.savez(folder / "7.npz", x=values[0])
    with pytest.raises(ValueError, match=rf"x in {folder}/7.npz must be \(dim, regions\), which"):
        NpzFeatures(folder)
    np.savez(folder / "7.npz", x=values[0].T)
    np.testing.assert_array_equal(NpzFeatures(folder, regions=regions)[[7]][0], values[0])


@pytest.mark.parametrize("kind", [np.int64, np.uint16, np.int32])
def test_a_table_of_numpys_integers_is_read(tmp_path, images, kind):
    path = write_bottom_up(tmp_path / "train36.hdf5", images)
    table = tmp_path / "train36_imgid2idx.pkl"
    expected = HDF5Features(path)
    rows = pickle.loads(table.read_bytes())
    for keys in (kind, int):
        narrow = {keys(image % 60000): kind(row) for image, row in rows.items()}
        table.write_bytes(pickle.dumps(narrow))
        features = HDF5Features(path)
        np.testing.assert_array_equal(features.image_ids, expected.image_ids % 60000)
        np.testing.assert_array_equal(features[[7, 40]], expected[[7, 40]])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"9": 0, "25": 1}, "it has '9': 0, of types str and int; write it"),
        ({9: "0"}, "it has 9: '0', of types int and str"),
        ({9: True}, "it has 9: True, of types int and bool"),
        ({9: np.bool_(True)}, "it has 9: .*, of types int and bool"),
        ({9: 1.0}, "it has 9: 1.0, of types int and float"),
        ({9: -1}, "whole numbers from 0 on .* it has 9: -1, of"),
        ({-9: 1}, "it has -9: 1, of types"),
        ({9: 2**63}, f"int64 holds, but it has 9: {2**63}, of"),
        ({10**400: 1}, ".* an integer of 1329 bits"),
        ({9: 1, 25: 2, 30: 1}, "a row of its own, but images 9 and 30 both have row 1; get"),
        ({9: np.arange(3)}, "it has 9: an? .*array.*, of types int and ndarray"),
        ([1] * 9999, "be a dict of image ids and their rows, got a list of 9999; get"),
        ({"\x1b[2J": 0}, r"it has .\\x1b\[2J.: 0"),
    ],
)
def test_another_table_is_refused_with_an_entry_of_it(tmp_path, images, table, message):
    path = write_bottom_up(tmp_path / "train36.hdf5", images)
    index = tmp_path / "train36_imgid2idx.pkl"
    index.write_bytes(pickle.dumps(table))
    with pytest.raises(ValueError, match=f"{index} must.* {message}") as error:
        HDF5Features(path)
    assert str(error.value).isprintable()


def test_rows_that_belong_to_no_image_are_said(tmp_path, images):
    path = write_bottom_up(tmp_path / "train36.hdf5", images)
    (tmp_path / "train36_imgid2idx.pkl").write_bytes(pickle.dumps({7: 2, 8: 0}))
    with pytest.warns(
        UserWarning, match=f"2 of the 4 rows of image_features in {path} belong to no"
    ):
        assert len(HDF5Features(path)) == 2


def test_two_layouts_in_one_file_are_refused(tmp_path, images):
    path = write_fixed(tmp_path / "a.h5", images)
    with h5py.File(path, "a") as file:
        file["image_features"] = file["features"][:]
    with pytest.raises(
        ValueError, match="must hold features and image_ids, or image_features, got"
    ):
        HDF5Features(path)


@pytest.mark.parametrize(
    "offsets",
    [[0, 3, -(2**63), 9, 11], [0, 3, 2**62, 9, 11], [0], [], [[0, 3, 8, 9, 11]], [0.0] * 5],
)
def test_offsets_that_lie_are_refused(tmp_path, images, offsets):
    path = write_ragged(tmp_path / "a.h5", images, offsets=np.array(offsets))
    with pytest.raises(ValueError, match=r"offsets.* in .*a.h5 must be|in .*a.h5 must be lists"):
        HDF5Features(path)


def test_image_ids_must_be_what_int64_holds(tmp_path, images):
    ids = np.array([1, 2, 3, 2**63], dtype=np.uint64)
    with pytest.raises(ValueError, match="image_ids in .* must be numbers that int64 holds"):
        HDF5Features(write_fixed(tmp_path / "a.h5", images, image_ids=ids))
    ids[3] = INT64[-1]
    assert HDF5Features(write_fixed(tmp_path / "a.h5", images, image_ids=ids)).image_ids[3] > 2**62


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 10**6, 10), "image_features|features in .* 1 to 4,194,304 numbers an image"),
        ((4, 0, 10), "features in .* 1 to 4,194,304 numbers an image"),
        ((4, 10, 0), "features in .* 1 to 4,194,304 numbers an image"),
        ((10**9, 10, 10), "a row for each of its 4 images, got shape"),
    ],
)
def test_images_that_take_the_memory_are_refused(tmp_path, shape, message):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("features", shape, np.int8)
        file["image_ids"] = np.arange(4)
        if all(shape):
            dataset[0, 0, 0] = 1  # sparse, but written
    with pytest.raises(ValueError, match=message):
        HDF5Features(path)


def test_an_image_of_all_regions_is_cut_by_who_asks(tmp_path):
    rows, offsets, ids = np.ones((9000, 500), np.float16), np.array([0, 1, 9000]), np.array([1, 2])
    path = write_ragged(
        tmp_path / "a.h5", {1: rows[:1], 2: rows[1:]}, offsets=offsets, image_ids=ids
    )
    with pytest.raises(
        ValueError, match="an image of .*a.h5 must have 1 to 4,194,304 numbers, got 8,9"
    ):
        HDF5Features(path)
    assert HDF5Features(path, regions=100)[[2]].shape == (1, 100, 500)


@pytest.mark.parametrize("kind", ["u1", "i8", "u2", ">f4", ">i2", "f8"])
def test_numbers_of_every_kind_are_read(tmp_path, kind):
    values = np.arange(24).reshape(2, 3, 4).astype(kind)
    path = write_arrays(tmp_path / "a.h5", {"features": values, "image_ids": np.array([5, 3])})
    np.testing.assert_array_equal(HDF5Features(path)[[3, 5]], values[::-1])


@pytest.mark.parametrize("digits", ["\u0661\u0662", "\u00b2", "9" * 30, "1_0_", "-3", "+3"])
def test_an_image_is_named_by_plain_digits(tmp_path, digits):
    with pytest.raises(ValueError, match="must be named after its image"):
        image_id(tmp_path / f"{digits}.jpg")
    assert image_id(tmp_path / "a_1_0.jpg.npz") == 0


def test_an_archive_is_no_larger_than_an_image(tmp_path, images):
    path = tmp_path / "8.npz"
    np.savez_compressed(path, x=np.zeros((6000, 6000)))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ValueError, match=f"{path} .* 288,000,000 bytes, more than the 33,554,432"):
        read_npz(path)
    for array in (np.ones((3, 4), np.longdouble), np.ones((0, 4)), np.ones((4, 0))):
        np.savez(path, x=array)
        with pytest.raises(ValueError, match=f"x in {path} must"):
            read_npz(path)
