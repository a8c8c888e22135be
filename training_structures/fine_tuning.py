"""Fine-tuning: a fusion and a head trained on, on what fixed encoders make of the data."""

import math
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from .batches import Split
from .evaluation import Metrics, predict
from .fit import fit
from .objectives import Objective
from .run import History


class Encoded(nn.Module):
    """Encoders alone."""

    def __init__(self, encoders: Iterable[nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    def forward(self, x: Sequence[Tensor]) -> list[Tensor]:
        """Maps [x_1, ..., x_M] to the feature of each."""
        features = [encoder(x[i]) for i, encoder in enumerate(self.encoders)]
        for number, feature in enumerate(features):
            if not isinstance(feature, Tensor):
                raise TypeError(
                    f"unimodal_models must return a tensor each, got {type(feature).__name__} of "
                    f"number {number}; let it return the one that its head takes"
                )
        return features


@dataclass
class FineTuning:
    """A callback of `fit` that fine-tunes copies of a model's fusion and head every n epochs.

    The training that it looks at goes on as if it had not been. The best fine-tuned so far, by the
    loss on validation data, is saved as soon as it is there; what the best loss of each fine-tuning
    was is in the records, as `finetuned_loss`, and so in a checkpoint.

    Attributes:
        model: with `encoders`, `fuse` and `head`.
        train: batches to fine-tune on.
        valid: batches to select on.
        objective: the loss.
        optimizer: builds the optimiser, a new one each time.
        every: n.
        epochs: of each fine-tuning.
        split_batch: batch to (inputs, truth).
        metrics: see `fit`.
        save: called with the fusion and the head that are the best.
        report: called with the epoch of the training, the record of one of the fine-tuning, and
            the number of samples.
    """

    model: Any
    train: DataLoader
    valid: Iterable
    objective: Objective
    optimizer: Callable[[list], Optimizer]
    every: int
    epochs: int
    split_batch: Split
    metrics: Metrics
    save: Callable[[nn.Module, nn.Module], None]
    report: Callable[[int, dict[str, float], int], None]

    def __call__(self, history: History) -> None:
        """Fine-tunes if it is time."""
        if len(history.epochs) % self.every:
            return
        train, samples = self._encoded(self.train, shuffle=True)
        valid, _ = self._encoded(self.valid)
        fuse, head = deepcopy(self.model.fuse), deepcopy(self.model.head)
        losses = (e["finetuned_loss"] for e in history.epochs if "finetuned_loss" in e)
        before = min(losses, default=math.inf)

        def see(tuned: History) -> None:
            record = tuned.epochs[-1]
            self.report(len(history.epochs), record, samples)
            if not tuned.stale and record["valid_loss"] < before:
                self.save(fuse, head)

        tuned = fit(
            nn.Sequential(fuse, head),
            train,
            valid,
            self.objective,
            epochs=self.epochs,
            optimizer=self.optimizer,
            metrics=self.metrics,
            callbacks=[see],
            progress=False,
        )
        if tuned.best_epoch is not None:
            best = tuned.epochs[tuned.best_epoch - 1]["valid_loss"]
            history.epochs[-1]["finetuned_loss"] = best

    def _encoded(self, loader: Iterable, *, shuffle: bool = False) -> tuple[DataLoader, int]:
        """Returns a loader of what the encoders give, in evaluation mode, and its length."""
        encoders = Encoded(self.model.encoders)
        features, truth = predict(encoders, loader, split_batch=self.split_batch)
        own = getattr(self.train.sampler, "batch_size", len(truth))  # of whole batches
        size = self.train.batch_size or own
        data = TensorDataset(*features, truth)
        return DataLoader(data, batch_size=size, shuffle=shuffle), len(truth)
