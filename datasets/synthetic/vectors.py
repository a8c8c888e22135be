"""Two to five modalities whose structure is known, and so is the best possible accuracy.

Class 0 or 1 is told by sources, and each modality shows some of them. Its vector is a fixed
orthogonal mixture of its sources and of distracting standard normal numbers. The kinds:

- `redundant`: every modality shows the class.
- `unique`: the first one alone does.
- `additive`: a sum over the modalities is positive, of a number of each.
- `product`: a product of `order` numbers is positive, dealt to the modalities in turn.
- `parity`: so many signs, dealt in turn, have an even number of minuses.
- `gated`: the first modality says which part of the others is the class.
- `steep`: a sine of `frequency` half turns a unit, of the modalities' sum, is positive.
- `conflicting`: all show the class, the later ones wrongly more and more often.
- `exchanged`: each is of another sample half the time, and a mark in it says so.
- `noise`: nothing shows anything.

`noise` is for sources that are signs the probability that one is seen wrongly; of the kinds
`NUMERIC`, whose sources are numbers, the deviation of normal noise in what must be positive.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from ..loaders import check_part, make_loader
from . import signs
from .numbers import Additive, Numbers, Product, Steep
from .signs import Signs

MODALITIES = ("first", "second", "third", "fourth", "fifth")
ORDERS = range(2, 7)
KINDS: Mapping[str, Callable[["Structure"], Signs | Numbers]] = {
    "redundant": lambda s: signs.redundant(s.modalities, s.noise),
    "unique": lambda s: signs.unique(s.noise),
    "additive": lambda s: Additive(s.modalities, s.noise),
    "product": lambda s: Product(s.modalities, s.noise, s.known_order),
    "parity": lambda s: signs.parity(s.modalities, s.known_order, s.noise),
    "gated": lambda s: signs.gated(s.modalities, s.noise),
    "steep": lambda s: Steep(s.modalities, s.noise, s.frequency),
    "conflicting": lambda s: signs.conflicting(s.modalities, s.noise),
    "exchanged": lambda s: signs.exchanged(s.modalities, s.noise),
    "noise": lambda s: signs.silent(),
}
NUMERIC = ("additive", "product", "steep")
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Structure:
    """The structure that a set is drawn by, and the best that can be made of it.

    Attributes:
        kind: one of `KINDS`.
        modalities: how many, 2 to 5.
        order: of an interaction, 2 to 6; None: the number of modalities.
        noise: see the module; below 1/2 of signs.
        frequency: of `steep`, a whole number from 1 up.
        width: of each modality's vector.

    Raises:
        ValueError: for what makes no sense, or a width that cannot hold a modality's sources.
    """

    kind: str
    modalities: int = 2
    order: int | None = None
    noise: float = 0.05
    frequency: int = 2
    width: int = 8

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {list(KINDS)}, got {self.kind!r}")
        whole = {
            "modalities": (self.modalities, range(2, len(MODALITIES) + 1)),
            "order": (self.known_order, ORDERS),
        }
        for name, (value, known) in whole.items():
            if value not in known:
                raise ValueError(
                    f"{name} must be a whole number from {known[0]} to {known[-1]}, got {value}"
                )
        if not 0 <= self.noise < (np.inf if self.kind in NUMERIC else 0.5):
            below = "finite" if self.kind in NUMERIC else "below 0.5, a probability"
            raise ValueError(f"noise must be 0 or more and {below}, got {self.noise}")
        if self.frequency < 1 or self.frequency != int(self.frequency):
            raise ValueError(f"frequency must be a whole number from 1 up, got {self.frequency}")
        if self.width < (most := max(1, *map(len, self._places))):
            raise ValueError(f"width must be {most} or more for this set, got {self.width}")

    @property
    def known_order(self) -> int:
        """The order, where none is given that of all modalities."""
        return self.modalities if self.order is None else self.order

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the modalities."""
        return MODALITIES[: self.modalities]

    @property
    def rule(self) -> Signs | Numbers:
        """The kind itself, of which sources and classes are drawn."""
        return _rule(self)

    @property
    def _places(self) -> list[list[int]]:
        """For each modality, the numbers of its sources."""
        owners = self.rule.owners
        return [[i for i, o in enumerate(owners) if o == m] for m in range(self.modalities)]

    def draw(self, count: int, *, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Returns the views, (count, width) float32 each, and the classes, (count,) int64.

        Args:
            count: samples.
            seed: decides all of them.
        """
        rng = np.random.default_rng(seed)
        sources, classes = self.rule.draw(count, rng)
        views = []
        for number, places in enumerate(self._places):
            distracting = rng.normal(size=(count, self.width - len(places)))
            whole = np.concatenate([sources[:, places], distracting], axis=1)
            views.append((whole @ mixture(number, self.width)).astype(np.float32))
        return views, classes

    def posterior(
        self, views: Sequence[np.ndarray], modalities: Sequence[str] | None = None
    ) -> np.ndarray:
        """Returns the probability of class 1, (count,), given the views: the Bayes rule.

        Args:
            views: (count, width) of each of the modalities.
            modalities: their names, in any order; None: all.

        Raises:
            ValueError: for names that are not the set's.
        """
        numbers = self.numbers(modalities)
        seen = np.empty((len(views[0]), len(self.rule.owners)))
        for number, view in zip(numbers, views, strict=True):
            places = self._places[number]
            seen[:, places] = (view @ mixture(number, self.width).T)[:, : len(places)]
        kept = [place for place, owner in enumerate(self.rule.owners) if owner in numbers]
        return self.rule.posterior(seen[:, kept], numbers)

    def accuracy(self, modalities: Sequence[str] | None = None) -> float:
        """Returns the expected accuracy of the Bayes rule, which no predictor can go above.

        Args:
            modalities: names of those that it sees; None: all.

        Raises:
            ValueError: for names that are not the set's.
        """
        return self.rule.accuracy(self.numbers(modalities))

    def numbers(self, modalities: Sequence[str] | None) -> list[int]:
        """Returns the numbers of modalities, from 0, by their names; None: of all.

        Raises:
            ValueError: for names that are not the set's, or come twice.
        """
        names = self.names if modalities is None else modalities
        if not names or set(names) - set(self.names) or len(set(names)) < len(names):
            raise ValueError(
                f"modalities must be different names out of {list(self.names)}, got {list(names)}"
            )
        return [self.names.index(name) for name in names]


@lru_cache(maxsize=16)  # beside the structure, which is data: it is compared, and may be pickled
def _rule(structure: Structure) -> Signs | Numbers:
    return KINDS[structure.kind](structure)


def mixture(number: int, width: int) -> np.ndarray:
    """Returns the orthogonal matrix that mixes the numbers of a modality, (width, width)."""
    rng = np.random.default_rng([number, width])
    return np.linalg.qr(rng.normal(size=(width, width)))[0]


class Named(TensorDataset):
    """A part of a set, which knows the names of its modalities: a floor is not told them."""

    def __init__(self, modalities: Sequence[str], *tensors: torch.Tensor) -> None:
        super().__init__(*tensors)
        self.modalities = tuple(modalities)


def get_dataloader(
    structure: Structure,
    *,
    sizes: Sequence[int] = (2000, 500, 4000),
    mislabelled: float = 0.0,
    seed: int = 0,
    modalities: Sequence[str] | None = None,
    batch_size: int | None = 100,
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Returns the loaders of (train, valid, test); a batch is the views and the classes.

    Args:
        structure: what the set is drawn by.
        sizes: samples of train, valid and test.
        mislabelled: share of train's and valid's classes that are wrong, each drawn on its own.
            Those of test are right.
        seed: decides all samples.
        modalities: names, in the order wanted; None takes all.
        batch_size: samples a batch; None puts a whole part into one.

    Raises:
        ValueError: for names that are not the set's, or numbers that make no sense.
    """
    numbers = structure.numbers(modalities)
    if len(sizes) != 3 or min(sizes) < 1 or not 0 <= mislabelled <= 1:
        raise ValueError(
            "sizes must be three numbers from 1 up, and mislabelled a share in [0, 1], got "
            f"sizes={list(sizes)}, mislabelled={mislabelled}"
        )
    views, classes = structure.draw(sum(sizes), seed=seed)
    wrong = np.random.default_rng([seed, 1]).random(len(classes)) < mislabelled
    wrong[-sizes[2] :] = False
    arrays = [*(views[number] for number in numbers), np.where(wrong, 1 - classes, classes)]
    names = [structure.names[number] for number in numbers]
    loaders = []
    rows = np.split(np.arange(len(classes)), np.cumsum(sizes)[:-1])
    for name, here in zip(PARTS, rows, strict=True):
        *part, truth = (array[here] for array in arrays)
        check_part((part, truth), name)
        dataset = Named(names, *map(torch.from_numpy, (*part, truth)))
        loaders.append(make_loader(dataset, batch_size=batch_size, shuffle=name == PARTS[0]))
    return loaders[0], loaders[1], loaders[2]
