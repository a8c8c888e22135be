"""Pictures of any size as arrays of one size, ready for a convolutional encoder."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from .hdf5 import Rows
from .hdf5_build import build_file

IMAGES = "images"  # the cache's dataset


def read_image(path: str | Path, size: int) -> np.ndarray:
    """Reads a picture as RGB, (3, size, size) uint8.

    The short side is scaled to `size` (bilinear, averaging over what a pixel covers when it
    shrinks), the middle of the long side is kept. Transparency is dropped.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read as a picture, or `size` is less than 1.
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
        with Image.open(path) as image:
            if "transparency" in image.info:  # Pillow warns if such a palette becomes RGB at once
                image = image.convert("RGBA")
            image = image.convert("RGB")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no picture {os.fspath(path)}; get the data again") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "it is in no known format" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(
            f"{os.fspath(path)} must be a whole JPEG, PNG or the like, but {reason}; get it again"
        ) from error
    short = min(image.size)
    wide, high = (side * size // short for side in image.size)
    left, top = (wide - size) // 2, (high - size) // 2
    image = image.resize((wide, high), Image.Resampling.BILINEAR)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def cache_images(
    path: str | Path, pictures: Sequence[Path], *, size: int, progress: bool = True
) -> Rows:
    """Returns the pictures as rows of an HDF5 file, (pictures, 3, size, size) uint8.

    The file is made if it is not there, which goes on where an interruption left it. It takes
    3 * size * size bytes a picture, and is mapped into memory, not read as a whole.

    Args:
        path: the HDF5 file.
        pictures: files for `read_image`. A cache knows them by their names, not their contents.
        size: of the pictures, in pixels.
        progress: show a bar.

    Raises:
        FileNotFoundError, ValueError, ImportError: see `read_image`.
        ValueError: if the file holds other pictures.
    """
    names = "\n".join(picture.name for picture in pictures)

    def create(file: h5py.File) -> None:
        file.create_dataset(IMAGES, (len(pictures), 3, size, size), dtype=np.uint8)

    def fill(file: h5py.File, start: int, stop: int) -> None:
        batch = [read_image(picture, size) for picture in pictures[start:stop]]
        file[IMAGES][start:stop] = np.stack(batch)

    build_file(
        path,
        len(pictures),
        create,
        fill,
        settings={"pictures": hashlib.sha256(names.encode()).hexdigest(), "size": str(size)},
        progress=progress,
        desc="pictures",
    )
    return Rows(path, IMAGES)
