"""Systems: published models with a network and a training of their own, compared whole.

A fusion is put into the network that a recipe builds. A system comes with its own: under the same
splits, selection and scores as the fusions, it is trained its own way.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeGuard

SHARED = "name", "modalities", "task", "metrics", "scores", "select", "part", "resplit"


@dataclass(frozen=True)
class About:
    """A method in words, for lists: a floor, whose function says no more.

    Attributes:
        summary: what it is, in a few words.
        source: author and year, or "classical".
        takes: what data it takes.
        cost: multiply-adds a sample, or words.
    """

    summary: str
    source: str
    takes: str
    cost: str


@dataclass(frozen=True)
class System:
    """A published model with a network and a training of its own, as a comparison meets it.

    Its model may have a method `without(modality)`, which gets the number of a modality and
    returns a context in which the model predicts as if that one's inputs had not come.

    Attributes:
        meet: the recipe of a benchmark -> the recipe as the system meets it, with all of `SHARED`
            as it was. Other fields may be its own, such as `build`, `objective`, `optimizer`,
            `scheduler`, `parameters`, `epochs`, `patience`, `train` and `search`. Its `build`
            makes nothing of the fusion. What it cannot take it refuses by a ValueError, with the
            reason; it reads no data. Its keyword-only parameters are options of the system: it
            is called with what the recipe's `fusion_options` have under the system's name.
        summary: what it is, in a few words.
        source: author and year.
        takes: what data it takes, in words.
        cost: multiply-adds a sample, or words.
        modalities: least and most number of them; no bound if most is None.
        needs: the modalities that prediction needs; None: all of them.
    """

    meet: Callable[..., Any]  # of a `Recipe`, whose field a system is
    summary: str
    source: str
    takes: str
    cost: str
    modalities: tuple[int, int | None] = (1, None)
    needs: tuple[str, ...] | None = None

    @property
    def options(self) -> list[str]:
        """The names of its options."""
        meet = self.meet
        while isinstance(meet, partial) and meet.func is _shortened:
            meet = meet.args[0]
        parameters = inspect.signature(meet).parameters.values()
        return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]

    def shortened(self, epochs: int) -> "System":
        """Returns the system with that bound on the epochs of a run, in place of its own."""
        return replace(self, meet=partial(_shortened, self.meet, epochs))


def _shortened(meet: Callable[..., Any], epochs: int, recipe: Any, **options: Any) -> Any:
    return replace(meet(recipe, **options), epochs=epochs)


def is_system(value: object) -> TypeGuard[System]:
    """Returns whether this is a system, by whichever import."""
    return hasattr(value, "meet")


def described_systems(
    systems: Mapping[str, Mapping[str, System | About]],
) -> list[tuple[str, str, System | About]]:
    """Returns (name, benchmarks, what it is) of those of all benchmarks, each once."""
    where: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    kept = {}
    for benchmark, listed in systems.items():
        for name, about in listed.items():
            key = name, (about.summary, about.source, about.takes, about.cost)
            where.setdefault(key, []).append(benchmark)
            kept[key] = about
    return [(key[0], ", ".join(where[key]), about) for key, about in kept.items()]
