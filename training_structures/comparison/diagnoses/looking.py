"""Diagnoses of one trained model: its score and its outputs with every set of modalities, and how
sure it is.

Nothing is trained for it. Absent from a set, for the score, is a modality as the fusion knows
absence (`present`), else with its features at their training mean; with no modality left all are
at their means. For interactions all fusions meet the means: one that weighs anew what is left would
seem to let modalities interact that it only adds up.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ...checkpoint import seeded
from ...evaluation import evaluate
from ..methods import Method
from ..missing import knows_absence, without
from ..recipe import Recipe
from ..robustness import Look
from ..single_run import Analysis, Trained
from .calibration import Undiagnosed, calibration, classified
from .means import at_means, training_means
from .shapley import interactions

MOST = 10  # modalities: a pass for every set of them
ROWS = 4096  # samples whose interactions are held at a time


def check_diagnose(recipe: Recipe) -> None:
    """Raises ValueError for more modalities than there can be passes for the sets of."""
    count = len(recipe.modalities)
    if count > MOST:
        raise ValueError(
            f"diagnoses take a pass for every set of modalities, of {MOST} at most, got {count}, "
            f"which have {2**count} sets; name fewer of them (--modalities), or leave them out"
        )


@dataclass(frozen=True)
class Diagnosis:
    """An analysis that diagnoses, after another one if there is one.

    Attributes:
        method: whose run it is.
        run: its number.
        then: the other analysis; a `Look` gives more than one result.
    """

    method: Method
    run: int
    then: Analysis | None = None

    def __call__(self, trained: Trained, recipe: Recipe) -> dict[str, Any]:
        """Returns `diagnoses`, and what the other one gives, as `analysis` if it is no `Look`."""
        found = {} if self.then is None else self.then(trained, recipe)
        found = found if self.then is None or isinstance(self.then, Look) else {"analysis": found}
        return found | {"diagnoses": diagnosed(trained, self.method, self.run)}


def diagnosed(trained: Trained, method: Method, run: int) -> dict[str, Any]:
    """Returns `sets` and `strengths` (see `by_sets`), `calibration` (see `calibration`), and `not`:
    which of `modalities` and `calibration` cannot be told, and why."""
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    try:
        found |= by_sets(trained, method, run)
    except Undiagnosed as why:
        reasons["modalities"] = str(why)
    try:
        found["calibration"] = _calibrated(trained, method.recipe, run)
    except Undiagnosed as why:
        reasons["calibration"] = str(why)
    return found | {"not": reasons}


def by_sets(trained: Trained, method: Method, run: int) -> dict[str, Any]:
    """Returns `sets`, the scores with every set of modalities, in the order of `shapley`, and
    `strengths`, (M, M) means over samples and outputs of absolute interactions and main effects.

    Outputs of classes are taken less their mean over the classes, which decides no prediction.
    Absolute values are taken sample by sample, before the mean: effects that point to one class
    here and to another there would cancel.

    Raises:
        Undiagnosed: for one modality, a system, or a fusion that cannot do without some.
    """
    recipe = method.recipe
    count, whole = len(recipe.modalities), 2 ** len(recipe.modalities) - 1
    if count == 1:
        raise Undiagnosed("has one modality, of which nothing can be told apart")
    if method.system is not None:
        raise Undiagnosed("is a system with a network of its own, without features to hide")
    if not trained.fusions:
        raise Undiagnosed("has no fusion, and so no features to hide from it")
    absent = _Absent(trained, recipe, run)
    plain = [absent.predicted(chosen, told=False) for chosen in range(whole + 1)]
    told = plain
    if any(map(knows_absence, trained.fusions)):
        told = [absent.predicted(chosen, told=0 < chosen < whole) for chosen in range(whole + 1)]
    names = recipe.modalities
    return {
        "sets": [
            {"with": [names[i] for i in _members(chosen, count)], "scores": absent.scores(each)}
            for chosen, each in enumerate(told)
        ],
        "strengths": strengths([_outputs(each, recipe.task) for each in plain]).tolist(),
    }


def strengths(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Returns (M, M): the mean absolute interactions and, on the diagonal, main effects.

    Args:
        outputs: (n, outputs) of a model with every set of modalities, in the order of `shapley`.
    """
    total, count = 0.0, outputs[0].size
    for first in range(0, len(outputs[0]), ROWS):
        values = np.stack([each[first : first + ROWS].astype(float) for each in outputs])
        total = total + abs(interactions(values)).sum(axis=(2, 3))
    return np.asarray(total) / count


class _Absent:
    """A trained model's predictions on the scored part, without some of its modalities."""

    def __init__(self, trained: Trained, recipe: Recipe, run: int) -> None:
        self._trained, self._recipe, self._run = trained, recipe, run
        count, options = len(recipe.modalities), recipe.precision
        with seeded(run), _answered("cannot be run on its training part"):
            self._means = [
                training_means(trained.model, fusion, trained.loaders[0], count, options)
                for fusion in trained.fusions
            ]
        self._truth: Any = None

    def predicted(self, chosen: int, *, told: bool) -> Any:
        """Returns the prediction with a set of modalities.

        Args:
            chosen: the set.
            told: whether fusions that know absence are told of it.
        """
        names = self._recipe.modalities
        hidden = [i for i in range(len(names)) if not chosen >> i & 1]
        left_out = " and ".join(names[i] for i in hidden)
        failed = f"cannot do without {left_out}" if hidden else "cannot be run again"
        with _answered(failed), self._without(hidden, told=told):
            prediction, self._truth = predicted(self._trained, self._recipe, self._run, "scored")
        return prediction

    def scores(self, prediction: Any) -> dict[str, float]:
        with _answered("cannot be scored without a modality"):
            found = self._recipe.metrics(prediction, self._truth)
            return {name: float(value) for name, value in found.items()}

    @contextmanager
    def _without(self, hidden: Sequence[int], *, told: bool) -> Iterator[None]:
        with ExitStack() as stack:
            for fusion, means in zip(self._trained.fusions, self._means, strict=True):
                if told and knows_absence(fusion):
                    for i in hidden:
                        stack.enter_context(without([fusion], i))
                else:
                    stack.enter_context(at_means(fusion, means, hidden))
            yield


@contextmanager
def _answered(failed: str) -> Iterator[None]:
    """Turns whatever a model or metric raises into `Undiagnosed`: the run counts all the same."""
    try:
        yield
    except Undiagnosed:
        raise
    except Exception as error:
        says = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise Undiagnosed(f"{failed} ({says})") from error


def predicted(trained: Trained, recipe: Recipe, run: int, part: str) -> tuple[Any, Any]:
    """Returns (prediction, truth) of a trained model on a part, "scored" or "valid"."""
    test = part == "scored" and recipe.part == "test"
    kept: list[Any] = []

    def keep(prediction: Any, truth: Any) -> dict[str, float]:
        kept.extend((prediction, truth))
        return {}

    with seeded(run):  # loaders draw numbers, too
        loader = trained.loaders[2 if test else 1]
        evaluate(trained.model, loader, metrics=keep, precision=recipe.precision)
    return kept[0], kept[1]


def _calibrated(trained: Trained, recipe: Recipe, run: int) -> dict[str, Any]:
    scored = classified(*predicted(trained, recipe, run, "scored"), recipe.task)
    if recipe.part != "test":
        return calibration(scored, None)
    return calibration(scored, classified(*predicted(trained, recipe, run, "valid"), recipe.task))


def _outputs(prediction: Any, task: str) -> np.ndarray:
    """Returns (n, outputs) of a prediction."""
    if not isinstance(prediction, Tensor):
        raise Undiagnosed("predicts something else than a tensor")
    found = prediction.double().reshape(len(prediction), -1).numpy()
    if not np.isfinite(found).all():
        raise Undiagnosed("predicts what is not finite")
    centred = task == "classification" and found.shape[1] > 1
    return found - found.mean(axis=1, keepdims=True) if centred else found


def _members(chosen: int, count: int) -> Iterable[int]:
    return (i for i in range(count) if chosen >> i & 1)
