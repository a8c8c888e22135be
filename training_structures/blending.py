"""Gradient blending (Wang et al., 2020, arXiv:1905.12681): heads that are trained together.

The best prediction by one modality tends to be learnt sooner than that by all, and then
overfitted. So each modality has a head beside that of all of them, and each head's loss L_k a
weight w_k, the greater the better the head generalises, the smaller the more it overfits:

    L = sum_k w_k L_k,   w_k = (G_k / O_k^2) / Z,   Z such that sum_k w_k = 1

where G_k is what n epochs of training the head alone gain on samples that are held out, and O_k
what they add to the gap between these and the samples trained on. `estimate` tries that on copies,
`BlendedLoss` is the loss, and `Blending` a schedule of `fit` that estimates anew every n epochs.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from .batches import Split, split_last
from .evaluation import evaluate
from .fit import ADAMW, fit
from .objectives import Objective, loss_of
from .run import Callback, History

BLEND = "blend"  # the round in which a model gives the predictions of all its heads
FLOOR = 1e-4  # of overfitting: a head that shows none weighs much, not infinitely


class Losses(NamedTuple):
    """Mean losses of a head.

    Attributes:
        train: over the samples that it learns from.
        held_out: over others.
    """

    train: float
    held_out: float

    @property
    def gap(self) -> float:
        """The overfitting: how much lower the loss is where it was learnt."""
        return self.held_out - self.train


class Heads(NamedTuple):
    """The predictions of a model's other heads, beside its own: the extras of a blended model.

    Attributes:
        predictions: one a modality.
        weights: (heads,) of the losses, that of the model's own prediction last.
        extras: whatever else the objective is given with the model's own prediction.
    """

    predictions: Sequence[Any]
    weights: Tensor
    extras: tuple = ()


def worth(before: Losses, after: Losses, *, delta: bool = True) -> float:
    """Returns G / O^2 of a head, by its losses before and after it was trained alone.

    With the loss V of what was held out and the gap O between that and training, from 0 to 1,

        delta:      G = max(V_0 - V_1, 0),   O = max(|O_1 - O_0|, 1e-4)
        otherwise:  G = |V_1|,               O = max(O_1, 1e-4)

    The former is the paper's (its equation may weigh a head that gets worse by less than 0, which
    here is 0); the latter MultiBench's, in which a head counts the more the higher its loss.
    """
    if delta:
        gain = max(before.held_out - after.held_out, 0.0)
        overfitting = abs(after.gap - before.gap)
    else:
        gain, overfitting = abs(after.held_out), after.gap
    return gain / max(overfitting, FLOOR) ** 2


def normalised(worths: Sequence[float]) -> list[float]:
    """Returns weights that sum to 1, in proportion; all alike if no head is worth anything.

    Raises:
        FloatingPointError: if one is not finite.
    """
    if not all(map(math.isfinite, worths)):
        raise FloatingPointError(
            f"the weights of heads must be finite, got {list(worths)}; did a trial diverge? Try a "
            "smaller learning rate"
        )
    total = sum(worths)
    return [worth / total if total > 0 else 1 / len(worths) for worth in worths]


def trial(
    model: nn.Module,
    train: Iterable,
    held_out: Iterable,
    objective: Objective,
    *,
    epochs: int,
    optimizer: Callable[[list], Optimizer] = ADAMW,
    split_batch: Split = split_last,
    precision: str = "fp32",
    **options: Any,
) -> tuple[Losses, Losses]:
    """Trains a model in place, and returns its losses before and after, both in evaluation mode.

    Args:
        model: that of one head, such as a copy of the encoder and head of a modality.
        train: batches to train on.
        held_out: batches of other samples.
        objective: the head's loss.
        epochs: their number.
        optimizer: builds the optimiser, see `fit`.
        split_batch: batch to (inputs, truth).
        precision: see `fit`.
        **options: others of `fit`.
    """
    how: dict[str, Any] = {"split_batch": split_batch, "precision": precision}

    def losses() -> Losses:
        both = (evaluate(model, x, objective=objective, **how)["loss"] for x in (train, held_out))
        return Losses(*both)

    before = losses()
    options |= {"epochs": epochs, "optimizer": optimizer, "progress": False, **how}
    fit(model, train, None, objective, **options)
    return before, losses()


def estimate(
    models: Iterable[nn.Module],
    objectives: Iterable[Objective],
    train: Iterable,
    held_out: Iterable,
    *,
    delta: bool = True,
    **options: Any,
) -> list[float]:
    """Returns the weights of heads, which sum to 1, by a trial of each.

    Args:
        models: one a head, each trained in place: so copies, which may be made one by one.
        objectives: the loss of each.
        train: batches to train on.
        held_out: batches of other samples.
        delta: whether gain and overfitting are differences, see `worth`.
        **options: of `trial`.
    """
    pairs = zip(models, objectives, strict=True)
    trials = (trial(model, train, held_out, loss, **options) for model, loss in pairs)
    return normalised([worth(*losses, delta=delta) for losses in trials])


class BlendedLoss:
    """The weighted sum of the losses of all heads, of (prediction, truth, heads).

    What fit gets beside the model's own prediction is a `Heads`; without one, as in evaluation,
    the loss is that of the prediction alone. A batch counts what it counts in that.

    Args:
        objective: the loss of the model's own prediction.
        of_heads: that of the other ones; by default the same.
    """

    def __init__(self, objective: Objective, of_heads: Objective | None = None) -> None:
        self.__wrapped__ = self.objective = objective
        self.of_heads = objective if of_heads is None else of_heads
        self.adds_auxiliary_loss = getattr(objective, "adds_auxiliary_loss", False)

    def __call__(self, prediction: Any, truth: Any, *extras: Any) -> Tensor:
        """Returns sum_k w_k L_k, a scalar."""
        if not (extras and isinstance(extras[0], Heads)):
            return loss_of(self.objective, prediction, truth, *extras)
        predictions, weights, own = extras[0]
        losses = [loss_of(self.of_heads, other, truth) for other in predictions]
        losses.append(loss_of(self.objective, prediction, truth, *own))
        return sum(w * loss for w, loss in zip(weights, losses, strict=True))


@dataclass
class Blending:
    """A schedule of `fit`, for its `rounds`, that weighs a model's heads anew every n epochs.

    The weights are the model's buffer `weights`, so that a checkpoint has them, and a run that is
    resumed between two estimates goes on with those in use. The epochs have one round, `BLEND`,
    in which the model returns (prediction, `Heads`).

    Attributes:
        model: with `weights`, (heads,), and with `round`, see `rounds`.
        estimate: returns the weights for the epochs to come.
        every: n.
    """

    model: Any
    estimate: Callable[[], Sequence[float]]
    every: int

    def __post_init__(self) -> None:
        if not isinstance(self.every, Integral) or self.every < 1:
            raise ValueError(f"every must be a whole number of epochs from 1 up, got {self.every}")

    def __call__(self, epoch: int) -> list[str]:
        """Returns the rounds of an epoch, before whose steps the weights are set if it is time."""
        if (epoch - 1) % self.every == 0:
            weights = self.model.weights
            weights.copy_(torch.as_tensor(self.estimate(), dtype=weights.dtype))
        return [BLEND]

    def record(self, history: History) -> None:
        """Adds the weights to the record of an epoch, `weight_<number>`: a callback of `fit`."""
        weights = enumerate(self.model.weights.tolist())
        history.epochs[-1].update({f"weight_{i}": weight for i, weight in weights})


def hold_out(
    loader: DataLoader, share: float, *, seed: int | None = None
) -> tuple[DataLoader, DataLoader]:
    """Returns a loader of the rest of a training set, and one of a part that is held out.

    Both have the batch size, collation and workers of the one given; the first draws its samples
    in random order.

    Args:
        loader: of a data set with a length. Its batches have a size; where it indexes the data
            with whole batches (a BatchSampler as its sampler), so do the two.
        share: of the samples, in (0, 1), that are held out.
        seed: draws them; None: they are the first.

    Raises:
        ValueError: unless both get samples, or for a loader whose batches have no one size.
    """
    data: Any = loader.dataset
    size = len(data)
    count = int(size * share) if 0 < share < 1 else 0
    if not 0 < count < size:
        raise ValueError(
            "the share that is held out must lie in (0, 1), and be a sample at least, got "
            f"{share} of {size} samples; take another share, or more data"
        )
    order = list(range(size))
    if seed is not None:
        order = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()
    held, rest = Subset(data, order[:count]), Subset(data, order[count:])
    return _loader_like(loader, rest, shuffle=True), _loader_like(loader, held, shuffle=False)


def _loader_like(loader: DataLoader, part: Subset, *, shuffle: bool) -> DataLoader:
    whole = loader.batch_size is None  # batches, not samples, are what its sampler gives
    size = getattr(loader.sampler, "batch_size", None) if whole else loader.batch_size
    if size is None:
        raise ValueError(
            "samples can be held out of a loader whose batches have one size, got a "
            f"{type(loader).__name__} without; build it with batch_size"
        )
    size = min(size, len(part))  # else there may be no batch where the last is dropped
    sampler: Any = SequentialSampler(part)
    if shuffle:
        inner = getattr(loader.sampler, "sampler", None) if whole else loader
        sampler = RandomSampler(part, generator=getattr(inner, "generator", None))
    batches: dict[str, Any] = {"sampler": sampler, "batch_size": size}
    if whole:
        batches = {"sampler": BatchSampler(sampler, size, drop_last=False), "batch_size": None}
    elif shuffle:
        batches["drop_last"] = loader.drop_last
    names = ("num_workers", "collate_fn", "pin_memory", "worker_init_fn")  # and none that stay:
    own = {name: getattr(loader, name) for name in names}  # these draw no seed in later passes
    return DataLoader(part, generator=loader.generator, **batches, **own)


def fit_blended(
    model: Any,
    train: DataLoader,
    valid: Iterable | None,
    objective: Objective,
    *,
    epochs: int,
    every: int,
    share: float = 0.1,
    of_heads: Objective | None = None,
    optimizer: Callable[[list], Optimizer] = ADAMW,
    split_batch: Split = split_last,
    settings: Mapping[str, Any] | None = None,
    callbacks: Iterable[Callback] = (),
    **options: Any,
) -> History:
    """Trains a model by gradient blending, as `fit` would without: the same arguments, and more.

    A part of `train` is held out for good, for the trials. Each of these takes the optimiser, the
    accumulation, clipping and precision of the training, but no scheduler, for `every` epochs, or
    as many as there are. The records have the weights, `weight_<number>`, that of the model's own
    prediction last; their `seconds` count the trials.

    Args:
        model: with a buffer `weights`, (heads,), and an attribute `round`, None outside of
            steps: in `BLEND` it returns (prediction, `Heads`). `alone(k)` returns a copy that
            predicts by head k alone.
        train: batches to train on, see `hold_out`.
        valid: batches to select on, by the model's own prediction.
        objective: the loss of that.
        epochs: see `fit`.
        every: epochs between estimates of the weights.
        share: of the samples of `train` that are held out.
        of_heads: the loss of the heads, of (prediction, truth); by default `objective`.
        optimizer: see `fit`.
        split_batch: see `fit`.
        settings: see `fit`.
        callbacks: see `fit`.
        **options: others of `fit`, but for `rounds`.
    """
    rest, held_out = hold_out(train, share, seed=0)
    losses = [of_heads or objective] * (len(model.weights) - 1) + [objective]
    kept = ("accumulate", "clip_norm", "precision")
    shared = {name: options[name] for name in kept if name in options}
    shared |= {"epochs": min(every, epochs), "optimizer": optimizer, "split_batch": split_batch}

    def weigh() -> list[float]:
        return estimate(_apart(model), losses, rest, held_out, **shared)

    blending = Blending(model, weigh, every)
    return fit(
        model,
        rest,
        valid,
        BlendedLoss(objective, of_heads),
        epochs=epochs,
        rounds=blending,
        optimizer=optimizer,
        split_batch=split_batch,
        settings={**(settings or {}), "blend_every": every, "blend_share": share},
        callbacks=[blending.record, *callbacks],
        **options,
    )


def _apart(model: Any) -> Iterator[nn.Module]:
    """Yields a copy for each head, that of the model's own prediction last."""
    yield from map(model.alone, range(len(model.weights) - 1))
    yield deepcopy(model)
