"""Evaluation: means over samples, and metrics over a whole set."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from .batches import Split, first_tensor, join, move, split_all, split_last, widened
from .choices import PRECISIONS
from .distributed import Sharded, from_main, gathered, gathered_by_main, raising_alike
from .labels import IGNORED
from .objectives import NoPairs, Objective, loss_of, weight_of

Metrics = Callable[[Any, Any], dict[str, float]]
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def evaluate(
    model: nn.Module,
    loader: Iterable,
    *,
    objective: Objective | None = None,
    metrics: Metrics | None = None,
    device: torch.device | str | None = None,
    precision: str = "fp32",
    split_batch: Split = split_last,
) -> dict[str, float]:
    """Returns the `loss` of all samples as one batch, if there is an objective, and the metrics.

    Runs in evaluation mode without gradients; every module's mode is restored. With several
    processes each evaluates all that `loader` gives; if that is `sharded`, they divide the work,
    and all return the result of the whole.

    Args:
        model: any module, called as `fit` calls it.
        loader: batches of the whole set.
        objective: the loss; None leaves it out.
        metrics: (prediction, truth) of the whole set, on the CPU, to named numbers.
        device: where to run; by default where the model is.
        precision: "fp32", or autocast to "bf16" or "fp16"; metrics see float32.
        split_batch: batch to (inputs, truth).

    Raises:
        ValueError: for batches or metrics that make no sense, a truth that is not finite where
            the loss then is not, or if no label of the set counts.
    """
    means, kept = Means(), []
    device = place(model, device)
    together = isinstance(loader, Sharded)
    alike = raising_alike(FloatingPointError, ValueError) if together else nullcontext()
    with _evaluating(model), alike:
        batches = enumerate(split_all(loader, split_batch), start=1)
        for number, (inputs, truth, size) in batches:
            with autocast(device, precision):
                prediction, *extras = call(model, move(inputs, device))
                weight = weight_of(objective, truth) if size and objective is not None else 0
                if weight != 0:  # None is no 0: losses that add up have no weight
                    with watched(prediction, first=number == 1):
                        loss = loss_of(objective, prediction, move(truth, device), *extras).item()
                    if not math.isfinite(loss):
                        check_truth(truth, f"batch {number}")
                    means.add({"loss": loss}, weight)
            if metrics is not None:
                if precision != "fp32":
                    prediction = widened(prediction)
                # None keeps a place, so that every process has as many as there are batches
                kept.append((move(prediction, "cpu"), move(truth, "cpu")) if size else None)
    scores = {}
    if together:
        means, batches = means.of_all(), zip(*gathered_by_main(kept), strict=True)
        kept = [share for batch in batches for share in batch if share is not None]
        with raising_alike(ValueError):  # as metrics do of what they cannot score
            if metrics is not None and kept:
                scores = _numbers(metrics(*join(kept)))
        scores = from_main(scores)
    elif metrics is not None:
        scores = _numbers(metrics(*join(kept)))
    if objective is not None and "loss" not in means.sums:
        raise ValueError("no label of the set counts: the objective ignores all of them")
    return means.values() | scores


def watched(prediction: Any, *, first: bool) -> AbstractContextManager:
    """Returns the context to call an objective in: the first batch shows what it broadcasts."""
    return NoPairs(prediction) if first else nullcontext()


def check_truth(truth: Any, where: str) -> None:
    """Raises ValueError if the truth of a batch whose loss is not finite is the reason."""
    try:
        truth = first_tensor(truth)
    except TypeError:  # without a tensor there is nothing to look at
        return
    if not torch.isfinite(truth).all():
        raise ValueError(f"the truth is not finite in {where}, so neither is the loss")
    if (truth == IGNORED).all():
        raise ValueError(
            f"every label is {IGNORED}, which torch ignores, in {where}, so its loss is not "
            "finite; let the objective say what a batch counts by `batch_weight(truth)`"
        )


def _numbers(scores: Any) -> dict[str, float]:
    """Returns what metrics gave as plain numbers."""
    if not isinstance(scores, Mapping):
        raise ValueError(f"metrics must return a dict of numbers, got {type(scores).__name__}")
    numbers = {}
    for name, value in scores.items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: of many numbers
            raise ValueError(
                f"metrics must return a dict of numbers, but {name!r} is a {type(value).__name__}"
            ) from error
    return numbers


def predict(
    model: nn.Module,
    loader: Iterable,
    *,
    device: torch.device | str | None = None,
    split_batch: Split = split_last,
) -> tuple[Any, Any]:
    """Returns (prediction, truth) of all samples, in the loader's order, on the CPU.

    Args:
        model: any module, called as `fit` calls it.
        loader: batches of the whole set.
        device: where to run; by default where the model is.
        split_batch: batch to (inputs, truth).
    """
    kept = []

    def keep(prediction: Any, truth: Any) -> dict[str, float]:
        kept.extend((prediction, truth))
        return {}

    evaluate(model, loader, metrics=keep, device=device, split_batch=split_batch)
    prediction, truth = from_main(kept) if isinstance(loader, Sharded) else kept
    return prediction, truth


def inputs_of(
    module: nn.Module,
    model: nn.Module,
    loader: Iterable,
    *,
    enough: int | None = None,
    device: torch.device | str | None = None,
    split_batch: Split = split_last,
) -> tuple[Any, Any]:
    """Returns (what reaches a part of the model as its argument, truth), on the CPU.

    Args:
        module: the part, such as the fusion; it must be called once a batch.
        model: the whole, called with a batch's inputs.
        loader: batches to run it on.
        enough: samples after which no further batch is read; None: all are.
        device: where to run it; by default where the model is.
        split_batch: batch to (inputs, truth), see `fit`.

    Raises:
        ValueError: if the part is not called exactly once a batch, with one argument.
    """
    seen: list[Any] = []
    kept, count = [], 0

    def keep(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        given = [name for name, value in kwargs.items() if value is not None]
        if len(args) != 1 or given:
            raise ValueError(
                f"{type(module).__name__} must get what reaches it as its one argument, but got "
                f"{len(args)} and the keywords {given}"
            )
        seen.append(deepcopy(move(args[0], "cpu")))  # a part may change it in place

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    device = place(model, device)
    try:
        with _evaluating(model):
            for inputs, truth, size in split_all(loader, split_batch):
                call(model, move(inputs, device))
                if len(seen) != len(kept) + 1:
                    raise ValueError(
                        f"{type(module).__name__} must be called once a batch to tell what reaches "
                        f"it, but was called {len(seen) - len(kept)} times; name another part"
                    )
                kept.append(truth)
                count += size
                if enough is not None and count >= enough:
                    break
    finally:
        handle.remove()
    return join(seen), join(move(kept, "cpu"))


class TrainingLoss(nn.Module):
    """The loss of a batch: all that its gradient depends on, as one module."""

    def __init__(
        self, model: nn.Module, objective: Objective, precision: str, device: torch.device
    ) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.precision, self.device = precision, device
        self.first = True

    def forward(self, inputs: Any, truth: Any, share: float = 1.0) -> Tensor:
        """Returns the objective times `share` and what submodules add; a share of 0 leaves it out.

        Without it the loss depends on the prediction all the same, with a gradient of zero.
        """
        with autocast(self.device, self.precision):
            prediction, *extras = call(self.model, inputs)
            if share == 0:
                loss = first_tensor(prediction)[:0].sum()
            else:
                with watched(prediction, first=self.first):
                    loss = loss_of(self.objective, prediction, truth, *extras)
                loss = loss if share == 1 else loss * share
                self.first = False
            if not getattr(self.objective, "adds_auxiliary_loss", False):
                modules = list(self.model.modules())
                own = filter(callable, dict.fromkeys(attributes(modules, "supervised_loss")))
                loss = sum(attributes(modules, "auxiliary_loss"), loss)
                loss = loss + sum(f(truth) for f in own)
        return loss


def attributes(modules: Iterable[nn.Module], name: str) -> Iterable[Any]:
    """Returns the modules' attributes of that name, once each: hosts may pass them on."""
    values = (getattr(module, name, None) for module in modules)
    return {id(value): value for value in values if value is not None}.values()


class Means:
    """Weighted means of named numbers, each over the times it was given, and sums."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, float | None]] = {}

    def add(self, numbers: dict[str, float], weight: float | None) -> None:
        """Adds numbers to their means; with no weight to their sums."""
        if weight == 0:  # a number that is not finite would count all the same
            return
        for name, number in numbers.items():
            number = float(number)
            if weight is None:
                self._add(name, number, None)
            else:
                self._add(name, weight * number, weight)

    def of_all(self) -> "Means":
        """Returns the means over what all processes were given."""
        result = Means()
        for sums in gathered(self.sums):
            for name, (total, weights) in sums.items():
                result._add(name, total, weights)
        return result

    def _add(self, name: str, total: float, weights: float | None) -> None:
        before, already = self.sums.get(name, (0.0, 0))
        self.sums[name] = before + total, None if weights is None else already + weights

    def values(self) -> dict[str, float]:
        return {
            name: total if weights is None else total / weights
            for name, (total, weights) in self.sums.items()
        }


def call(model: nn.Module, inputs: Any) -> tuple:
    """Returns (prediction,) or, of a model that returns an exact tuple, (prediction, extras)."""
    output = model(inputs)
    return output if type(output) is tuple else (output,)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Returns the context in which forward and objective run at a precision of `PRECISIONS`.

    Raises:
        ValueError: for another precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {list(PRECISIONS)}, got {precision!r}")
    if precision not in HALF:
        return nullcontext()
    return torch.autocast(device.type, HALF[precision])


def usable(device: torch.device | str) -> torch.device:
    """Returns the device; raises ValueError unless torch has it here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
        raise ValueError(
            f'device must be one that torch has here, such as "cpu" or "cuda", got {device!r} '
            f"({reason})"
        ) from error
    return torch.device(device)


def place(model: nn.Module, device: torch.device | str | None) -> torch.device:
    """Moves the model if a device is given; returns where it is."""
    if device is not None:
        model.to(device)
        return torch.device(device)
    tensors = chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's own mode is put back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
