"""A benchmark as a recipe: the one place for everything that its fusions share."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from ..choices import FEATURES, PRECISIONS, TASKS
from ..fit import fit
from ..run import History
from .systems import System

Fusion = Callable[..., tuple[nn.Module, int | None]]
"""(input_dims, dim, outputs) -> (fusion, width of its result): what a recipe builds with. The
width is None of a fusion that predicts on its own: the model then goes without a head."""

Loaders = tuple[DataLoader, DataLoader, DataLoader]

Noise = Callable[[Tensor, float, np.random.Generator], Tensor]
"""(features of a batch, level in [0, 1], generator) -> such features with noise of that level."""

SHARES = ("accuracy", "balanced", "recall", "acc2", "acc7", "f1", "auc")
"""First words of scores that lie in [0, 1]."""


@dataclass(frozen=True)
class Score:
    """A number among a recipe's metrics, and how it is read.

    Attributes:
        name: its key in the metrics.
        percent: whether it is shown in percent.
        lower: whether less of it is better.
    """

    name: str
    percent: bool = True
    lower: bool = False

    @property
    def range(self) -> str:
        """Its range in words; shares of samples are known by their names alone."""
        undefined = " or NaN" if self._may_be_undefined else ""
        return f"a number in [0, 1]{undefined}" if self._is_share else "a finite number or NaN"

    def bounded(self, value: float) -> float:
        """Returns a bound of an interval, at the end of the range where it lies beyond."""
        return min(max(value, 0.0), 1.0) if self._is_share else value

    def accepts(self, value: float) -> bool:
        """Returns whether a run may have scored that."""
        if math.isnan(value):
            return self._may_be_undefined
        return 0 <= value <= 1 if self._is_share else math.isfinite(value)

    @property
    def _is_share(self) -> bool:
        return self.percent and self.name.partition("_")[0] in SHARES

    @property
    def _may_be_undefined(self) -> bool:
        return not self._is_share or self.name.partition("_")[0] == "auc" or "nonzero" in self.name


@dataclass(frozen=True)
class Recipe:
    """Everything that a benchmark fixes, and that all fusions share.

    Attributes:
        name: names the benchmark in tables.
        modalities: their names, in the order of a batch.
        load: (run number, names of modalities) -> (train, valid, test) loaders whose batches
            hold these modalities in this order, then the truth.
        build: (fusion, train loader) -> model; `fusion(input_dims, dim, outputs)` returns the
            fusion and its width, see `Fusion`.
        objective: the loss, as `fit` calls it.
        metrics: (prediction, truth) of a whole part -> named numbers.
        scores: those of the metrics that tables show, the most important one first; one that
            the metrics of a set do not have is left out.
        epochs: the most epochs a run may take.
        task: "classification", "multilabel" or "regression".
        features: what the fusion meets: "vectors" (batch, d) or "sequences" (batch, time, d).
        select: the validation score that chooses the epoch (see `fit`).
        patience: epochs in a row without improvement of it that end a run; None: all are taken.
        optimizer: builds the optimiser from parameter groups.
        scheduler: builds it from the optimiser (see `fit`). One with `epochs` among the keywords
            of its `partial` gets the recipe's: what is planned over a training follows its length.
        accumulate: batches a step (see `fit`).
        clip_norm: bound on the norm of the gradient; None does not clip (see `fit`).
        precision: of the training (see `fit`), and of the predictions that are scored.
        resplit: whether every run is a fresh split of one set (see `compare_paired`).
        fusion_options: fusion -> options of its constructor.
        fusion_lr: fusion -> learning rate of its own parameters; by default the optimiser's.
        parameters: model -> parameter groups for the optimiser, where it takes others than one
            of the fusion's own parameters and one of the rest; it goes without `fusion_lr`.
        search: keyword of the optimiser -> values to choose from, or a distribution of scipy,
            when hyperparameters are searched.
        floors: name -> function of the loaders to learn from and the loader to predict that
            returns the prediction: what a fusion must beat to have learnt anything.
        systems: name -> published model with a network and a training of its own, which may be
            compared besides fusions, see `System`.
        train: what trains, called as `fit` is; such as a `partial` of it with `rounds`, whose own
            `epochs`, if it is a partial that has them, follow the recipe's.
        part: what is scored: "test", or "valid" to choose hyperparameters by, when the test part
            is not read.
        lacking: modality or part that the data are without -> why, and what to do; a recipe that
            has it among its modalities, or scores it, is refused with that.
        about: sentences on the data that whoever reads the results needs, such as how rows were
            joined; reports show them.
        refit: (name, fusion, options) -> a model for use, trained anew on all the data by a method
            of a comparison: `Comparison.best` calls it. A recipe with fewer modalities calls it
            with the keyword `modalities`, too, and what a search chose of the optimiser comes as
            keywords, such as `lr`. None: the recipe has no such thing.
        noise: modality -> how it is noised where robustness is measured, see `Noise`; it decides
            nothing else. It leaves what it gets as it is, and draws from the generator alone;
            level 0 is never asked of it.
    """

    name: str
    modalities: Sequence[str]
    load: Callable[[int, Sequence[str]], Loaders]
    build: Callable[[Fusion, DataLoader], nn.Module]
    objective: Callable[..., Tensor]
    metrics: Callable[[Tensor, Tensor], dict[str, float]]
    scores: Sequence[Score]
    epochs: int
    task: str = "classification"
    features: str = "vectors"
    select: str = "loss"
    patience: int | None = None
    optimizer: Callable[[list], torch.optim.Optimizer] = partial(torch.optim.Adam, lr=1e-3)
    scheduler: Callable[[torch.optim.Optimizer], LRScheduler] | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    precision: str = "fp32"
    resplit: bool = False
    fusion_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fusion_lr: Mapping[str, float] = field(default_factory=dict)
    parameters: Callable[[nn.Module], list[dict[str, Any]]] | None = None
    search: Mapping[str, Any] = field(default_factory=lambda: {"lr": (3e-4, 1e-3, 3e-3)})
    floors: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)
    systems: Mapping[str, System] = field(default_factory=dict)
    train: Callable[..., History] = fit
    part: str = "test"
    lacking: Mapping[str, str] = field(default_factory=dict)
    about: Sequence[str] = ()
    refit: Callable[..., Any] | None = None
    noise: Mapping[str, Noise] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value, known in (
            ("task", self.task, TASKS),
            ("features", self.features, FEATURES),
            ("part", self.part, ("test", "valid")),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {list(known)}, got {value!r}")
        if not self.scores:
            raise ValueError("scores must name at least one of the metrics, got none")
        if self.parameters is not None and self.fusion_lr:
            raise ValueError(
                "parameters say the learning rate of every group, so fusion_lr must be left out, "
                f"got {dict(self.fusion_lr)}"
            )
        object.__setattr__(self, "scheduler", _planned(self.scheduler, self.epochs))
        if isinstance(self.train, partial) and "rounds" in self.train.keywords:
            rounds = _planned(self.train.keywords["rounds"], self.epochs)
            object.__setattr__(self, "train", partial(self.train, rounds=rounds))

    def loaders(self, run: int) -> Loaders:
        """Returns the (train, valid, test) loaders of a run, with the recipe's modalities."""
        self.check_data()
        return self.load(run, self.modalities)

    def check_data(self) -> None:
        """Raises ValueError if a modality, or the part that is scored, is one of `lacking`."""
        self._refuse_lacking((*self.modalities, self.part))

    def _refuse_lacking(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self.lacking:
                raise ValueError(self.lacking[name])

    def restricted(self, modalities: Sequence[str]) -> "Recipe":
        """Returns the recipe with these of its modalities alone.

        Raises:
            ValueError: for names that are not its modalities, come twice, or are `lacking`.
        """
        self._refuse_lacking(modalities)
        wrong = set(modalities) - set(self.modalities) or len(set(modalities)) < len(modalities)
        if wrong or not modalities:
            raise ValueError(
                f"modalities must be different names out of {list(self.modalities)}, "
                f"got {list(modalities)}"
            )
        refit = self.refit and partial(self.refit, modalities=tuple(modalities))
        return replace(self, modalities=tuple(modalities), refit=refit)

    def shortened(self, epochs: int) -> "Recipe":
        """Returns the recipe, and its systems, with that bound on the epochs of a run."""
        systems = {name: system.shortened(epochs) for name, system in self.systems.items()}
        return replace(self, epochs=epochs, systems=systems)

    def tuned(
        self, method: str, options: Mapping[str, Any], optimizer: Mapping[str, Any]
    ) -> "Recipe":
        """Returns the recipe with other options of a fusion, and keywords of the optimiser."""
        return replace(
            self,
            fusion_options={**self.fusion_options, method: dict(options)},
            optimizer=partial(self.optimizer, **optimizer) if optimizer else self.optimizer,
        )

    def treating(self, likes: Mapping[str, str]) -> "Recipe":
        """Returns the recipe with fusions treated like others: their options, their rate.

        Args:
            likes: fusion -> the one whose learning rate and options, unless it has them of its
                own already, it gets.
        """
        own = self.fusion_options
        options = {name: {**own.get(like, {}), **own.get(name, {})} for name, like in likes.items()}
        rates = {n: self.fusion_lr[like] for n, like in likes.items() if like in self.fusion_lr}
        return replace(
            self, fusion_options={**own, **options}, fusion_lr={**self.fusion_lr, **rates}
        )

    def settings(self, method: str) -> dict[str, str]:
        """Returns the settings of a run of `method`, besides its number, as text for a reader."""
        own = {"options": repr(dict(self.fusion_options.get(method, {})))}
        return self.shared_settings() | own | {"fusion_lr": repr(self.fusion_lr.get(method))}

    def shared_settings(self) -> dict[str, str]:
        """Returns the settings that the runs of all methods share, as text for a reader."""
        names = "name modalities load build objective metrics epochs task features select patience"
        names += " optimizer resplit part"
        always = {name: described(getattr(self, name)) for name in names.split()}
        rare: dict[str, Any] = {"scheduler": None, "accumulate": 1, "clip_norm": None}
        rare |= {"precision": "fp32", "parameters": None, "train": fit}
        given = {name: getattr(self, name) for name in rare if getattr(self, name) != rare[name]}
        return always | {name: described(value) for name, value in given.items()}


def _planned(value: Any, epochs: int) -> Any:
    """Returns a partial that is planned over a training's epochs with that number of them."""
    if isinstance(value, partial) and "epochs" in value.keywords:
        return partial(value, epochs=epochs)
    return value


def described(value: Any) -> str:
    """Returns a text that is the same in every process, which repr of a function is not."""
    if isinstance(value, partial):
        given = [_argument(x) for x in value.args]
        given += [f"{name}={_argument(x)}" for name, x in value.keywords.items()]
        return f"{described(value.func)}({', '.join(given)})"
    if hasattr(value, "dist"):  # a frozen distribution of scipy
        return f"{value.dist.name}{value.args}{value.kwds}"
    if isinstance(value, Mapping):
        return str({key: described(item) for key, item in value.items()})
    named = hasattr(value, "__qualname__")
    return f"{value.__module__}.{value.__qualname__}" if named else repr(value)


def _argument(value: Any) -> str:
    """Returns the same of what a partial is bound to, with the quotes of a text."""
    function = callable(value) and not isinstance(value, type)
    return described(value) if function else repr(value)
