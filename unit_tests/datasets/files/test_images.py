"""Pictures: the middle of the right size, as torch's own antialiased scaling makes it, and a cache
that an interruption does not undo."""

import numpy as np
import pytest
import torch

from datasets.files.images import cache_images, read_image

Image = pytest.importorskip("PIL.Image")


def random_picture(path, high, wide, *, mode="RGB"):
    rng = np.random.default_rng(high * wide)
    pixels = rng.integers(0, 256, (high, wide, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return pixels


@pytest.mark.parametrize(("high", "wide", "size"), [(40, 60, 16), (61, 30, 30), (20, 31, 50)])
def test_the_short_side_is_scaled_and_the_middle_kept(tmp_path, high, wide, size):
    pixels = random_picture(tmp_path / "a.png", high, wide)
    short = min(high, wide)
    scaled = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).movedim(2, 0)[None].float(),
        (high * size // short, wide * size // short),
        mode="bilinear",
        antialias=True,
    )[0].numpy()
    top, left = (scaled.shape[1] - size) // 2, (scaled.shape[2] - size) // 2
    expected = scaled[:, top : top + size, left : left + size]
    found = read_image(tmp_path / "a.png", size)
    assert found.shape == (3, size, size) and found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert np.abs(found - expected).max() <= 1.01  # Pillow rounds after each direction


def test_a_picture_of_that_size_is_taken_as_it_is(tmp_path):
    pixels = random_picture(tmp_path / "a.png", 12, 12)
    np.testing.assert_array_equal(
        read_image(str(tmp_path / "a.png"), 12), pixels.transpose(2, 0, 1)
    )


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "1", "LA"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    random_picture(path, 10, 20, mode=mode)
    with Image.open(path) as image:
        assert image.mode == mode
        expected = np.asarray(image.convert("RGB"))[:, 5:15].transpose(2, 0, 1)
    np.testing.assert_array_equal(read_image(path, 10), expected)


def test_a_transparent_palette_is_no_warning(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).convert("P").save(
        tmp_path / "a.png", transparency=bytes([0, 128])
    )
    assert read_image(tmp_path / "a.png", 8).shape == (3, 8, 8)


def test_a_long_strip_is_cut_to_its_middle(tmp_path):
    pixels = random_picture(tmp_path / "a.png", 1, 400)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 1)[:, 0, 0], pixels[0, 199])


@pytest.mark.parametrize("content", [b"", b"no picture", "cut"])
def test_an_unreadable_picture_is_named(tmp_path, content):
    path = tmp_path / "a.jpeg"
    if content == "cut":
        random_picture(path, 100, 100)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.raises(ValueError, match="a.jpeg must be a whole JPEG, PNG or the like, but .*get"):
        read_image(path, 10)


def test_a_missing_picture_and_a_wrong_size_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no picture .*b.png; get the data again"):
        read_image(tmp_path / "b.png", 10)
    with pytest.raises(ValueError, match="size must be at least 1 pixel, got 0"):
        read_image(tmp_path / "b.png", 0)


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(70)]  # more than one batch
    for number, path in enumerate(paths):
        random_picture(path, 10 + number % 3, 12)
    return paths


def test_the_cache_holds_the_pictures_in_their_order(tmp_path, pictures):
    rows = cache_images(tmp_path / "cache.hdf5", pictures, size=8, progress=False)
    assert rows.shape == (70, 3, 8, 8) and rows.dtype == np.uint8
    chosen = [69, 0, 3, 3]
    expected = np.stack([read_image(pictures[number], 8) for number in chosen])
    np.testing.assert_array_equal(rows[chosen], expected)


def test_the_cache_is_made_once(tmp_path, pictures):
    cache_images(tmp_path / "cache.hdf5", pictures, size=8, progress=False)
    for path in pictures:
        path.unlink()
    assert len(cache_images(tmp_path / "cache.hdf5", pictures, size=8, progress=False)) == 70


def test_the_cache_of_other_pictures_is_refused(tmp_path, pictures):
    cache_images(tmp_path / "cache.hdf5", pictures, size=8, progress=False)
    for other, size in ((pictures, 9), (pictures[1:], 8), (pictures[::-1], 8)):
        with pytest.raises(ValueError, match="cache.hdf5 was made with the settings"):
            cache_images(tmp_path / "cache.hdf5", other, size=size, progress=False)


def test_an_unreadable_picture_leaves_the_rest_of_the_cache(tmp_path, pictures):
    whole = pictures[66].read_bytes()
    pictures[66].write_bytes(b"")
    with pytest.raises(ValueError, match="66.png must be a whole"):
        cache_images(tmp_path / "cache.hdf5", pictures, size=8, progress=False)
    assert not (tmp_path / "cache.hdf5").exists()
    pictures[66].write_bytes(whole)
    pictures[0].write_bytes(b"")  # is there already
    rows = cache_images(tmp_path / "cache.hdf5", pictures, size=8, progress=False)
    np.testing.assert_array_equal(rows[[66]][0], read_image(pictures[66], 8))
    assert rows[[0]].any()
