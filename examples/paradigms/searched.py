"""MFAS (Perez-Rua et al., 2019), compared whole: encoders, a search for the fusion of their layers.

An encoder for each modality is trained alone, then fusions of their layers are searched for with
the encoders as they are, by scores on the validation part, and the best of them is trained with
its encoders as every other model is.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from deq_fusion.examples.paradigms.hosted import input_widths
from deq_fusion.fusions.common_fusions import Concat
from deq_fusion.fusions.searchable import NONLINEARITIES, Searchable
from deq_fusion.training_structures import architecture_search
from deq_fusion.training_structures.candidates import Trial
from deq_fusion.training_structures.comparison import Fusion, Recipe, System
from deq_fusion.training_structures.comparison.missing import without
from deq_fusion.training_structures.fit import fit
from deq_fusion.training_structures.run import History, load_best
from deq_fusion.utils.surrogate import SimpleRecurrentSurrogate

LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "classification": nn.functional.cross_entropy,
    "multilabel": nn.functional.binary_cross_entropy_with_logits,
}
LAYERS = 2  # of an encoder, among which the search chooses
BUDGET = {"epochs": 2, "search_iter": 2, "num_samples": 6, "max_progression_levels": 2}
DROPOUT = 0.2


class Layered(nn.Module):
    """An encoder of vectors that returns the outputs of its layers, or a head's prediction.

    Args:
        input_dim: width of the input, flattened.
        dim: width of every layer.
        outputs: width of the prediction.
    """

    def __init__(self, input_dim: int, dim: int, outputs: int) -> None:
        super().__init__()
        widths = [input_dim, *[dim] * LAYERS]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Dropout(DROPOUT))
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.head = nn.Linear(dim, outputs)
        self.output_each_layer = False

    def forward(self, x: Tensor) -> Any:
        """Maps (batch, ...) to (batch, outputs), or to [input, layer 0, layer 1, ...]."""
        passed = [x.flatten(1)]
        for layer in self.layers:
            passed.append(layer(passed[-1]))
        return passed if self.output_each_layer else self.head(passed[-1])


class OneOf(nn.Module):
    """The encoder of one modality, given the inputs of all.

    Args:
        encoder: maps its modality to a prediction.
        modality: its number.
    """

    def __init__(self, encoder: nn.Module, modality: int) -> None:
        super().__init__()
        self.encoder, self.modality = encoder, modality

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Returns the encoder's prediction."""
        return self.encoder(inputs[self.modality])


class Searched(nn.Module):
    """Encoders, from which a search makes a model.

    Args:
        encoders: one a modality; the search replaces them by those of the model.
        dim: width of the fusion layers.
        outputs: width of a prediction.
    """

    def __init__(self, encoders: Iterable[Layered], dim: int, outputs: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.dim, self.outputs = dim, outputs
        self.found: nn.Module = nn.Module()

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps a tensor a modality to the prediction, (batch, outputs)."""
        return self.found(inputs)

    def settle(self, configuration: Any) -> None:
        """Becomes the fusion that a configuration describes, of the encoders as they are."""
        encoders = [deepcopy(encoder) for encoder in self.encoders]
        for encoder in encoders:
            encoder.output_each_layer = True
            encoder.head = nn.Identity()  # it was for training the encoder alone
        widths = [[self.dim] * LAYERS] * len(encoders)
        self.found = Searchable(encoders, self.dim, self.outputs, configuration, widths)
        self.encoders = nn.ModuleList()

    def without(self, modality: int) -> AbstractContextManager[None]:
        """Returns a context in which that modality's inputs are zeros."""
        return without([self.found], modality)


def build(host: Callable[..., nn.Module], fusion: Fusion, train: DataLoader) -> Searched:
    """Returns encoders of the widths that the recipe's network asks of a fusion."""
    asked: list[tuple[int, int]] = []

    def note(input_dims: Sequence[int], dim: int, outputs: int) -> tuple[nn.Module, int]:
        asked.append((dim, outputs))
        return Concat(), sum(input_dims)

    host(note, train)
    dim, outputs = asked[0]
    encoders = [Layered(width, dim, outputs) for width in input_widths(train)]
    return Searched(encoders, dim, outputs)


def search_and_fit(
    model: Searched,
    train: DataLoader,
    valid: DataLoader,
    objective: Callable[..., Tensor],
    *,
    score: str,
    optimizer: Callable[[list], torch.optim.Optimizer],
    metrics: Callable[[Tensor, Tensor], dict[str, float]],
    parameters: Any = None,
    checkpoint: Any = None,
    checkpoint_seconds: float = 0.0,
    resume: bool = False,
    callbacks: Sequence[Callable[[History], Any]] = (),
    **options: Any,
) -> History:
    """Trains as `fit`: every encoder alone, then the search, then the fusion that it found.

    The history is that of the last; the seconds of its first epoch count all. A run that is
    resumed trains encoders and searches again, which ends as before, and goes on with the last.

    Args:
        model: encoders.
        train: see `fit`.
        valid: see `fit`.
        objective: see `fit`, of prediction and truth alone.
        score: the metric that the search maximises, from 0 to 1.
        optimizer: see `fit`.
        metrics: see `fit`.
        parameters: not used: those of the model found are trained, in one group.
        checkpoint: see `fit`, of the last.
        checkpoint_seconds: likewise.
        resume: likewise.
        callbacks: likewise.
        options: what else `fit` takes.
    """
    started = time.perf_counter()
    shared = {"optimizer": optimizer, "metrics": metrics, **options}
    for number, encoder in enumerate(model.encoders):
        alone = OneOf(encoder, number)
        load_best(alone, fit(alone, train, valid, objective, **shared))
    trial = Trial(objective, metrics, score, folder=None, quiet=True)
    modalities = len(model.encoders)
    known = architecture_search.train(
        [encoder.eval() for encoder in model.encoders],
        *(model.dim, model.outputs, [[model.dim] * LAYERS] * modalities, train, valid),
        SimpleRecurrentSurrogate(number_input_feats=modalities + 1),
        [LAYERS] * modalities + [len(NONLINEARITIES)],
        batch_size=math.ceil(len(train.dataset) / len(train)),  # loaders of batches tell none
        **BUDGET,
        trial=trial,
        device=options.get("device"),
    )
    (configuration,), _, _ = known.get_k_best(1)
    model.settle(configuration)
    spent = time.perf_counter() - started

    def count_search(history: History) -> None:
        if len(history.epochs) == 1:
            history.epochs[0]["seconds"] += spent

    own = {"checkpoint": checkpoint, "checkpoint_seconds": checkpoint_seconds, "resume": resume}
    callbacks = [count_search, *callbacks]
    return fit(model, train, valid, objective, **shared, **own, callbacks=callbacks)


def meet(recipe: Recipe) -> Recipe:
    """The recipe as MFAS meets it: its optimiser, epochs and selection, and networks of its own.

    Raises:
        ValueError: for numbers to predict, or a training that is no plain one.
    """
    if recipe.task not in LOSSES:
        raise ValueError("maximises a share of samples, and this benchmark predicts numbers")
    if recipe.features != "vectors" or recipe.train is not fit:
        raise ValueError("takes vectors and a plain training")
    return replace(
        recipe,
        build=partial(build, recipe.build),
        objective=LOSSES[recipe.task],
        parameters=None,
        fusion_lr={},
        train=partial(search_and_fit, score=recipe.scores[0].name),
    )


MFAS = System(
    meet,
    "fusion of the encoders' layers, found by a search (MFAS)",
    "Perez-Rua et al., 2019",
    "2 or more: vectors, with classes or labels",
    "(N + 1) d^2 a fusion layer; some forty short trainings to find it",
    modalities=(2, None),
)
