"""Noise for pictures: of their colours, their pixels and their place.

Names, arguments and defaults are MultiBench's (Liang et al., 2021). Its results differ where they
were wrong: a cropped picture keeps its size (there width and height are exchanged), salt is white
(there nearly black) and may fall on the last row and column, Gaussian noise has a share of the
range of grey levels for its deviation (there of one level) and is cut at black and white (there it
wraps around), both of these leave colours as they are, and draws come from a generator of their
own. Pillow is needed only when a picture is noised.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .drawing import Seed, check_level

Picture = Any  # PIL.Image.Image
KELVIN = range(1000, 10001, 500)  # colour temperatures of a light
ANGLE = 20  # degrees that a picture is rotated at most, either way
MARGIN = 5  # a crop leaves away a fifth of a side
LEVELS = 255


def add_visual_noise(
    tests: Iterable[Any],
    noise_level: float = 0.3,
    gray: bool = True,
    contrast: bool = True,
    inv: bool = True,
    temp: bool = True,
    color: bool = True,
    s_and_p: bool = True,
    gaus: bool = True,
    rot: bool = True,
    flip: bool = True,
    crop: bool = True,
    *,
    seed: Seed = None,
) -> list[np.ndarray]:
    """Returns pictures to which each change is made with a probability, one after the other.

    Args:
        tests: pictures, (height, width) or (height, width, 3), of grey levels from 0 to 255;
            they are left as they are.
        noise_level: the probability in [0, 1] of each change, and the strength of salt, pepper
            and Gaussian noise.
        gray: see `grayscale`.
        contrast: see `low_contrast`.
        inv: see `inversion`.
        temp: see `WB`.
        color: see `colorize`.
        s_and_p: see `salt_and_pepper`.
        gaus: see `gaussian`.
        rot: see `rotate`.
        flip: see `horizontal_flip`.
        crop: see `random_crop`.
        seed: a seed, a generator, or None, see `drawing.Seed`.

    Returns:
        As many pictures, each as large and of the same kind as it was.

    Raises:
        ValueError: for another level, or what is no picture.
        ImportError: if Pillow is not installed.
    """
    from PIL import Image

    level, generator = check_level(noise_level), np.random.default_rng(seed)
    kinds = {
        **{grayscale: gray, low_contrast: contrast, inversion: inv, WB: temp, colorize: color},
        **{salt_and_pepper: s_and_p, gaussian: gaus},
        **{rotate: rot, horizontal_flip: flip, random_crop: crop},
    }
    changes: list[Callable[..., Picture]] = [change for change, on in kinds.items() if on]
    noisy = []
    for test in tests:
        array = np.asarray(test)
        try:
            picture = Image.fromarray(array)
        except TypeError as error:
            raise ValueError(
                "a picture must be (height, width) or (height, width, 3) grey levels, got "
                f"{array.dtype} of shape {array.shape}"
            ) from error
        mode, picture = picture.mode, picture.convert("RGB")
        for change in changes:
            picture = change(picture, level, seed=generator)
        noisy.append(np.array(picture.convert(mode)))
    return noisy


def grayscale(img: Picture, p: float, *, seed: Seed = None) -> Picture:
    """Returns a picture without its colours, with probability p."""
    from PIL import ImageOps

    return ImageOps.grayscale(img) if _happens(p, seed) else img


def low_contrast(img: Picture, p: float, *, seed: Seed = None) -> Picture:
    """Returns a picture with half the contrast, with probability p."""
    from PIL import ImageEnhance

    return ImageEnhance.Contrast(img).enhance(0.5) if _happens(p, seed) else img


def inversion(img: Picture, p: float, *, seed: Seed = None) -> Picture:
    """Returns the negative of a picture, with probability p."""
    from PIL import ImageOps

    return ImageOps.invert(img) if _happens(p, seed) else img


def WB(img: Picture, p: float, *, seed: Seed = None) -> Picture:
    """Returns a picture in colours as under another light, with probability p.

    The light is a black body of 1,000 to 10,000 K, see `light`; a grey picture stays as it is.
    """
    generator = np.random.default_rng(seed)
    if not _happens(p, generator) or img.mode != "RGB":
        return img
    red, green, blue = light(KELVIN[generator.integers(len(KELVIN))])
    matrix = (red, 0.0, 0.0, 0.0, 0.0, green, 0.0, 0.0, 0.0, 0.0, blue, 0.0)
    return img.convert("RGB", matrix)


def light(kelvin: float) -> tuple[float, float, float]:
    """Returns the colour of a black body, (red, green, blue) in [0, 1].

    Helland's fit (2012) of Charity's table of CIE 1964 colours, from 1,000 to 40,000 K.
    """
    t = kelvin / 100
    if t <= 66:
        red, green = 255.0, 99.4708025861 * math.log(t) - 161.1195681661
    else:
        red = 329.698727446 * (t - 60) ** -0.1332047592
        green = 288.1221695283 * (t - 60) ** -0.0755148492
    blue = 255.0 if t >= 66 else 0.0
    if 19 < t < 66:
        blue = 138.5177312231 * math.log(t - 10) - 305.0447927307
    red, green, blue = (min(max(x, 0.0), 255.0) / 255 for x in (red, green, blue))
    return red, green, blue


def colorize(img: Picture, p: float, *, seed: Seed = None) -> Picture:
    """Returns a picture with a tint of red, blue or green, with probability p.

    The tint is 0.3 of it; a grey picture stays as it is.
    """
    from PIL import Image

    generator = np.random.default_rng(seed)
    if not _happens(p, generator) or img.mode != "RGB":
        return img
    colour = ("red", "blue", "green")[generator.integers(3)]
    return Image.blend(img, Image.new("RGB", img.size, colour), 0.3)


def salt_and_pepper(img: Picture, p: float, *, seed: Seed = None) -> Picture:
    """Returns a picture with white, then black pixels, with probability p.

    Each are ceil(p / 2 of the pixels), at places that may coincide.
    """
    from PIL import Image

    generator = np.random.default_rng(seed)
    if not _happens(p, generator):
        return img
    pixels = np.array(img)
    height, width = pixels.shape[:2]
    count = math.ceil(p * height * width / 2)
    for value in (LEVELS, 0):
        pixels[generator.integers(height, size=count), generator.integers(width, size=count)] = (
            value
        )
    return Image.fromarray(pixels)


def gaussian(img: Picture, p: float, *, seed: Seed = None) -> Picture:
    """Returns a picture with Gaussian noise of deviation 255 p, with probability p.

    It is the same in all colours of a pixel, and cut at black and white.
    """
    from PIL import Image

    generator = np.random.default_rng(seed)
    if not _happens(p, generator):
        return img
    pixels = np.array(img, dtype=float)
    noise = LEVELS * p * generator.standard_normal(pixels.shape[:2])
    noisy = pixels + noise.reshape(noise.shape + (1,) * (pixels.ndim - 2))
    return Image.fromarray(np.clip(np.rint(noisy), 0, LEVELS).astype(np.uint8))


def rotate(img: Picture, p: float, *, seed: Seed = None) -> Picture:
    """Returns a picture rotated by an angle drawn from [-20, 20] degrees, with probability p."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    if not _happens(p, generator):
        return img
    return img.rotate(generator.uniform(-ANGLE, ANGLE), Image.Resampling.BILINEAR)


def horizontal_flip(img: Picture, p: float, *, seed: Seed = None) -> Picture:
    """Returns the mirror image, left and right exchanged, with probability p."""
    from PIL import Image

    return img.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if _happens(p, seed) else img


def random_crop(img: Picture, p: float, *, seed: Seed = None) -> Picture:
    """Returns a part of a picture, four fifths of each side, at its size, with probability p."""
    generator = np.random.default_rng(seed)
    if not _happens(p, generator):
        return img
    width, height = img.size
    left, top = generator.random() * width / MARGIN, generator.random() * height / MARGIN
    right, bottom = left + width - width / MARGIN, top + height - height / MARGIN
    return img.crop((left, top, right, bottom)).resize((width, height))


def _happens(p: float, seed: Seed) -> bool:
    return bool(np.random.default_rng(seed).random() < check_level(p, "p"))
