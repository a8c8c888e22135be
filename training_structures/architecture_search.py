"""MFAS: which layers of the encoders to fuse, and how, searched for (Perez-Rua et al., 2019).

Fusions grow layer by layer. In every step all ways to add, or to change, one layer are scored by a
surrogate that has learnt from the fusions tried so far; some of them are drawn by their scores,
more and more by the best, are trained for a few epochs, and the surrogate learns from them. The
names, arguments, printed lines and files are MultiBench's.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import metrics
from .candidates import TRIAL, Trial, encoders_of, floats_and_truth, train_sampled_models
from .checkpoint import seeded
from .evaluation import evaluate
from .multibench import measure_all
from .run import loader_generators
from .search_progress import Progress, digest
from .search_steps import Steps
from .siblings import search_tools as tools
from .siblings import searchable
from .Supervised_Learning import default_device

MSE = nn.MSELoss()


def train(
    unimodal_files: Sequence[str | Path | nn.Module],
    rep_size: int,
    classes: int,
    sub_sizes: Sequence[Sequence[int]],
    train_data: Iterable,
    valid_data: Iterable,
    surrogate: nn.Module,
    max_labels: Sequence[int],
    batch_size: int = 32,
    epochs: int = 3,
    search_iter: int = 3,
    num_samples: int = 15,
    epoch_surrogate: int = 50,
    eta_max: float = 0.001,
    eta_min: float = 0.000001,
    Ti: float = 1,
    Tm: float = 2,
    temperature_init: float = 10.0,
    temperature_final: float = 0.2,
    temperature_decay: float = 4.0,
    max_progression_levels: int = 4,
    lr_surrogate: float = 0.001,
    use_weightsharing: bool = False,
    *,
    alphas: bool = False,
    trial: Trial = TRIAL,
    device: torch.device | str | None = None,
    seed: int | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Any:
    """Searches for a fusion of the encoders' layers; returns all configurations tried.

    The first step trains every fusion of one layer, as many as the product of `max_labels`; each
    further one `num_samples` fusions. The encoders stay as they are. Of what is returned,
    `get_k_best(k)` gives the k best configurations, from which `fusions.searchable.Searchable`
    makes networks to train for longer.

    Args:
        unimodal_files: an encoder a modality, trained before: a file of the pickled module, whose
            classes must have been imported, or the module itself. It returns the outputs of its
            layers, if need be by its attribute `output_each_layer`, which is set.
        rep_size: width of the fusion layers.
        classes: width of the prediction.
        sub_sizes: of every encoder the widths of its layers.
        train_data: batches [x_1, ..., x_M, y] to train on.
        valid_data: batches by which candidates are scored.
        surrogate: `utils.surrogate.SimpleRecurrentSurrogate(number_input_feats=M + 1)`; it is
            trained in place.
        max_labels: the number of layers to choose from of each encoder, and of nonlinearities:
            ReLU, sigmoid, leaky ReLU.
        batch_size: samples of a training step, for the schedule of the learning rate.
        epochs: of each candidate.
        search_iter: how often each fusion layer is searched.
        num_samples: candidates a step, but for the first.
        epoch_surrogate: epochs of the surrogate, after every step.
        eta_max: learning rate of candidates, see `utils.scheduler`.
        eta_min: the lowest.
        Ti: epochs of the first cycle of the rate.
        Tm: by how much each cycle is longer than the one before.
        temperature_init: see `utils.search_tools.compute_temperature`.
        temperature_final: likewise.
        temperature_decay: likewise, in steps.
        max_progression_levels: most layers of a fusion.
        lr_surrogate: learning rate of the surrogate.
        use_weightsharing: whether candidates start from earlier ones' weights, see
            `candidates.train_sampled_models`.
        alphas: whether fusion layers weigh their modalities.
        trial: the candidates' loss and score, and the folder they are pickled in: by default
            cross-entropy, accuracy and the working folder. A score is from 0 to 1, 1 the best.
        device: by default a GPU, if there is one.
        seed: seeds the global random generators for the search; afterwards they are as before.
        checkpoint: file for everything needed to go on, written after every candidate.
        resume: goes on from `checkpoint`, if that file exists, as if never interrupted.
        settings: what else a resumed search must share, as numbers and text: its data, say.

    Returns:
        A `utils.surrogate.SurrogateDataloader`.

    Raises:
        ValueError: for options that make no sense, or a checkpoint of another search.
    """
    searcher = ModelSearcher(
        train_data,
        valid_data,
        search_iter,
        num_samples,
        epoch_surrogate,
        temperature_init,
        temperature_final,
        temperature_decay,
        max_progression_levels,
        lr_surrogate,
        device,
    )
    return searcher.search(
        surrogate,
        use_weightsharing,
        unimodal_files,
        rep_size,
        classes,
        sub_sizes,
        batch_size,
        epochs,
        max_labels,
        eta_max,
        eta_min,
        Ti,
        Tm,
        alphas=alphas,
        trial=trial,
        seed=seed,
        checkpoint=checkpoint,
        resume=resume,
        settings=settings,
    )


class ModelSearcher:
    """The search, by the budgets and temperatures that `train` describes.

    Args:
        train_data: see `train`.
        valid_data: see `train`.
        search_iter: see `train`.
        num_samples: see `train`.
        epoch_surrogate: see `train`.
        temperature_init: see `train`.
        temperature_final: see `train`.
        temperature_decay: see `train`.
        max_progression_levels: see `train`.
        lr_surrogate: see `train`.
        device: see `train`.
    """

    def __init__(
        self,
        train_data: Iterable,
        valid_data: Iterable,
        search_iter: int,
        num_samples: int,
        epoch_surrogate: int,
        temperature_init: float,
        temperature_final: float,
        temperature_decay: float,
        max_progression_levels: int,
        lr_surrogate: float,
        device: torch.device | str | None = None,
    ) -> None:
        counts = {"search_iter": search_iter, "num_samples": num_samples}
        counts |= {"epoch_surrogate": epoch_surrogate}
        counts |= {"max_progression_levels": max_progression_levels}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        self.search_iterations = search_iter
        self.num_samples = num_samples
        self.surrep = epoch_surrogate
        self.tinit, self.tfinal, self.tdecay = (
            temperature_init,
            temperature_final,
            temperature_decay,
        )
        self.max_prog = max_progression_levels
        self.lr_surrogate = lr_surrogate
        self.dataloaders = {"train": train_data, "dev": valid_data}
        self.device = device or default_device()

    def search(
        self,
        surrogate: nn.Module,
        use_weightsharing: bool,
        unimodal_files: Sequence[str | Path | nn.Module],
        rep_size: int,
        classes: int,
        sub_sizes: Sequence[Sequence[int]],
        batch_size: int,
        epochs: int,
        max_labels: Sequence[int],
        eta_max: float,
        eta_min: float,
        Ti: float,
        Tm: float,
        criterion: Callable[[Tensor, Tensor], Tensor] = MSE,
        *,
        alphas: bool = False,
        trial: Trial = TRIAL,
        seed: int | None = None,
        checkpoint: str | Path | None = None,
        resume: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> Any:
        """Searches, see `train`; `criterion` is the surrogate's loss."""
        encoders = encoders_of(unimodal_files)
        self._check(surrogate.to(self.device), max_labels, sub_sizes, len(encoders))
        given: dict[str, Any] = {"eta_max": eta_max, "eta_min": eta_min, "Ti": Ti, "Tm": Tm}
        given |= {"rep_size": rep_size, "classes": classes, "use_weightsharing": use_weightsharing}
        given |= {"batch_size": batch_size, "epochs": epochs}
        described = {
            **self._settings(max_labels, encoders),
            **given,
            **{"alphas": alphas, "seed": seed, "select": trial.select},
            "sub_sizes": [[int(width) for width in widths] for widths in sub_sizes],
            **(settings or {}),
        }
        progress = Progress(
            surrogate=surrogate,
            optimizer=torch.optim.Adam(surrogate.parameters(), lr=self.lr_surrogate),
            generators=loader_generators(*self.dataloaders.values()),
            settings=described,
        )
        tried = partial(
            train_sampled_models,
            searchable_type=partial(searchable.Searchable, alphas=alphas),
            dataloaders=self.dataloaders,
            device=self.device,
            unimodal_files=encoders,
            sub_sizes=sub_sizes,
            state_dict=progress.shared,
            trial=trial,
            **given,
        )
        layers = searchable.get_possible_layer_configurations(max_labels)
        steps = Steps(self, progress, layers, criterion, tried, trial.say)
        with seeded(seed):
            if resume:
                progress.resume(checkpoint)
            while progress.step < self.search_iterations * self.max_prog:
                steps.take(checkpoint)
        return progress.known

    def temperature(self, step: int) -> float:
        """Returns the temperature at which a step, from 0, draws.

        It falls with every step. (MultiBench counts an iteration of the search as `search_iter`
        steps, and not as the `max_progression_levels` that it has.)
        """
        if step == 0:
            return self.tinit
        return tools.compute_temperature(step - 1, self.tinit, self.tfinal, self.tdecay)

    def _settings(self, max_labels: Sequence[int], encoders: list[nn.Module]) -> dict[str, Any]:
        """Returns what a resumed search must share of budgets, choices and encoders."""
        own = {k: v for k, v in vars(self).items() if k not in ("dataloaders", "device")}
        return {**own, "max_labels": [int(n) for n in max_labels], "encoders": digest(encoders)}

    def _check(
        self,
        surrogate: Any,
        max_labels: Sequence[int],
        sub_sizes: Sequence[Sequence[int]],
        modalities: int,
    ) -> None:
        limits = [*map(len, sub_sizes), len(searchable.NONLINEARITIES)]
        same = len(max_labels) == len(limits) == modalities + 1
        if not same or any(not 1 <= n <= m for n, m in zip(max_labels, limits, strict=True)):
            raise ValueError(
                "max_labels must hold a number of layers for each encoder, and one of "
                f"nonlinearities, from 1 to {limits}, got {list(max_labels)} for {modalities} "
                "encoders; sub_sizes must tell the widths of each encoder's layers"
            )
        try:
            surrogate.eval_model(np.zeros((1, len(max_labels)), int), self.device)
        except RuntimeError as error:  # torch's, of widths that do not fit
            raise ValueError(
                f"the surrogate must take {len(max_labels)} features of a layer, one an encoder "
                "and one for the nonlinearity, but does not: make it with "
                f"number_input_feats={len(max_labels)}"
            ) from error


def single_test(
    model: nn.Module, test_dataloader: Iterable, auprc: bool = False
) -> dict[str, float]:
    """Prints and returns the accuracy; prints the area under the precision-recall curve if asked.

    The model is in evaluation mode meanwhile. (MultiBench leaves it in the mode it is in.)
    """

    def measure(prediction: Tensor, truth: Tensor) -> dict[str, float]:
        scores = {"accuracy": metrics.classification(prediction, truth)["accuracy"]}
        return scores | ({"auprc": metrics.average_precision(prediction, truth)} if auprc else {})

    scores = evaluate(model, test_dataloader, metrics=measure, split_batch=floats_and_truth)
    print(f"test acc: {scores['accuracy']}")
    if auprc:
        print(f"AUPRC: {scores['auprc']}")
    return {"Accuracy": scores["accuracy"]}


def test(
    model: nn.Module,
    test_dataloaders_all: Iterable | dict[str, list],
    dataset: str,
    method_name: str = "My method",
    auprc: bool = False,
    no_robust: bool = False,
) -> dict:
    """Runs `single_test` on one loader (`no_robust`), or on {modality: [loader a noise level]}.

    Returns:
        What `Supervised_Learning.test` returns; `dataset` and `method_name` are not used, either.
    """
    measure = partial(single_test, model, auprc=auprc)
    return measure_all(measure, model, test_dataloaders_all, no_robust)
