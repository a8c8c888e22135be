"""One training loop for any module, with selection on validation data and resumable runs."""

import inspect
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from . import distributed
from .batches import Split, move, split_all, split_last
from .checkpoint import seeded
from .evaluation import (
    Means,
    Metrics,
    TrainingLoss,
    attributes,
    autocast,
    check_truth,
    evaluate,
    place,
)
from .evaluation import predict as predict
from .objectives import Objective, weight_of
from .rounds import Schedule, check_model, in_round, recorded_as, rounds_of
from .run import Callback, History, Run, loader_generators
from .run import load_best as load_best

SLOW = 2.0  # seconds after which an epoch has a bar of its own
SMALLEST_SCALE = 2.0**-24  # of the loss, in fp16; a gradient that overflows at it is not finite
ADAMW = partial(torch.optim.AdamW, lr=1e-3)


def fit(
    model: nn.Module,
    train: Iterable,
    valid: Iterable | None,
    objective: Objective,
    *,
    epochs: int,
    optimizer: Callable[[list], Optimizer] = ADAMW,
    parameters: Iterable | None = None,
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    rounds: Schedule | None = None,
    accumulate: int = 1,
    clip_norm: float | None = None,
    clipped: Iterable[nn.Parameter] | None = None,
    metrics: Metrics | None = None,
    select: str = "loss",
    maximise: bool | None = None,
    patience: int | None = None,
    device: torch.device | str | None = None,
    precision: str = "fp32",
    seed: int | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 0.0,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    split_batch: Split = split_last,
    callbacks: Iterable[Callback] = (),
    progress: bool = True,
) -> History:
    """Trains `model` in place, and leaves it in evaluation mode with its last epoch's weights.

    The model is called with a batch's inputs and returns a prediction, or an exact tuple
    (prediction, extras). The objective is called with prediction, truth and any extras, and
    returns their mean loss, over the samples unless it says otherwise (see `objectives`): labels
    that it ignores count nowhere, and a step for which none counts is left out. In training every
    submodule's `auxiliary_loss`, a weighted scalar, and `supervised_loss(truth)` are added, unless
    the objective has a true `adds_auxiliary_loss`; and what submodules report as `info.summary()`
    is averaged into the epoch's record.

    In a process group (`distributed.process_group`) the processes share every batch of `train`
    and `valid`, which must be DataLoaders, and get one result: that of a single process, within
    rounding, but for what the model draws at random and for what couples the samples of a batch
    (BatchNorm sees a share; a penalty may be a mean over tokens). The first shows the bar, calls
    `callbacks` and writes. An error in one process's backward ends the run only when that process
    ends, as it does under torchrun: the others wait for its gradient.

    Args:
        model: any module.
        train: batches to train on.
        valid: batches to select on; None selects the last epoch.
        objective: the loss.
        epochs: their number, those of a resumed run included.
        optimizer: builds the optimiser from the list of `parameters`. One whose `step` needs a
            closure, such as LBFGS, evaluates the step's batches as often as it asks; records
            show the first evaluation. It goes without fp16.
        parameters: parameters or parameter groups; by default all that require a gradient.
        scheduler: builds it from the optimiser; steps once an epoch, ReduceLROnPlateau on `select`.
        rounds: alternating training: the number of an epoch to names. For each step's batches the
            model's attribute `round` is set to each name in turn, and a gradient taken, clipped
            and followed; parameters that get none in a round are left as they are. Outside of
            steps, in evaluation too, `round` is None. `train_loss` is that of the last round; of
            several, each has its `train_loss_<name>`. Not with an optimiser that needs a closure.
        accumulate: batches a step; their gradient is that of one joined batch.
        clip_norm: bound on the norm of the gradient of `clipped`, positive.
        clipped: by default all parameters of the model.
        metrics: (prediction, truth) of the whole validation set, on the CPU, to named numbers.
        select: the metric (or "loss") that chooses the best epoch.
        maximise: whether more of it is better; by default unless its name ends in loss, mse, mae.
        patience: stops after so many epochs in a row without improvement.
        device: where to train; by default where the model is.
        precision: "fp32", or autocast of the forward and the objective to "bf16" or "fp16", the
            latter with a scaled loss. Metrics see float32; the weights keep their dtype.
        seed: seeds the global random generators for this run; afterwards they are as before.
            Every process gets a seed of its own from it.
        checkpoint: file for everything needed to go on, written after every epoch.
        checkpoint_seconds: leave out epochs that end sooner after the last writing; the last
            epoch is always written.
        resume: goes on from `checkpoint`, if that file exists, as if never interrupted.
        settings: what else a resumed run must share, as numbers and text: its data, say.
        split_batch: batch to (inputs, truth); tensors in lists, tuples and dicts are moved.
        callbacks: each is called with the history after every epoch; one that returns True ends
            the training there, for good: a resumed run does not go on, either.
        progress: shows a bar, on a terminal.

    Raises:
        FloatingPointError: if the training loss is not finite, or its gradient at any scale; its
            attribute `history` has the epochs before.
        RuntimeError: if the norm of the gradient is not finite (with `clip_norm`).
        ValueError: for options or batches that make no sense, or a checkpoint of another run.
    """
    callbacks = list(callbacks)
    _check_counts(epochs=epochs, accumulate=accumulate, patience=patience)
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm must be positive, got {clip_norm}; None does not clip")
    if valid is not None and metrics is None and select != "loss":
        raise ValueError(f"without metrics select must be one of ['loss'], got {select!r}")
    device = place(model, device)
    autocast(device, precision)  # which refuses a precision that there is not
    optim = _built(optimizer, model, parameters, precision, rounds)
    plan = scheduler(optim) if scheduler else None
    clipped = list(model.parameters() if clipped is None else clipped)
    progress = progress and distributed.is_main()
    scaler = GradScaler(device.type, enabled=precision == "fp16")
    loss = distributed.data_parallel(TrainingLoss(model, objective, precision, device), optim)
    training = _Training(
        *(model, objective, loss, optim, scaler, accumulate, clip_norm, clipped, split_batch),
        rounds=rounds,
        device=device,
        progress=progress,
    )
    common = {"device": device, "precision": precision, "split_batch": split_batch}
    validate = partial(evaluate, objective=objective, metrics=metrics, **common)
    key = None if valid is None else f"valid_{select}"
    settings = {"seed": seed, "accumulate": accumulate, "clip_norm": clip_norm, **(settings or {})}
    settings |= {"precision": precision}
    generators = loader_generators(train, valid)
    run = Run(model, optim, plan, key, maximise, generators, settings, scaler)
    train, valid = distributed.sharded(train), None if valid is None else distributed.sharded(valid)
    with seeded(distributed.own_seed(seed)):
        if resume:
            run.resume(checkpoint)
        for epoch in _epochs_left(run, epochs, patience, progress):
            started = time.perf_counter()
            with _diverging(run.history):
                record = {"epoch": epoch, **training.epoch(train, epoch)}
                scores = {} if valid is None else validate(model, valid)
            record |= {f"valid_{name}": value for name, value in scores.items()}
            run.finish_epoch(record | {"seconds": time.perf_counter() - started})
            run.tell(callbacks)
            if checkpoint:
                run.save(checkpoint, after=checkpoint_seconds)
        if checkpoint:
            run.save(checkpoint)
    model.eval()
    return run.history


@dataclass(frozen=True)
class _Share:
    """A batch's share of the joined one that a step's batches make up, those of all processes.

    Attributes:
        samples: its part of the samples, times the processes, over which gradients are averaged.
        loss: its part of the objective, over its part of the samples.
        weight: what it counts in a mean over the epoch; None if losses add up.
    """

    samples: float
    loss: float
    weight: float | None


@dataclass
class _Training:
    """One training, taken epoch by epoch; see `fit`."""

    model: nn.Module
    objective: Objective
    loss: nn.Module
    optimizer: Optimizer
    scaler: GradScaler
    accumulate: int
    clip_norm: float | None
    clipped: list[nn.Parameter]
    split_batch: Split
    rounds: Schedule | None
    device: torch.device
    progress: bool

    def epoch(self, loader: Iterable, epoch: int) -> dict[str, float]:
        """Takes a step for every `accumulate` batches, of several rounds one each; returns the
        means over all samples."""
        self.model.train()
        means, names = Means(), rounds_of(self.rounds, epoch)
        hidden = None if self.progress else True  # None: hidden unless on a terminal
        bar = tqdm(loader, f"epoch {epoch}", unit="batch", leave=False, delay=SLOW, disable=hidden)
        batches = enumerate(split_all(bar, self.split_batch), start=1)
        while group := list(islice(batches, self.accumulate)):
            shares = self.shares([(truth, size) for _, (_, truth, size) in group])
            for number, name in enumerate(names if shares else ()):
                first = iter([(means, recorded_as(names, number))])  # the first evaluation counts
                with in_round(self.model, name):
                    self.step(partial(self.gradient, group, shares, f"epoch {epoch}", first))
        distributed.share_buffers(self.model)
        record = means.of_all().values()
        if "train_loss" not in record:
            raise ValueError("no label of train counts: the objective ignores all of them")
        return record

    def shares(self, truths: list[tuple[Any, int]]) -> list[_Share]:
        """Returns the shares of (truth, size) of each batch; none if no label of any counts."""
        with distributed.raising_alike(ValueError):
            own = [(n, weight_of(self.objective, truth) if n else 0) for truth, n in truths]
        sizes, weights = zip(*sum(distributed.gathered(own), []), strict=True)
        total, processes = sum(sizes), distributed.processes()
        # gradients are averaged over the processes, and are to add up: hence times their number
        if None in weights:
            return [_Share(processes * n / total, n and total / n, None) for n, _ in own]
        counted = sum(weights)
        return [
            _Share(processes * n / total, n and (w * total) / (counted * n), n * (counted / total))
            for n, w in own
            if counted
        ]

    def gradient(self, group: list, shares: list[_Share], where: str, first: Iterator) -> float:
        """Sets the gradient of the batches of a step as one, clipped; returns their loss."""
        (means, names), loss = next(first, (Means(), ["train_loss"])), 0.0
        self.model.zero_grad()  # the model's parameters and
        self.optimizer.zero_grad()  # the optimiser's may differ
        for (index, (inputs, truth, size)), share in zip(group, shares, strict=True):
            batch = move(inputs, self.device), move(truth, self.device)
            with nullcontext() if index == group[-1][0] else distributed.unreduced(self.loss):
                value = self.backward(batch, share, f"{where}, batch {index}")
            part = value * share.samples / distributed.processes()
            told = part if share.weight is None else value
            means.add(dict.fromkeys(names, told), share.weight)
            loss += part
            for info in attributes(self.model.modules(), "info"):
                if hasattr(info, "summary"):
                    means.add({f"solver_{k}": v for k, v in info.summary().items()}, size)
        if self.clip_norm is not None:
            bound = self.clip_norm * self.scaler.get_scale()  # the gradient is still scaled
            strict = not self.scaler.is_enabled()
            nn.utils.clip_grad_norm_(self.clipped, bound, error_if_nonfinite=strict)
        return loss

    def backward(self, batch: tuple[Any, Any], share: _Share, where: str) -> float:
        """Adds a batch's share to the gradient; returns its loss, keeping nothing of the graph."""
        with distributed.raising_alike(FloatingPointError, ValueError), _single_sample(where):
            loss = self.loss(*batch, share.loss)
            value = loss.item()
            if not math.isfinite(value):
                check_truth(batch[1], where)
                ends = "; fp16 ends at 65504, bf16 does not" if self.scaler.is_enabled() else ""
                raise FloatingPointError(
                    f"the training loss is {value} in {where}; look for non-finite inputs, or try "
                    f"a smaller learning rate or clip_norm{ends}"
                )
            if not loss.requires_grad:
                raise ValueError(
                    f"the training loss must depend on parameters that learn, but in {where} it "
                    "has no gradient; is something detached, or frozen?"
                )
        self.scaler.scale(loss * share.samples).backward()
        return value

    def step(self, gradient: Callable[[], float]) -> None:
        """Takes a step; if a scaled gradient overflows, halves the scale in its place."""
        if _needs_closure(self.optimizer):  # and decides by the loss, on all processes alike
            self.optimizer.step(lambda: sum(distributed.gathered(gradient())))
        else:
            gradient()
            self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() < SMALLEST_SCALE:
            raise FloatingPointError(
                "the gradient is not finite, however little the loss is scaled; try another "
                "precision, or a smaller learning rate"
            )


def _epochs_left(run: Run, epochs: int, patience: int | None, progress: bool) -> Iterator[int]:
    """Yields the numbers of the epochs to do, until patience or a callback says no; draws a bar."""
    done = len(run.history.epochs)
    hidden = None if progress else True  # None: hidden unless on a terminal
    with tqdm(total=epochs, initial=done, unit="epoch", leave=False, disable=hidden) as bar:
        for epoch in range(done + 1, epochs + 1):
            stale = patience is not None and run.history.stale >= patience
            if stale or run.history.ended:
                return
            yield epoch
            last = run.history.epochs[-1]
            bar.set_postfix({name: last[name] for name in ("train_loss", run.key) if name})
            bar.update()


def _needs_closure(optimizer: Optimizer) -> bool:
    """Returns whether the optimiser's step must be given the loss as a function, as LBFGS's."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _check_counts(**counts: int | None) -> None:
    for name, number in counts.items():
        if number is not None and (not isinstance(number, Integral) or number < 1):
            raise ValueError(f"{name} must be at least 1, and a whole number, got {number}")


def _built(
    optimizer: Callable[[list], Optimizer],
    model: nn.Module,
    parameters: Iterable | None,
    precision: str,
    rounds: Schedule | None,
) -> Optimizer:
    """Returns the optimiser of the parameters, by default all of the model's that learn."""
    if parameters is None:
        parameters = (p for p in model.parameters() if p.requires_grad)
    parameters = list(parameters)
    if not parameters:
        raise ValueError("fit needs parameters that require a gradient, but the model has none")
    optim = optimizer(parameters)
    if precision == "fp16" and _needs_closure(optim):
        raise ValueError(
            f"{type(optim).__name__} evaluates the loss itself, which a scaled loss does not "
            "allow; take precision='bf16' or 'fp32', or another optimizer"
        )
    if rounds is not None:
        check_model(model)
        if _needs_closure(optim):
            raise ValueError(
                f"{type(optim).__name__} learns from earlier steps how the loss bends, and rounds "
                "have different losses; take another optimizer, or no rounds"
            )
    return optim


@contextmanager
def _diverging(history: History) -> Iterator[None]:
    """Attaches the history so far to the error of a training that diverges."""
    try:
        yield
    except FloatingPointError as error:
        error.history = history
        raise


@contextmanager
def _single_sample(where: str) -> Iterator[None]:
    """Says what to do about a batch of one sample, where a batch norm refuses it."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # torch's words
            raise
        raise ValueError(
            f"a batch norm of the model cannot train on a single sample, as it meets in {where} "
            f"({error}); take another batch_size, or drop_last=True"
        ) from error
