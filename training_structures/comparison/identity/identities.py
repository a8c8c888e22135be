"""The identities of methods: digests of all that decides their runs, besides what is asked for."""

import hashlib
import platform
from collections.abc import Callable
from typing import Any

import numpy
import sklearn
import torch

from ...checkpoint import seeded
from ..methods import Method
from ..recipe import Recipe
from .code import Code
from .data import data_digests
from .values import Values

TRAINED = (
    *("build", "objective", "optimizer", "scheduler", "parameters", "task", "features"),
    *("select", "patience", "accumulate", "clip_norm", "precision", "train"),
)


class Identities:
    """Digests of methods, and of the data of their runs, read once each.

    Args:
        run: what carries out a run of a fusion; its code counts.
        fit_floor: the same of a floor.
        analyse: what is found out about every trained model.
        search: what searches hyperparameters, in words; None if nothing does.
        robustness: what measures it; None if nothing does.
        diagnose: what diagnoses trained models; None if nothing does.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        fit_floor: Callable[..., Any],
        *,
        analyse: Callable[..., Any] | None = None,
        search: str | None = None,
        robustness: Callable[..., Any] | None = None,
        diagnose: Callable[..., Any] | None = None,
    ) -> None:
        self._run, self._fit_floor = run, fit_floor
        self._analyse, self._search, self._robustness = analyse, search, robustness
        self._diagnose = diagnose
        self._code = Code()
        # with what loads them, which keeps its id its own
        self._data: dict[tuple[Any, ...], tuple[Any, dict[str, str]]] = {}

    def of(self, method: Method) -> dict[str, dict[str, str]]:
        """Returns `versions`, `given` (what decides its runs -> digest), and `files` (of the code
        -> digest, to tell what has changed).

        Raises:
            Unidentified: if something cannot be compared with another run's.
        """
        reading, values = Values(self._code, paths=False), Values(self._code)
        given = {"load": reading.digest(method.recipe.load)}
        given |= {name: values.digest(value) for name, value in self._given(method).items()}
        files: dict[str, set[bytes]] = {}
        for key in reading.used | values.used:
            for file, texts in self._code.files[key].items():
                files.setdefault(file, set()).update(texts)
        return {
            "versions": versions() | self._searched(method),
            "given": {name: digest.hex()[:32] for name, digest in given.items()},
            "files": {
                file: hashlib.sha256(b"".join(sorted(texts))).hexdigest()[:16]
                for file, texts in sorted(files.items())
            },
        }

    def _given(self, method: Method) -> dict[str, Any]:
        recipe = method.recipe
        if method.fusion is None:
            floor = recipe.floors[method.name]
            return {"metrics": recipe.metrics, "floor": floor, "run": self._fit_floor}
        given = {name: getattr(recipe, name) for name in TRAINED}
        # what a system makes of a recipe is its fields; what it is in words decides nothing
        fusion = method.fusion if method.system is None else method.system.needs
        given |= {"metrics": recipe.metrics, "fusion": fusion, "run": self._run}
        given |= {"options": dict(recipe.fusion_options.get(method.name, {}))}
        given |= {"fusion_lr": recipe.fusion_lr.get(method.name)}
        given |= {"search": recipe.search} if self._search is not None else {}
        if self._robustness is not None:
            noise = {name: recipe.noise.get(name) for name in recipe.modalities}
            given |= {"robustness": self._robustness, "noise": noise}
        given |= {} if self._diagnose is None else {"diagnose": self._diagnose}
        return given | ({} if self._analyse is None else {"analyse": self._analyse})

    def _searched(self, method: Method) -> dict[str, str]:
        if self._search is None or method.fusion is None:
            return {}
        return {"search": self._search}

    def data(self, recipe: Recipe, run: int) -> dict[str, str]:
        """Returns the digests of the data of a run, which are loaded as for the run."""
        key = id(recipe.load), *recipe.modalities, run
        if key not in self._data:
            with seeded(run):
                self._data[key] = recipe.load, data_digests(recipe.loaders(run), recipe.part)
        return self._data[key][1]


def versions() -> dict[str, str]:
    """Returns the versions that results depend on."""
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scikit-learn": sklearn.__version__,
    }
