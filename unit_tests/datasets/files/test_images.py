"""Pictures: the middle of the right size, as torch's own antialiased scaling makes it, and a cache
that an interruption does not undo."""

import os
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
import torch

from deq_fusion.datasets.files.images import cache_images, read_image

Image = pytest.importorskip("PIL.Image")
ImageOps = pytest.importorskip("PIL.ImageOps")


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
    pictures[0].unlink()  # is there already
    rows = cache_images(tmp_path / "cache.hdf5", pictures, size=8, progress=False)
    np.testing.assert_array_equal(rows[[66]][0], read_image(pictures[66], 8))
    assert rows[[0]].any()


def read_as_before(path, size):
    """The whole picture is scaled, then cut: what is published was read so."""
    with Image.open(path) as image:
        image = image.convert("RGBA") if "transparency" in image.info else image
        image = image.convert("RGB")
    wide, high = (side * size // min(image.size) for side in image.size)
    left, top = (wide - size) // 2, (high - size) // 2
    image = image.resize((wide, high), Image.Resampling.BILINEAR)
    return np.asarray(image.crop((left, top, left + size, top + size))).transpose(2, 0, 1)


@pytest.mark.parametrize("ending", ["jpeg", "png", "gif", "bmp", "tiff", "webp"])
@pytest.mark.parametrize(
    ("high", "wide", "size"), [(97, 61, 32), (640, 43, 64), (30, 300, 224), (64, 64, 64)]
)
def test_ordinary_pictures_are_read_as_ever(tmp_path, ending, high, wide, size):
    path = tmp_path / f"a.{ending}"
    random_picture(path, high, wide)
    np.testing.assert_array_equal(read_image(path, size), read_as_before(path, size))


def test_a_picture_that_would_take_gigabytes_is_cut_first(tmp_path):
    pixels = np.zeros((1, 65_000, 3), np.uint8)
    pixels[:, 32_490:32_510] = (200, 100, 50)  # the middle
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tracemalloc.start()
    found = read_image(tmp_path / "a.png", 224)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()
    assert (found == np.array([200, 100, 50])[:, None, None]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tiff", "webp", "jpeg"])
def test_a_turned_picture_is_read_upright(tmp_path, orientation, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = random_picture(tmp_path / "plain.png", 24, 40)
    options = {"lossless": True} if ending == "webp" else {}
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels).save(path, exif=exif, **options)
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert upright.shape[:2] == ((24, 40) if orientation < 5 else (40, 24))
    middle = upright[:, 8:32] if orientation < 5 else upright[8:32]
    np.testing.assert_array_equal(read_image(path, 24), middle.transpose(2, 0, 1))


RAMP = np.repeat(np.linspace(0, 1, 64)[:, None], 64, axis=1)


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_sixteen_bits_of_grey_are_a_ramp(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray((65535 * RAMP).astype(np.uint16)).save(path)
    found = read_image(path, 64)
    assert found[0, [0, 16, 32, 63], 32].tolist() == [0, 65, 130, 255]
    assert (found == found[:1]).all()


@pytest.mark.parametrize(
    ("array", "kind"),
    [(RAMP.astype(np.float32), "floating point"), ((65535 * RAMP).astype(np.int32), "32-bit int")],
)
def test_numbers_without_a_known_range_are_refused(tmp_path, array, kind):
    Image.fromarray(array).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=rf"a\.tif must be .* \({kind}.*no known black and white"):
        read_image(tmp_path / "a.tif", 64)


def test_grey_that_is_not_of_sixteen_bits_is_refused(tmp_path):
    image = Image.fromarray((65535 * RAMP).astype(np.uint16))
    image.save(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    photometric = content.index(struct.pack("<HHI", 262, 3, 1))
    (tmp_path / "a.tif").write_bytes(
        content[: photometric + 8] + b"\0" + content[photometric + 9 :]
    )
    with pytest.raises(ValueError, match=r"a\.tif must be"):  # white is 0
        read_image(tmp_path / "a.tif", 64)


def test_lab_and_ycbcr_are_read_right_or_refused(tmp_path):
    for mode, white in (("YCbCr", (255, 128, 128)), ("LAB", (255, 0, 0))):
        path = tmp_path / f"{mode}.tif"
        Image.frombytes(mode, (8, 8), bytes(white) * 64).save(path)
        try:
            assert read_image(path, 8).min() >= 250
        except ValueError as error:  # some versions of Pillow cannot, of either
            assert str(path) in str(error)


def test_of_an_animation_the_first_picture_is_read(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for ending in ("gif", "webp", "png", "tiff"):
        path = tmp_path / f"a.{ending}"
        options = {"lossless": True} if ending == "webp" else {}
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert read_image(path, 8)[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("ending", ["eps", "ps", "pdf", "ppm", "ico", "tga"])
def test_no_other_format_is_opened(tmp_path, ending, monkeypatch):
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
    path = tmp_path / f"a.{ending}"
    if ending in ("eps", "ps"):
        path.write_bytes(content)
    else:
        Image.new("RGB", (8, 8)).save(path)
    monkeypatch.setattr("subprocess.check_call", lambda *args, **kwargs: pytest.fail("it ran"))
    for name in (path, path.rename(tmp_path / "a.jpeg")):
        if name.exists():
            with pytest.raises(ValueError, match=r"a\.jpeg must be .* it is in no known format"):
                read_image(name, 8)


def test_size_is_bounded_before_it_is_decoded(tmp_path):
    Image.new("1", (8, 8)).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    for wide, high in ((16_385, 8_192), (60_000, 60_000), (2**31 - 1, 2**31 - 1)):
        content[16:24] = struct.pack(">II", wide, high)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.png must be a whole"):
            read_image(tmp_path / "a.png", 8)


@pytest.mark.parametrize("ending", ["jpeg", "png", "gif", "bmp", "tiff", "webp"])
def test_damaged_pictures_are_read_or_refused_by_name(tmp_path, ending):
    path, rng = tmp_path / f"a.{ending}", np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(path, exif=exif)
    content = path.read_bytes()
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, min(len(content), 600), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(len(content) // 2, 2 * len(content))])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert read_image(path, 8).shape == (3, 8, 8)
            except ValueError as error:
                assert str(path) in str(error)


def test_a_pipe_in_a_pictures_place_is_named(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png must be a file, but is a pipe"):
        read_image(tmp_path / "a.png", 8)


def test_a_cache_notices_pictures_that_changed(tmp_path, pictures):
    cache = tmp_path / "cache.hdf5"
    cache_images(cache, pictures, size=8, progress=False)
    old = pictures[5].read_bytes()
    later = cache.stat().st_mtime + 10
    for content, changed in ((old, False), (old[:-1] + b"x", True), (old + b"x", True)):
        pictures[5].write_bytes(content)
        os.utime(pictures[5], (later, later))
        if changed:
            with pytest.raises(ValueError, match=r"5\.png is not the picture .* it has changed"):
                cache_images(cache, pictures, size=8, progress=False)
        else:
            cache_images(cache, pictures, size=8, progress=False)


def test_a_damaged_cache_is_noticed(tmp_path, pictures):
    cache = tmp_path / "cache.hdf5"
    rows = cache_images(cache, pictures, size=8, progress=False)
    content = bytearray(cache.read_bytes())
    content[rows._offset + 3 * 8 * 8 * 40 + 7] ^= 4
    cache.write_bytes(content)
    with pytest.raises(ValueError, match="row 40 of images in .* is not what was written"):
        rows[[39, 40]]
