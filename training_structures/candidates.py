"""One candidate of an architecture search after another, each trained for a few epochs and scored.

MultiBench has these functions in `fusions.searchable`, where they are found too; the loop is `fit`.
Without a device they take the one that MultiBench would, and they print what it prints.
"""

import pickle
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from . import metrics
from .batches import Split, as_float, join, move
from .evaluation import Metrics
from .fit import fit
from .multibench import save_whole
from .objectives import Objective, fitted
from .run import History, load_best
from .siblings import scheduler as schedulers
from .Supervised_Learning import CROSS_ENTROPY, default_device

ACTIVATIONS = ("relu", "sigmoid", "lrelu")  # in the names of shared weights, as the authors'
WEIGHT_DECAY = 1e-4  # MultiBench's, and the authors'


def floats_and_truth(batch: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Splits [x_1, ..., x_M, y] into the inputs, as float32, and the truth."""
    return [as_float(x, f"input {i}") for i, x in enumerate(batch[:-1])], batch[-1]


@dataclass(frozen=True)
class Trial:
    """How candidates are tried: the loss, the score, and what is left of them.

    Attributes:
        objective: the loss of prediction and truth.
        metrics: (prediction, truth) of a whole set to named numbers.
        select: the one that is a candidate's score: the more the better.
        folder: where every candidate is pickled, as best<score>.pt; None pickles none.
        quiet: print nothing.
        split_batch: batch to (inputs, truth).
    """

    objective: Objective = CROSS_ENTROPY
    metrics: Metrics = metrics.classification
    select: str = "accuracy"
    folder: str | Path | None = "."
    quiet: bool = False
    split_batch: Split = floats_and_truth

    def say(self, *words: Any) -> None:
        """Prints, unless quiet."""
        if not self.quiet:
            print(*words)

    def save(self, model: nn.Module, score: float) -> None:
        """Pickles a candidate, in evaluation mode, where MultiBench's users look for it."""
        if self.folder is not None:
            save_whole(model, Path(self.folder) / f"best{score:g}.pt")


TRIAL = Trial()


def train_sampled_models(
    sampled_configurations: Sequence[np.ndarray],
    searchable_type: Callable[..., Any],
    dataloaders: Mapping[str, Iterable],
    use_weightsharing: bool,
    device: torch.device | str | None,
    unimodal_files: Sequence[str | Path | nn.Module],
    rep_size: int,
    classes: int,
    sub_sizes: Sequence[Sequence[int]],
    batch_size: int,
    epochs: int,
    eta_max: float,
    eta_min: float,
    Ti: float,
    Tm: float,
    return_model: bool | Collection[int] = False,
    premodels: bool | Sequence[nn.Module] = False,
    preaccuracies: bool = False,
    train_only_central_params: bool = True,
    state_dict: dict[str, dict[str, Tensor]] | None = None,
    *,
    trial: Trial = TRIAL,
) -> list[float] | tuple[list[float], list[nn.Module]]:
    """Trains the fusion of every configuration anew, and returns its best validation scores.

    Encoders stay as they are, but for what a forward in training mode changes in them (the means
    of a batch norm); every candidate gets copies of its own.

    Args:
        sampled_configurations: one a candidate, see `fusions.searchable`.
        searchable_type: (encoders, rep_size, classes, configuration, sub_sizes) to a model with
            `encoders`, `fusion_layers`, `conf` and `central_params()`: `Searchable`.
        dataloaders: "train" and "dev", to select the best epoch.
        use_weightsharing: whether fusion layers start from the weights that the last candidate
            with such a layer at the same place ended with: of the same widths and nonlinearity.
            (MultiBench accepts it and shares nothing.)
        device: where to train; by default a GPU, if there is one.
        unimodal_files: an encoder a modality: a file of the pickled module, whose classes must
            have been imported, or the module itself.
        rep_size: width of the fusion layers.
        classes: width of the prediction.
        sub_sizes: of every encoder the widths of its layers.
        batch_size: samples of a training step, for the schedule of the learning rate.
        epochs: their number for each candidate.
        eta_max: learning rate at the start of a cycle, see `utils.scheduler`.
        eta_min: learning rate at its end.
        Ti: epochs of the first cycle.
        Tm: by how much each cycle is longer than the one before.
        return_model: True returns the models too; numbers of configurations try only those.
        premodels: one a configuration, whose weights its candidate starts from.
        preaccuracies: ignored, as by MultiBench.
        train_only_central_params: False trains the encoders too.
        state_dict: the shared weights by the name of the layer; written to, so that a later call
            with the same dict goes on from them.
        trial: how candidates are tried.
    """
    shared = {} if state_dict is None else state_dict
    scores: list[float] = []
    models: list[nn.Module] = []
    for number, configuration in enumerate(sampled_configurations):
        if not isinstance(return_model, bool) and number not in return_model:
            continue
        encoders = encoders_of(unimodal_files)
        model = searchable_type(encoders, rep_size, classes, configuration, sub_sizes)
        if not isinstance(premodels, bool):
            model.load_state_dict(premodels[number].state_dict())
        if use_weightsharing:
            load_shared(model, shared)
        parameters = model.central_params() if train_only_central_params else model.parameters()
        optimizer = torch.optim.Adam(parameters, lr=eta_max, weight_decay=WEIGHT_DECAY)
        steps = _samples(dataloaders["train"], batch_size) / batch_size
        scheduler = schedulers.LRCosineAnnealingScheduler(eta_max, eta_min, Ti, Tm, steps)
        with _frozen(model.encoders if train_only_central_params else nn.ModuleList()):
            objectives = [trial.objective]
            score = _tracked(
                *(model, objectives, optimizer, scheduler, dataloaders, device, epochs),
                multitask=False,
                trial=trial,
            )
        trial.save(model, score)
        if use_weightsharing:
            keep_shared(model, shared)
        scores.append(score)
        models += [model] if return_model is not False else []
    return scores if return_model is False else (scores, models)


def train_track_acc(
    model: nn.Module,
    criteria: Sequence[Objective],
    optimizer: Optimizer,
    scheduler: Any,
    dataloaders: Mapping[str, Iterable],
    dataset_sizes: Mapping[str, int],
    device: torch.device | str | None = None,
    num_epochs: int = 200,
    verbose: bool = False,
    multitask: bool = False,
    *,
    trial: Trial = TRIAL,
) -> float:
    """Trains a model, leaves it with its best epoch's weights, pickles it; returns its best score.

    Args:
        model: a list of inputs to logits.
        criteria: the loss, in a list; if `multitask` one for each of the model's outputs.
        optimizer: of the parameters to train.
        scheduler: one of `utils.scheduler`, which sets the rate of every step, or of torch's,
            which follows every epoch.
        dataloaders: "train" and "dev", to select the best epoch.
        dataset_sizes: ignored: scores are over the samples that the loaders give.
        device: where to train; by default a GPU, if there is one.
        num_epochs: their number.
        verbose: ignored, as by MultiBench; `trial` may be quiet.
        multitask: the model returns several predictions: their losses and, to predict, they
            themselves are added up.
        trial: the score and the folder; its objective is not used.
    """
    score = _tracked(
        *(model, criteria, optimizer, scheduler, dataloaders, device, num_epochs),
        multitask=multitask,
        trial=trial,
    )
    trial.save(model, score)
    return score


def _tracked(
    model: nn.Module,
    criteria: Sequence[Objective],
    optimizer: Optimizer,
    scheduler: Any,
    dataloaders: Mapping[str, Iterable],
    device: torch.device | str | None,
    epochs: int,
    *,
    multitask: bool,
    trial: Trial,
) -> float:
    """Trains a model and leaves it with its best epoch's weights; returns that one's score."""
    trained = _Summed(model) if multitask else model
    objective = _Kept(_Sum(criteria) if multitask else criteria[0], keep=not trial.quiet)
    in_steps = hasattr(scheduler, "update_optimizer")

    def report(history: History) -> None:
        if not trial.quiet:
            of_train = trial.metrics(*join(objective.pairs))[trial.select]
            trial.say(f"train Acc: {of_train:.4f}")
            trial.say(f"dev Acc: {history.epochs[-1][f'valid_{trial.select}']:.4f}")
            objective.pairs.clear()

    with _followed(optimizer, scheduler if in_steps else None):
        history = fit(
            *(trained, dataloaders["train"], dataloaders["dev"], objective),
            epochs=epochs,
            optimizer=lambda _: optimizer,
            scheduler=None if in_steps else lambda _: scheduler,
            metrics=trial.metrics,
            select=trial.select,
            maximise=True,
            device=device or default_device(),
            split_batch=trial.split_batch,
            callbacks=[report],
            progress=False,
        )
    if history.best_epoch is None:
        raise ValueError(
            f"a candidate must reach a score in some epoch, but its {trial.select} was NaN in all "
            f"{len(history.epochs)}; select another metric"
        )
    load_best(trained, history)
    return history.epochs[history.best_epoch - 1][f"valid_{trial.select}"]


@contextmanager
def _followed(optimizer: Optimizer, scheduler: Any) -> Iterator[None]:
    """Lets a scheduler, if there is one, set the rate of every step of the optimiser."""
    if scheduler is None:
        yield
        return

    def set_rate(*_: Any) -> None:
        scheduler.step()
        scheduler.update_optimizer(optimizer)

    hook = optimizer.register_step_pre_hook(set_rate)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _frozen(modules: nn.Module) -> Iterator[None]:
    """Takes no gradient of the modules' parameters; afterwards those that learnt do again."""
    learning = [p for p in modules.parameters() if p.requires_grad]
    modules.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_()


class _Kept:
    """An objective that keeps what was predicted in training, for the score of the epoch."""

    def __init__(self, objective: Objective, keep: bool) -> None:
        self.__wrapped__ = objective  # by which `fit` learns what its batches count
        self.keep = keep
        self.pairs: list[tuple[Any, Any]] = []

    def __call__(self, prediction: Any, truth: Any, *extras: Any) -> Tensor:
        if self.keep and torch.is_grad_enabled():
            self.pairs.append(move((prediction.detach(), truth), "cpu"))
        return self.__wrapped__(prediction, truth, *extras)


class _Summed(nn.Module):
    """A model of several predictions, as one of their sum and, beside it, all of them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any) -> tuple[Tensor, Sequence[Tensor]]:
        outputs = self.model(inputs)
        return torch.stack(list(outputs)).sum(0), list(outputs)


class _Sum:
    """The sum of a loss for each of several predictions."""

    def __init__(self, criteria: Sequence[Objective]) -> None:
        self.criteria = criteria

    def __call__(self, prediction: Tensor, truth: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        pairs = zip(self.criteria, outputs, strict=True)
        return torch.stack([f(x, fitted(f, x, truth)) for f, x in pairs]).sum()


def _samples(loader: Any, batch_size: int) -> int:
    """Returns a loader's number of samples; of a list of batches, as if they were full."""
    return len(loader.dataset) if hasattr(loader, "dataset") else len(loader) * batch_size


def encoders_of(unimodal_files: Sequence[str | Path | nn.Module]) -> list[nn.Module]:
    """Returns new encoders, told to return the outputs of their layers."""
    encoders = [
        deepcopy(source) if isinstance(source, nn.Module) else load_module(source)
        for source in unimodal_files
    ]
    for encoder in encoders:
        encoder.output_each_layer = True  # type: ignore[assignment]
    return encoders


def load_module(path: str | Path) -> nn.Module:
    """Returns the module that was pickled whole, on the CPU, without running code of the file's.

    Raises:
        ValueError: if the file holds anything but tensors, plain values and modules whose classes
            have been imported.
    """
    try:
        with torch.serialization.safe_globals(list(_kinds_of(nn.Module))):
            module = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} must hold a module whose classes have been imported, and nothing that is "
            f"run; import what it is made of first. {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"{path} must hold a whole module, got {type(module).__name__}")
    return module


def _kinds_of(kind: type) -> set[type]:
    """Returns a class and all that are derived from it."""
    return {kind}.union(*map(_kinds_of, kind.__subclasses__()))


def _shared_names(model: Any) -> list[str]:
    """Returns a name for each fusion layer of a candidate: its place, widths and nonlinearity."""
    return [
        f"{place}.L_{layer[0].in_features}_{layer[0].out_features}.A_{ACTIVATIONS[row[-1]]}"
        for place, (layer, row) in enumerate(zip(model.fusion_layers, model.conf, strict=True))
    ]


def load_shared(model: Any, shared: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Gives a candidate's fusion layers the weights that such layers had last, if there were any.

    Such layers have the same place, widths and nonlinearity (Perez-Rua et al., 2019, as in the
    authors' code). Encoders and head are not shared: those stay, and this is learnt anew.
    """
    for name, layer in zip(_shared_names(model), model.fusion_layers, strict=True):
        if name in shared:
            layer.load_state_dict(shared[name])


def keep_shared(model: Any, shared: dict[str, dict[str, Tensor]]) -> None:
    """Keeps the weights of a candidate's fusion layers for later ones."""
    for name, layer in zip(_shared_names(model), model.fusion_layers, strict=True):
        state = layer.state_dict()
        shared[name] = {key: value.detach().to("cpu", copy=True) for key, value in state.items()}
