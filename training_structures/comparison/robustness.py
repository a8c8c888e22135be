"""Robustness of a trained model: its scores under rising noise, and where modalities are missing.

Nothing is trained for it. Noise is drawn by the run's number and the modality's name, so that all
methods meet the same, and at all levels by the same draws: what is lost at one level is lost at
every higher one. For a share s of samples that lack a modality the prediction of a sample is the
one that the model makes without it, if the sample's draw is below s, else the one with everything;
so a model whose predictions depend on the batch is scored as if its neighbours lacked it, too.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batches import count
from ..checkpoint import seeded
from ..evaluation import evaluate
from ..files import shown
from .methods import Method
from .missing import knows_absence, zeroed
from .recipe import Recipe
from .single_run import Analysis, Trained, _hidden  # as it is: its name is in stored identities

LEVELS = tuple(step / 10 for step in range(11))
NOISE, MISSING, ZEROS = KINDS = "noise", "missing", "zeros"
ALL, ANY = "all", "any"  # modalities have noise at once; a sample lacks one of them

Curves = dict[str, dict[str, dict[str, list[float]]]]
"""Kind -> modality, `ALL` or `ANY` -> score -> its value at every level."""


def check_levels(asked: bool | Sequence[float] | None) -> tuple[float, ...] | None:
    """Returns the levels that are asked for; None if none are.

    Args:
        asked: levels; or whether those of `LEVELS` are wanted.

    Raises:
        ValueError: unless they begin with 0 and rise to 1 at most.
    """
    if asked is None or asked is False:
        return None
    if asked is True:
        return LEVELS
    given = tuple(asked)
    numbers = all(isinstance(x, Real) and not isinstance(x, bool) for x in given)
    rising = numbers and all(a < b for a, b in zip(given, given[1:], strict=False))
    if not rising or len(given) < 2 or given[0] != 0 or given[-1] > 1:
        raise ValueError(
            "robustness must be levels that begin with 0, the clean data, and rise to 1 at most, "
            f"such as 0, 0.25, 0.5, 1, got {asked}"
        )
    return tuple(map(float, given))


def check_curves(
    found: Any, modalities: Sequence[str]
) -> tuple[list[float], dict[str, dict[str, list[float]]]]:
    """Returns the levels, and where -> curves, of what a file has as the result of `measured`.

    Raises:
        ValueError: unless it has the form of such a result, whatever the scores are.
    """
    levels = found.get("levels") if isinstance(found, dict) else None
    if not isinstance(levels, list):
        raise ValueError(f"robustness must have a list of levels, got {shown(levels)}")
    check_levels(levels)
    known = {NOISE: {*modalities, ALL}, MISSING: {*modalities, ANY}, ZEROS: {*modalities, ANY}}
    curves: dict[str, Any] = {}
    for kind, by_name in found.items():
        if kind == "levels":
            continue
        if kind not in known or not isinstance(by_name, dict) or by_name.keys() - known[kind]:
            raise ValueError(f"robustness has an unknown {shown(kind)}: {shown(by_name)}")
        curves |= {f"{kind} in {name}": curve for name, curve in by_name.items()}
    long = len(levels)
    for where, curve in curves.items():
        lists = isinstance(curve, dict) and all(isinstance(x, list) for x in curve.values())
        if not lists or any(len(x) != long for x in curve.values()):
            raise ValueError(f"{where} must have a number by score for each of {long} levels")
    if found.get(NOISE, {}).keys() != known[NOISE]:
        raise ValueError(f"robustness must have noise in each of {sorted(known[NOISE])}")
    return levels, curves


def check_noise(recipe: Recipe) -> None:
    """Raises ValueError unless the recipe says how each of its modalities is noised."""
    absent = [name for name in recipe.modalities if name not in recipe.noise]
    reserved = [name for name in recipe.modalities if name in (ALL, ANY)]
    if absent:
        raise ValueError(
            f"robustness needs a noise for every modality, and the recipe of {recipe.name} has "
            f"none for {', '.join(absent)}: Recipe(noise={{{absent[0]!r}: vectors, ...}}), a "
            "function (features, level, generator) of modality, of which "
            "deq_fusion.examples.noise has some"
        )
    if reserved:
        raise ValueError(
            f"a modality must have another name than {reserved[0]!r} to be told from {ALL} or "
            f"{ANY} of them; rename it"
        )


@dataclass(frozen=True)
class Look:
    """An analysis that measures robustness, after another one if there is one.

    Attributes:
        method: whose run it is.
        run: its number.
        levels: of noise, and shares of samples that lack a modality; the first is 0.
        then: the other analysis.
    """

    method: Method
    run: int
    levels: tuple[float, ...]
    then: Analysis | None = None

    def __call__(self, trained: Trained, recipe: Recipe) -> dict[str, Any]:
        """Returns `robustness`, and `analysis` if there is another one."""
        found = {} if self.then is None else {"analysis": self.then(trained, recipe)}
        return found | {"robustness": measured(trained, self.method, self.run, self.levels)}


def measured(trained: Trained, method: Method, run: int, levels: Sequence[float]) -> dict[str, Any]:
    """Returns `levels`, and the `Curves` of a trained method as far as it has them.

    `noise` has each modality and all at once. `missing` has each modality and any one, where there
    are several and the model knows a way to do without them: a fusion by `present` where it takes
    that, else by zeros. A fusion that takes `present` has the curves of zeros, too, as `zeros`.
    """
    part = Part(trained, method.recipe, run)
    names = list(method.recipe.modalities)

    def curve(predicted: Callable[[float], Any]) -> dict[str, list[float]]:
        points = [part.scores(part.whole)]
        points += [part.scores(predicted(level)) for level in levels[1:]]
        return {name: [point[name] for point in points] for name in points[0]}

    def noise(chosen: Sequence[str]) -> dict[str, list[float]]:
        return curve(lambda level: part.noisy(chosen, level))

    found: Curves = {NOISE: {name: noise([name]) for name in names}}
    found[NOISE][ALL] = noise(names) if len(names) > 1 else found[NOISE][names[0]]
    for kind, hide in _ways(trained, method):
        left = part.without(hide)
        hidden = {name: {name: left[name]} for name in left}
        hidden |= {ANY: left} if len(left) == len(names) else {}
        found[kind] = {
            what: curve(partial(part.lacking, what, own)) for what, own in hidden.items()
        }
    return {"levels": list(levels), **found}


class Part:
    """The part that is scored, as a trained model predicts it.

    Attributes:
        whole: the prediction with everything.
        truth: of the samples.
    """

    def __init__(self, trained: Trained, recipe: Recipe, run: int) -> None:
        self._model, self._recipe, self._run = trained.model, recipe, run
        self._loader = trained.loaders[2 if recipe.part == "test" else 1]
        predicted = self._predicted(self._loader)
        self.whole = predicted[0]
        self.truth = predicted[1]

    def scores(self, prediction: Any) -> dict[str, float]:
        """Returns the recipe's metrics of a prediction."""
        found = self._recipe.metrics(prediction, self.truth)
        return {name: float(value) for name, value in found.items()}

    def noisy(self, names: Sequence[str], level: float) -> Any:
        """Returns the prediction with that level of noise in these modalities."""
        recipe = self._recipe
        noise = {
            recipe.modalities.index(name): (recipe.noise[name], draws(self._run, NOISE, name))
            for name in names
        }
        return self._predicted(noised(self._loader, noise, level))[0]

    def without(self, hide: "Hide") -> dict[str, Any]:
        """Returns modality -> the prediction without it, of those that the model can miss."""
        contexts = {name: hide(index) for index, name in enumerate(self._recipe.modalities)}
        return {
            name: self._predicted(self._loader, context)[0]
            for name, context in contexts.items()
            if context is not None
        }

    def lacking(self, what: str, left: Mapping[str, Any], share: float) -> Any:
        """Returns the prediction where that share of the samples lacks one of the modalities.

        Args:
            what: seeds which samples: one at a share is one at every higher share.
            left: modality -> the prediction without it.
            share: of the samples, in expectation.
        """
        generator, samples = draws(self._run, MISSING, what), count(self.truth)
        lost = torch.from_numpy(generator.random(samples) < share)
        which = torch.from_numpy(generator.integers(len(left), size=samples))
        found = self.whole
        for number, prediction in enumerate(left.values()):
            found = _chosen(lost & (which == number), prediction, found)
        return found

    def _predicted(
        self, loader: Iterable, hidden: AbstractContextManager | None = None
    ) -> tuple[Any, Any]:
        kept: list[Any] = []

        def keep(prediction: Any, truth: Any) -> dict[str, float]:
            kept.extend((prediction, truth))
            return {}

        with seeded(self._run), hidden or nullcontext():  # loaders draw numbers, too
            evaluate(self._model, loader, metrics=keep, precision=self._recipe.precision)
        return kept[0], kept[1]


Hide = Callable[[int], AbstractContextManager | None]
"""Number of a modality -> a context without it; None if there is none."""


def _ways(trained: Trained, method: Method) -> Iterator[tuple[str, Hide]]:
    """Yields the ways to do without one of several modalities, each by its kind."""
    if len(method.recipe.modalities) == 1:
        return
    yield MISSING, lambda index: _hidden(trained, method, index)
    if method.system is None and any(map(knows_absence, trained.fusions)):
        yield ZEROS, lambda index: zeroed(trained.fusions, index)


def draws(run: int, *what: str) -> np.random.Generator:
    """Returns the generator of a run for something, the same for every method."""
    named = hashlib.sha256("\0".join(what).encode()).digest()
    return np.random.default_rng([run % 2**64, int.from_bytes(named[:8], "big")])


def noised(
    loader: Iterable, noise: Mapping[int, tuple[Callable, np.random.Generator]], level: float
) -> Iterator[list]:
    """Yields the batches of a loader with noise in some modalities, by their numbers.

    A batch has the modalities first, or a list of them in the first place.

    Raises:
        ValueError: for a noise that returns something else than such a tensor as it gets.
    """
    for batch in loader:
        nested = isinstance(batch[0], (list, tuple))
        views = list(batch[0] if nested else batch)
        for number, (function, generator) in noise.items():
            view = views[number]
            found = function(view, level, generator)
            if not isinstance(found, Tensor) or found.shape != view.shape:
                got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise ValueError(
                    "a noise must return a tensor of the shape that it gets, "
                    f"{tuple(view.shape)}, got {got}"
                )
            views[number] = found.to(view.dtype)
        yield [views, *batch[1:]] if nested else views


def _chosen(rows: Tensor, one: Any, other: Any) -> Any:
    """Returns predictions of which those rows are the one's and all else the other's."""
    if isinstance(other, Tensor):
        return torch.where(rows.reshape(-1, *(1,) * (other.dim() - 1)), one, other)
    if isinstance(other, dict):
        return {name: _chosen(rows, one[name], other[name]) for name in other}
    return type(other)(_chosen(rows, a, b) for a, b in zip(one, other, strict=True))
