"""Kinds of sets whose sources are signs, +1 or -1: all that can be seen is counted out.

A kind has hidden signs, each +1 or -1 with even chances, a label that is a function of them, and
what the modalities show of them: signs that are seen wrongly with known chances. So the joint
distribution of label and seen signs is a finite table, and the Bayes rule and its score, for all
modalities or some, are sums over it: exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np


@dataclass(frozen=True)
class Signs:
    """A kind whose sources are signs.

    Attributes:
        hidden: number of the hidden signs.
        label: (n, hidden) -> (n,) sign of the label, +1 for class 1.
        shown: (n, hidden) -> (n, seen) signs, before any is seen wrongly.
        wrong: for each seen sign, the probability that it is seen wrongly, in [0, 1/2).
        owners: for each seen sign, the number of the modality that shows it.
    """

    hidden: int
    label: Callable[[np.ndarray], np.ndarray]
    shown: Callable[[np.ndarray], np.ndarray]
    wrong: tuple[float, ...]
    owners: tuple[int, ...]

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Returns the seen signs of `count` samples, (count, seen), and their classes, (count,)."""
        hidden = rng.choice([-1.0, 1.0], size=(count, self.hidden))
        kept = np.where(rng.random((count, len(self.owners))) < self.wrong, -1.0, 1.0)
        return self.shown(hidden) * kept, (self.label(hidden) > 0).astype(np.int64)

    def posterior(self, seen: np.ndarray, modalities: Sequence[int]) -> np.ndarray:
        """Returns the probability of class 1, (n,), given what these modalities show.

        Args:
            seen: (n, k) signs of theirs, in the order of `owners`.
            modalities: their numbers.
        """
        table = self._table(modalities)
        total = table.sum(0)
        chances = np.divide(table[1], total, out=np.full_like(total, 0.5), where=total > 0)
        return chances[_numbered(seen)]

    def accuracy(self, modalities: Sequence[int]) -> float:
        """Returns the share that the best rule gets right by these modalities: exact."""
        return float(self._table(modalities).max(0).sum())

    def _table(self, modalities: Sequence[int]) -> np.ndarray:
        """Returns the joint probabilities of class and seen signs of the modalities, (2, 2^k)."""
        kept = [owner in modalities for owner in self.owners]
        joint = self._joint.reshape(2, *[2] * len(kept))
        left_out = tuple(place for place, keep in enumerate(kept, start=1) if not keep)
        return joint.sum(axis=left_out).reshape(2, -1)

    @cached_property
    def _joint(self) -> np.ndarray:
        """P(class, seen signs), (2, 2^seen): the sum over all that may be hidden."""
        hidden = states(self.hidden)
        shown, positive = self.shown(hidden), self.label(hidden) > 0
        chances = np.ones((len(hidden), 1))
        for place, wrong in enumerate(self.wrong):
            right = np.where(shown[:, place, None] > 0, [wrong, 1 - wrong], [1 - wrong, wrong])
            chances = (chances[:, :, None] * right[:, None, :]).reshape(len(hidden), -1)
        return np.stack([chances[~positive].sum(0), chances[positive].sum(0)]) / len(hidden)


def states(count: int) -> np.ndarray:
    """Returns all combinations of so many signs, (2^count, count), -1 before +1."""
    return np.array(list(product([-1.0, 1.0], repeat=count))).reshape(-1, count)


def _numbered(signs: np.ndarray) -> np.ndarray:
    """Returns the numbers that the signs of rows write in binary, the first one leading, (n,)."""
    return (signs > 0) @ (2 ** np.arange(signs.shape[1], dtype=np.intp)[::-1])


def first(hidden: np.ndarray) -> np.ndarray:
    """The first hidden sign, (n,)."""
    return hidden[:, 0]


def redundant(modalities: int, noise: float) -> Signs:
    """Every modality shows the label, each wrongly with the same chance."""
    return Signs(
        1,
        first,
        lambda hidden: hidden.repeat(modalities, axis=1),
        (noise,) * modalities,
        tuple(range(modalities)),
    )


def unique(noise: float) -> Signs:
    """The first modality alone shows the label."""
    return Signs(1, first, lambda hidden: hidden, (noise,), (0,))


def silent() -> Signs:
    """The label is a coin, of which no modality shows anything."""
    return Signs(1, first, lambda hidden: hidden[:, :0], (), ())


def parity(modalities: int, order: int, noise: float) -> Signs:
    """The label is the product of `order` signs, which are dealt to the modalities in turn."""
    return Signs(
        order,
        lambda hidden: hidden.prod(axis=1),
        lambda hidden: hidden,
        (noise,) * order,
        tuple(place % modalities for place in range(order)),
    )


def gated(modalities: int, noise: float) -> Signs:
    """The first modality says which part, a sign of one of the others, is the label.

    There are two parts in two or three modalities, and four, by two signs of the first one, in
    four or five; they are dealt to the others in turn.
    """
    gates = 1 if modalities < 4 else 2
    parts = 2**gates

    def label(hidden: np.ndarray) -> np.ndarray:
        chosen = gates + _numbered(hidden[:, :gates])
        return np.take_along_axis(hidden, chosen[:, None], axis=1)[:, 0]

    owners = (0,) * gates + tuple(1 + part % (modalities - 1) for part in range(parts))
    return Signs(gates + parts, label, lambda hidden: hidden, (noise,) * (gates + parts), owners)


def conflicting(modalities: int, noise: float) -> Signs:
    """Every modality shows the label, the later ones wrongly more and more often.

    The chance rises in even steps, from `noise` of the first modality towards 1/2, which is not
    reached. Where modalities contradict each other the best rule weighs them; with little noise
    it takes four of them to outvote the first.
    """
    steps = np.arange(modalities) / modalities
    wrong = tuple((noise + (0.5 - noise) * steps).tolist())
    return Signs(
        1, first, lambda hidden: hidden.repeat(modalities, axis=1), wrong, tuple(range(modalities))
    )


def exchanged(modalities: int, noise: float) -> Signs:
    """Every modality shows a label and a mark: that of the sample, or, unmarked, of another one.

    Each mark is there with even chances, and seen rightly.
    """

    def shown(hidden: np.ndarray) -> np.ndarray:
        marks, others = np.split(hidden[:, 1:], 2, axis=1)
        signs = np.where(marks > 0, hidden[:, :1], others)
        return np.stack([signs, marks], axis=2).reshape(len(hidden), -1)

    owners = tuple(number for number in range(modalities) for _ in range(2))
    return Signs(1 + 2 * modalities, first, shown, (noise, 0.0) * modalities, owners)
