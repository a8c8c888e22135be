"""MCAN's archives become one HDF5 file with the same regions, whatever interrupts the work."""

import json

import h5py
import numpy as np
import pytest

from deq_fusion.datasets.vqa import features as module
from deq_fusion.datasets.vqa.features import HDF5Features, convert_npz
from deq_fusion.datasets.vqa.image_files import NpzFeatures

DIM, IMAGES = 5, 11


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "npz"
    for image in rng.permutation(100)[:IMAGES]:
        part = folder / ("train2014" if image % 3 else "val2014")
        part.mkdir(parents=True, exist_ok=True)
        features = rng.normal(size=(DIM, rng.integers(1, 8))).astype(np.float32)
        np.savez(part / f"COCO_{part.name}_{image:012d}.jpg.npz", x=features)
    return folder


def convert_quietly(folder, output, **options):
    convert_npz(folder, output, progress=False, **options)
    return output


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_the_file_holds_what_the_archives_hold(folder, tmp_path, batch_size):
    source = NpzFeatures(folder, regions=7)
    output = convert_quietly(folder, tmp_path / "all.hdf5", batch_size=batch_size)
    converted = HDF5Features(output, regions=7)
    assert converted.image_ids.tolist() == sorted(source.image_ids.tolist())
    wanted = source.image_ids[::-1]
    np.testing.assert_array_equal(converted[wanted], source[wanted].astype(np.float16))
    with h5py.File(output) as file:
        assert file["features"].dtype == np.float16 and file["features"].chunks is None
        counts = np.diff(file["offsets"])
    rows = (source[converted.image_ids] != 0).any(axis=2).sum(axis=1)
    assert counts.tolist() == rows.tolist()


def test_regions_are_cut(folder, tmp_path):
    output = convert_quietly(folder, tmp_path / "all.hdf5", regions=3)
    source = NpzFeatures(folder, regions=3)
    converted = HDF5Features(output)
    assert converted.regions == 3
    ids = source.image_ids
    np.testing.assert_array_equal(converted[ids], source[ids].astype(np.float16))


def test_a_stopped_run_goes_on_where_it_ended(folder, tmp_path, monkeypatch):
    expected = convert_quietly(folder, tmp_path / "whole.hdf5")
    output = tmp_path / "all.hdf5"
    read, paths = module._read_narrow, []

    def stopping(path, *options):
        if len(paths) == 5:
            raise KeyboardInterrupt
        paths.append(path)
        return read(path, *options)

    monkeypatch.setattr(module, "_read_narrow", stopping)
    with pytest.raises(KeyboardInterrupt):
        convert_quietly(folder, output, batch_size=2)
    assert not output.exists()
    first = set(paths[:4])  # two batches were complete, the fifth image is read again
    paths.clear()
    monkeypatch.setattr(
        module, "_read_narrow", lambda *args: (paths.append(args[0]), read(*args))[1]
    )
    convert_quietly(folder, output, batch_size=2)
    assert len(paths) == IMAGES - 4 and not first & set(paths)
    ids = HDF5Features(expected).image_ids
    np.testing.assert_array_equal(HDF5Features(output)[ids], HDF5Features(expected)[ids])


def test_other_settings_are_refused(folder, tmp_path):
    output = convert_quietly(folder, tmp_path / "all.hdf5")
    before = output.read_bytes()
    convert_quietly(folder, output)  # nothing to do
    with pytest.raises(ValueError, match=f"{output} was made with"):
        convert_quietly(folder, output, regions=2)
    assert output.read_bytes() == before


def test_a_damaged_archive_is_named_and_nothing_is_left_under_the_name(folder, tmp_path):
    path = sorted(folder.glob("*/*.npz"))[3]
    whole, output = path.read_bytes(), tmp_path / "all.hdf5"
    cases = {
        "must be a whole npz file": [lambda: path.write_bytes(whole[:-30])],
        "it must hold the array 'x' once": [lambda: np.savez(path, y=np.ones((DIM, 2)))],
        "must be floating, of shape": [
            lambda: np.savez(path, x=np.ones(DIM)),
            lambda: np.savez(path, x=np.ones((DIM, 2), int)),
        ],
        f"as wide as the other files, {DIM}, got {DIM + 1}": [
            lambda: np.savez(path, x=np.ones((DIM + 1, 2)))
        ],
        "finite and at most 65504": [
            lambda: np.savez(path, x=np.full((DIM, 2), np.nan)),
            lambda: np.savez(path, x=np.full((DIM, 2), 7e4)),
        ],
    }
    for message, damages in cases.items():
        for damage in damages:
            damage()
            for leftover in tmp_path.glob("all.hdf5.part*"):
                leftover.unlink()
            with pytest.raises(ValueError, match=message) as error:
                convert_quietly(folder, output)
            assert path.name in str(error.value) and not output.exists()


def test_a_damaged_archive_can_be_replaced_and_the_run_resumed(folder, tmp_path):
    path = sorted(folder.glob("*/*.npz"))[-1]
    whole, output = path.read_bytes(), tmp_path / "all.hdf5"
    with np.load(path) as archive:
        np.savez(path, x=np.full_like(archive["x"], np.inf))
    with pytest.raises(ValueError, match=path.name):
        convert_quietly(folder, output, batch_size=3)
    assert json.loads(output.with_name("all.hdf5.part.json").read_text())
    path.write_bytes(whole)
    convert_quietly(folder, output, batch_size=3)
    source = NpzFeatures(folder, regions=7)
    np.testing.assert_array_equal(
        HDF5Features(output, regions=7)[source.image_ids],
        source[source.image_ids].astype(np.float16),
    )


@pytest.mark.parametrize("change", ["rename", "exchange"])
def test_a_run_is_not_resumed_with_other_archives(folder, tmp_path, change):
    first, second, *_, last = sorted(folder.glob("*/*.npz"), key=lambda path: path.name[-20:])
    for path, count in ((first, 2), (second, 3)):
        np.savez(path, x=np.ones((DIM, count)))
    np.savez(last, x=np.full((DIM, 2), np.nan))
    output = tmp_path / "all.hdf5"
    with pytest.raises(ValueError, match=last.name):
        convert_quietly(folder, output, batch_size=1)
    np.savez(last, x=np.ones((DIM, 2)))
    # There stay as many images and regions, but not each in the place that it has in the file.
    if change == "rename":
        first.rename(first.with_name("COCO_train2014_000000000999.jpg.npz"))
    else:
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)
    with pytest.raises(ValueError, match=r"all\.hdf5\.part\.json was made with the settings"):
        convert_quietly(folder, output, batch_size=1)


def test_a_folder_without_archives_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"ends in .npz in {tmp_path}"):
        convert_quietly(tmp_path, tmp_path / "all.hdf5")
