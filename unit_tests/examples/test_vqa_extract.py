"""Grid features of plain images: what a cell holds, resuming, and the loader that reads them."""

import numpy as np
import pytest
import torch

from deq_fusion.datasets.vqa.features import HDF5Features
from deq_fusion.datasets.vqa.get_data import get_dataloader
from deq_fusion.examples.vqa import extract_features
from deq_fusion.examples.vqa.extract_features import main, network_grid, patches
from unit_tests.real_data import real

Image = pytest.importorskip("PIL.Image", reason="pictures are written with Pillow")


@pytest.fixture
def pictures(tmp_path):
    """Seven pictures; that of image i is grey, of brightness 10 i, but for a white left half."""
    folder = tmp_path / "images"
    (folder / "val").mkdir(parents=True)
    for image in (1, 2, 30, 4, 5, 17, 0):
        pixels = np.full((40, 40, 3), 10 * min(image, 25), np.uint8)
        pixels[:, :20] = 255
        name = f"COCO_val2014_{image:012d}.png" if image > 4 else f"{image}.png"
        Image.fromarray(pixels).save(folder / ("val" if image > 4 else ".") / name)
    return folder


def run(folder, output, *options):
    main(["--images", str(folder), "--output", str(output), *map(str, options)])
    return HDF5Features(output)


def test_a_patch_is_its_pixels_mean_deviation_and_place():
    images = torch.randint(256, (2, 3, 24, 24), dtype=torch.uint8)
    got = patches(images, 3)
    assert got.shape == (2, 9, 200) and got.dtype == torch.float32
    for cell in range(9):
        row, column = divmod(cell, 3)
        piece = images[1, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].double()
        piece = ((piece + 1) / 256).reshape(3, 64)
        deviation = (piece - piece.mean(dim=1, keepdim=True)).pow(2).mean(dim=1).sqrt()
        place = torch.tensor([(row + 1) / 3, (column + 1) / 3])
        expected = torch.cat([piece.flatten(), piece.mean(dim=1), deviation, place])
        torch.testing.assert_close(got[1, cell], expected.float())


def test_a_black_patch_is_no_padding():
    assert (patches(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), 2)[..., :192] > 0).all()


def test_every_picture_is_found_and_described(pictures, tmp_path):
    features = run(pictures, tmp_path / "a.hdf5", "--patches", "--grid", 2)
    assert features.image_ids.tolist() == [0, 1, 2, 4, 5, 17, 30]
    assert (features.regions, features.dim) == (4, 200)
    for image in (0, 1, 2, 4, 5, 17):
        left, right = features[[image]][0, :2, 192:195]  # the mean colours
        np.testing.assert_allclose(right, (10 * image + 1) / 256, atol=0.02)  # edges blur
        np.testing.assert_allclose(left, 1, atol=0.02)


def test_a_stopped_run_goes_on_where_it_ended(pictures, tmp_path, monkeypatch):
    expected = run(pictures, tmp_path / "whole.hdf5", "--patches")
    read, paths = extract_features.read_image, []

    def stopping(path, size):
        if len(paths) == 6:  # one of them to learn the shape
            raise KeyboardInterrupt
        paths.append(path)
        return read(path, size)

    monkeypatch.setattr(extract_features, "read_image", stopping)
    options = "--patches", "--batch-size", 2
    with pytest.raises(KeyboardInterrupt):
        run(pictures, tmp_path / "a.hdf5", *options)
    assert not (tmp_path / "a.hdf5").exists()
    paths.clear()
    resumed = run(pictures, tmp_path / "a.hdf5", *options)
    assert len(paths) == 3
    ids = expected.image_ids
    np.testing.assert_array_equal(resumed[ids], expected[ids])


def test_other_settings_are_refused(pictures, tmp_path):
    run(pictures, tmp_path / "a.hdf5", "--patches")
    with pytest.raises(SystemExit, match="a.hdf5 was made with"):
        run(pictures, tmp_path / "a.hdf5", "--patches", "--grid", 3)


def test_a_run_is_not_resumed_with_other_pictures(pictures, tmp_path):
    last = pictures / "val" / "COCO_val2014_000000000017.png"
    whole = last.read_bytes()
    last.write_bytes(b"")
    options = "--patches", "--batch-size", 1
    with pytest.raises(SystemExit, match=last.name):
        run(pictures, tmp_path / "a.hdf5", *options)
    last.write_bytes(whole)
    (pictures / "1.png").rename(pictures / "99.png")  # as many, each in another's place
    with pytest.raises(SystemExit, match="a.hdf5.part.json was made with"):
        run(pictures, tmp_path / "a.hdf5", *options)
    (pictures / "99.png").rename(pictures / "1.png")
    assert len(run(pictures, tmp_path / "a.hdf5", *options)) == 7


def test_a_random_network_is_taken_only_if_asked_for(pictures, tmp_path, capsys):
    pytest.importorskip("transformers")
    with pytest.raises(SystemExit):
        run(pictures, tmp_path / "a.hdf5")
    assert "one of the arguments --patches --weights --random" in capsys.readouterr().err
    options = "--random", "--size", 64, "--grid", 2
    one, other = (run(pictures, tmp_path / f"{k}.hdf5", *options, "--seed", k) for k in (0, 1))
    again = run(pictures, tmp_path / "again.hdf5", *options, "--batch-size", 3)
    assert one.regions == 4
    ids = one.image_ids
    np.testing.assert_allclose(one[ids], again[ids], rtol=1e-2, atol=1e-3)
    assert (one[ids] != other[ids]).any()


def test_local_weights_give_the_features_of_that_network(pictures, tmp_path):
    pytest.importorskip("transformers")
    from deq_fusion.unimodals.pretrained import ResNetEncoder

    encoder = ResNetEncoder(widths=(8, 8, 16, 16)).eval()
    encoder.model.save_pretrained(tmp_path / "weights")
    options = "--weights", tmp_path / "weights", "--size", 64, "--grid", 2
    features = run(pictures, tmp_path / "a.hdf5", *options)
    image = extract_features.read_image(pictures / "2.png", 64)
    with torch.no_grad():
        expected = encoder.grid(torch.from_numpy(image)[None])[0]  # (2 * 2, dim): 64 / 32 a side
    np.testing.assert_allclose(features[[2]][0], expected, rtol=1e-2, atol=1e-3)


def test_a_missing_folder_of_weights_is_named(pictures, tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(SystemExit, match="none must hold config.json"):
        run(pictures, tmp_path / "a.hdf5", "--weights", tmp_path / "none")


def test_a_feature_map_is_averaged_to_the_grid():
    class Counting:
        def grid(self, images):
            return torch.arange(16.0).view(1, 16, 1)

    got = network_grid(Counting(), torch.zeros(1, 3, 4, 4), 2).flatten()
    assert got.tolist() == [2.5, 4.5, 10.5, 12.5]  # (0 + 1 + 4 + 5) / 4, ...


def test_a_damaged_picture_is_named(pictures, tmp_path):
    path = pictures / "4.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(SystemExit, match="4.png"):
        run(pictures, tmp_path / "a.hdf5", "--patches")
    assert not (tmp_path / "a.hdf5").exists()
    with pytest.raises(SystemExit, match="no file that ends in .jpg"):
        run(tmp_path / "none", tmp_path / "b.hdf5", "--patches")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* can only be answered wrong:UserWarning")
def test_the_real_daquar_with_its_pictures(tmp_path):
    source = real("vqa/daquar")
    (tmp_path / "some").mkdir()
    for image in (1, 2, 3):
        (tmp_path / "some" / f"{image}.jpg").symlink_to(source / "images" / f"{image}.jpg")
    features = run(tmp_path / "some", tmp_path / "some.hdf5", "--patches")
    assert (features.regions, features.dim) == (49, 200) and features[[1, 2, 3]].std() > 0.1
    with pytest.raises(ValueError, match="some.hdf5 must hold every image"):
        get_dataloader(source, features=tmp_path / "some.hdf5")
