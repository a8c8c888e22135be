"""Kinds of sets whose sources are numbers: class 1 where a function of them, plus noise, exceeds 0.

The noise is normal, so that the Bayes rule is one value of the normal distribution function. Its
score is a closed form, or an integral in one dimension; each kind says which.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr

STEP = 1 / 32
GRID = np.arange(-42.0, 4.0, STEP)  # of the logarithm of a normal number's size


@dataclass(frozen=True)
class Numbers(ABC):
    """A kind whose sources are numbers.

    Attributes:
        modalities: how many there are.
        noise: deviation of the noise, 0 or more.
    """

    modalities: int
    noise: float

    @property
    def owners(self) -> tuple[int, ...]:
        """For each source, the number of the modality that has it."""
        return tuple(range(self.modalities))

    def sources(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Returns the sources of `count` samples, (count, sources): standard normal."""
        return rng.normal(size=(count, len(self.owners)))

    @abstractmethod
    def value(self, sources: np.ndarray) -> np.ndarray:
        """Returns what the noise is added to, (count,)."""

    @abstractmethod
    def best(self) -> float:
        """Returns the score of the Bayes rule by all modalities."""

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Returns the sources of `count` samples, (count, k), and their classes, (count,)."""
        sources = self.sources(count, rng)
        told = self.value(sources) + self.noise * rng.normal(size=count)
        return sources, (told > 0).astype(np.int64)

    def posterior(self, seen: np.ndarray, modalities: Sequence[int]) -> np.ndarray:
        """Returns the probability of class 1, (n,), given the sources of these modalities.

        Without all sources it is 1/2, as their distribution is symmetric in each.

        Args:
            seen: (n, k) sources of theirs, in the order of `owners`.
            modalities: their numbers.
        """
        if not {*self.owners} <= {*modalities}:
            return np.full(len(seen), 0.5)
        return exceeds(self.value(seen), self.noise)

    def accuracy(self, modalities: Sequence[int]) -> float:
        """Returns the share that the best rule gets right by these modalities."""
        return self.best() if {*self.owners} <= {*modalities} else 0.5


def exceeds(value: np.ndarray, deviation: float) -> np.ndarray:
    """Returns the probability that value plus normal noise is positive, elementwise."""
    return ndtr(value / deviation) if deviation else (1 + np.sign(value)) / 2


@dataclass(frozen=True)
class Additive(Numbers):
    """The sum of a standard normal number of each modality, scaled to variance 1.

    With k of M modalities, the rest of the scaled sum and the noise are normal, of variance
    (M - k) / M + noise^2. For a normal S and an independent normal rest, S and S + rest have the
    same sign with probability 1/2 + atan(deviation of S / deviation of the rest) / pi: exact.
    """

    def value(self, sources: np.ndarray) -> np.ndarray:
        return sources.sum(axis=1) / self.modalities**0.5

    def posterior(self, seen: np.ndarray, modalities: Sequence[int]) -> np.ndarray:
        return exceeds(self.value(seen), self._rest(len(modalities)))

    def best(self) -> float:
        return self.accuracy(range(self.modalities))

    def accuracy(self, modalities: Sequence[int]) -> float:
        known = len(modalities) / self.modalities
        return float(0.5 + np.arctan2(known**0.5, self._rest(len(modalities))) / np.pi)

    def _rest(self, known: int) -> float:
        """Returns the deviation of what so many modalities leave unknown."""
        return float(np.hypot((1 - known / self.modalities) ** 0.5, self.noise))


@dataclass(frozen=True)
class Product(Numbers):
    """The product of `order` standard normal numbers, dealt to the modalities in turn.

    Given the size r of the product of all but one, the best rule is right with probability
    1/2 + atan(r / noise) / pi, as in `Additive`. The logarithm of r has for density that of one
    normal number's size, order - 1 times folded with itself: sums over a grid, the trapezoidal
    rule, which for smooth functions that vanish at both ends is exact to rounding.
    """

    order: int

    @property
    def owners(self) -> tuple[int, ...]:
        return tuple(place % self.modalities for place in range(self.order))

    def value(self, sources: np.ndarray) -> np.ndarray:
        return sources.prod(axis=1)

    def best(self) -> float:
        one = (2 / np.pi) ** 0.5 * np.exp(GRID - np.exp(2 * GRID) / 2)
        density, start = one, GRID[0]
        for _ in range(self.order - 2):
            density, start = STEP * np.convolve(density, one), start + GRID[0]
        size = np.exp(start + STEP * np.arange(len(density)))
        right = 0.5 + np.arctan2(size, self.noise) / np.pi
        return float(STEP * (density * right).sum())


@dataclass(frozen=True)
class Steep(Numbers):
    """The sine of pi x frequency x the sum of a number of each modality, each even in [-1, 1].

    The phase is even on the circle, whatever all modalities but one say, as the frequency is
    whole: without one of them nothing is known. The score is the mean over phases of
    Phi(|sine| / noise), an integral that adaptive quadrature takes.
    """

    frequency: int

    def sources(self, count: int, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(-1, 1, size=(count, self.modalities))

    def value(self, sources: np.ndarray) -> np.ndarray:
        return np.sin(np.pi * self.frequency * sources.sum(axis=1))

    def best(self) -> float:
        if not self.noise:
            return 1.0
        near = min(self.noise, 1.0)  # where the integrand turns
        total = quad(lambda phase: ndtr(np.sin(phase) / self.noise), 0, np.pi / 2, points=[near])
        return float(total[0] * 2 / np.pi)
