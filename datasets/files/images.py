"""Pictures of any size as arrays of one size, ready for a convolutional encoder."""

import hashlib
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .hdf5 import Rows, open_file, read_whole
from .hdf5_build import build_file
from .reading import check_file, read_bytes, shown

Picture = Any  # PIL.Image.Image, which is imported only where a picture is read
IMAGES, SOURCES = "images", "sources"  # the cache's datasets
READER = "2"  # of what made a cache; 1 knew neither rotation nor grey of 16 bits
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # of which none starts a program
PIXELS = 1 << 27  # of a picture
STRETCHED = 1 << 25  # pixels of a scaled picture, of which the middle is kept
ORIENTATION = 0x0112  # EXIF's tag: which way up the camera was held
DAMAGE = (  # what Pillow's readers raise of damaged files
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    AssertionError,
    Warning,  # where warnings are errors
)


def read_image(path: str | Path, size: int) -> np.ndarray:
    """Reads a picture as RGB, (3, size, size) uint8.

    It is turned upright, as its EXIF data say. The short side is scaled to `size` (bilinear,
    averaging over what a pixel covers when it shrinks), the middle of the long side is kept (of
    one so long that scaling it whole would take much memory, the middle is cut out first).
    Transparency is dropped; of an animation the first picture is taken; of 16 bits of grey, the
    higher 8 are.

    Args:
        path: a JPEG, PNG, GIF, BMP, TIFF or WebP file; no other format is opened.
        size: pixels a side.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read as a picture, has more than 2 ** 27 pixels, or numbers
            whose black and white are not known (floating point, 32 bits); or `size` is less than 1.
        ImportError: if Pillow is not installed.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}; try 224")
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError(
            "pictures are read with Pillow, which cannot be imported; install it with "
            "`pip install -e .[features]`"
        ) from error
    try:
        check_file(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no picture {os.fspath(path)}; get the data again") from error
    try:
        with Image.open(path, formats=FORMATS) as image:
            wide, high = image.size
            if wide * high > PIXELS:
                raise ValueError(f"it has {wide} x {high} pixels, {PIXELS:,} are the most")
            picture = _to_rgb(image)  # which loads it; a TIFF file is turned then
            image = _turn(picture, image.getexif().get(ORIENTATION, 1))
    except (*DAMAGE, Image.DecompressionBombError) as error:
        reason = shown(str(error) or type(error).__name__, 200)[1:-1]
        if isinstance(error, UnidentifiedImageError):
            reason = "it is in no known format"
        raise ValueError(
            f"{os.fspath(path)} must be a whole JPEG, PNG or the like, but {reason}; get it again"
        ) from error
    return _fit(image, size)


def _to_rgb(image: Picture) -> Picture:
    """Converts what has a known range to 8 bits a colour."""
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        tags = getattr(image, "tag_v2", {})  # of TIFF: bits, and whether 0 is black
        if tags and (tags.get(258), tags.get(262)) != ((16,), 1):
            raise ValueError("its grey has not 16 bits from black to white; save it as 8 bits")
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(
            f"its numbers ({'32-bit integers' if image.mode == 'I' else 'floating point'}) have no "
            "known black and white; save it as 8 or 16 bits of grey"
        )
    if "transparency" in image.info:  # Pillow warns if such a palette becomes RGB at once
        image = image.convert("RGBA")
    return image.convert("RGB")


def _turn(image: Picture, orientation: int) -> Picture:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _fit(image: Picture, size: int) -> np.ndarray:
    """Scales the short side, and cuts the middle out."""
    from PIL import Image

    short = min(image.size)
    if max(image.size) * size // short * size > STRETCHED:
        image = _cut(image, *(min(side, 2 * short) for side in image.size))
    wide, high = (side * size // short for side in image.size)
    image = image.resize((wide, high), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(_cut(image, size, size)).transpose(2, 0, 1))


def _cut(image: Picture, wide: int, high: int) -> Picture:
    """Returns the middle of a picture."""
    left, top = (image.width - wide) // 2, (image.height - high) // 2
    return image.crop((left, top, left + wide, top + high))


def cache_images(
    path: str | Path, pictures: Sequence[Path], *, size: int, progress: bool = True
) -> Rows:
    """Returns the pictures as rows of an HDF5 file, (pictures, 3, size, size) uint8.

    The file is made if it is not there, which goes on where an interruption left it. It takes
    3 * size * size bytes a picture, and is read a row at a time, not as a whole.

    Args:
        path: the HDF5 file.
        pictures: files for `read_image`. A cache knows them by their names and sizes, and those
            that are younger than the cache by their contents too; they may be gone.
        size: of the pictures, in pixels.
        progress: show a bar.

    Raises:
        FileNotFoundError: see `read_image`.
        ImportError: see `read_image`.
        ValueError: see `read_image`; or if the file holds other pictures, or one has changed since.
    """
    names = "\n".join(picture.name for picture in pictures)

    def create(file: h5py.File) -> None:
        file.create_dataset(IMAGES, (len(pictures), 3, size, size), dtype=np.uint8)
        file.create_dataset(SOURCES, (len(pictures), 2), dtype=np.int64)

    def fill(file: h5py.File, start: int, stop: int) -> None:
        batch = [read_image(picture, size) for picture in pictures[start:stop]]
        file[IMAGES][start:stop] = np.stack(batch)
        file[SOURCES][start:stop] = [_identify(picture) for picture in pictures[start:stop]]

    encoded = names.encode("utf-8", "surrogatepass")  # whatever they are
    build_file(
        path,
        len(pictures),
        create,
        fill,
        settings={
            "pictures": hashlib.sha256(encoded).hexdigest(),
            "size": str(size),
            "reader": READER,
        },
        progress=progress,
        desc="pictures",
    )
    _check_sources(Path(path), pictures)
    return Rows(path, IMAGES)


def _identify(picture: Path) -> tuple[int, int]:
    """Returns a file's size and CRC-32."""
    content = read_bytes(picture)
    return len(content), zlib.crc32(content)


def _check_sources(path: Path, pictures: Sequence[Path]) -> None:
    with open_file(path) as file:
        sources = read_whole(file, SOURCES)
    made = path.stat().st_mtime
    for picture, (size, crc) in zip(pictures, sources.tolist(), strict=True):
        try:
            there = picture.stat()
        except OSError:
            continue  # gone, or on a disk that is not there now
        changed = there.st_size != size
        if changed or (there.st_mtime > made and _identify(picture) != (size, crc)):
            raise ValueError(
                f"{picture} is not the picture that {path} holds: it has changed since; move "
                f"{path} away, to have it made again"
            )
