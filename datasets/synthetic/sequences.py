"""Aligned sequences of text, audio and video whose answer is known: do two agree when it counts?

At every step the audio and the video each have a sign, and the text has a word, a number, and a
mark, which one step of a sequence has. What is to be told happens at the marked step tau alone:

    y = audio sign x video sign + 0.5 word + noise      each at tau

So no modality tells whether the two signs agree, the text tells when to look, and it has a part of
its own to tell. Signs are +1 or -1 with even chances, words are standard normal, and tau is any
step alike. A stream is a fixed orthogonal mixture of these and of distracting normal numbers.
"""

from collections.abc import Sequence

import numpy as np
from torch.utils.data import DataLoader

from ..loaders import Part, make_loaders

WIDTHS = {"text": 4, "audio": 3, "video": 3}
MODALITIES = tuple(WIDTHS)
WORD = 0.5  # share of the word in what is to be told


def draw(count: int, *, steps: int, noise: float, seed: int) -> Part:
    """Returns `count` sequences, and what is to be told of them.

    Args:
        count: sequences.
        steps: of each.
        noise: deviation of the noise in y.
        seed: decides all of them.

    Returns:
        The views, (count, steps, width) float32 of each of `MODALITIES`; and y, (count, 1).
    """
    rng = np.random.default_rng(seed)
    marks = np.zeros((count, steps))
    marks[np.arange(count), rng.integers(steps, size=count)] = 1
    words = rng.normal(size=(count, steps))
    signs = rng.choice([-1.0, 1.0], size=(2, count, steps))
    told = (marks * (signs.prod(0) + WORD * words)).sum(1) + noise * rng.normal(size=count)
    sources = {"text": [marks, words], "audio": [signs[0]], "video": [signs[1]]}
    views = []
    for name, width in WIDTHS.items():
        distracting = rng.normal(size=(count, steps, width - len(sources[name])))
        stream = np.concatenate([np.stack(sources[name], -1), distracting], -1)
        views.append((stream @ mixture(name)).astype(np.float32))
    return views, told[:, None].astype(np.float32)


def mixture(name: str) -> np.ndarray:
    """Returns the orthogonal matrix that mixes the numbers of a modality's step."""
    rng = np.random.default_rng(MODALITIES.index(name))
    return np.linalg.qr(rng.normal(size=2 * [WIDTHS[name]]))[0]


def bayes(views: Sequence[np.ndarray], modalities: Sequence[str] = MODALITIES) -> np.ndarray:
    """Returns the best prediction of y, (count, 1), its mean given the views of these modalities.

    Args:
        views: (count, steps, width) of each of the modalities.
        modalities: their names.
    """
    known = {name: x @ mixture(name).T for name, x in zip(modalities, views, strict=True)}
    count, steps = views[0].shape[:2]
    marks = known["text"][..., 0] if "text" in known else np.full((count, steps), 1 / steps)
    told = np.zeros((count, steps))
    if "text" in known:
        told += WORD * known["text"][..., 1]
    if known.keys() >= {"audio", "video"}:
        told += known["audio"][..., 0] * known["video"][..., 0]
    return (marks * told).sum(1, keepdims=True)


def bayes_mse(modalities: Sequence[str] = MODALITIES, *, steps: int, noise: float) -> float:
    """Returns the mean squared error of `bayes`, which no predictor can go below.

    The noise remains; without text, the word does, and of the agreement, which has variance 1,
    the mean over the steps is all that is known; without audio or video nothing of it is.
    """
    text = "text" in modalities
    agreement = (1 if text else 1 / steps) if {"audio", "video"} <= {*modalities} else 0
    return noise**2 + (0 if text else WORD**2) + 1 - agreement


def get_dataloader(
    *,
    sizes: Sequence[int] = (4000, 1000, 2000),
    steps: int = 8,
    noise: float = 0.3,
    seed: int = 0,
    modalities: Sequence[str] = MODALITIES,
    batch_size: int | None = 100,
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Returns the loaders of (train, valid, test); a batch is the sequences and y.

    Args:
        sizes: sequences of train, valid and test.
        steps: of each sequence.
        noise: deviation of the noise in y.
        seed: decides all sequences.
        modalities: names out of `MODALITIES`, in the order wanted.
        batch_size: sequences a batch; None puts a whole part into one.

    Raises:
        ValueError: for a modality that there is none of, or sizes that make no sense.
    """
    unknown = [name for name in modalities if name not in WIDTHS]
    if unknown or not modalities:
        raise ValueError(f"modalities must be some of {list(WIDTHS)}, got {list(modalities)}")
    if len(sizes) != 3 or min(*sizes, steps) < 1 or not noise >= 0:
        raise ValueError(
            "sizes must be three numbers from 1 up, steps one, and noise 0 or more, got "
            f"sizes={list(sizes)}, steps={steps}, noise={noise}"
        )
    views, told = draw(sum(sizes), steps=steps, noise=noise, seed=seed)
    views = [views[MODALITIES.index(name)] for name in modalities]
    ends = np.cumsum(sizes)[:-1]
    cut = zip(*(np.split(array, ends) for array in (*views, told)), strict=True)
    return make_loaders([(part[:-1], part[-1]) for part in cut], batch_size=batch_size)
