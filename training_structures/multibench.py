"""MultiBench's habits around a loop: the inputs, printed lines and files of `train` and `test`."""

import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import metrics
from .batches import as_float
from .files import save_atomically
from .run import History

TASKS = {  # metrics, and which of them (or the loss) selects
    "classification": (metrics.classification, "accuracy"),
    "multilabel": (metrics.multilabel, "f1_macro"),
    "regression": (metrics.regression, "loss"),
    "posneg-classification": (metrics.posneg, "loss"),
}

OF_A_BATCH = ("reps", "fused", "inputs", "training", "model")  # what MultiBench tells of each


class Trained(nn.Module):
    """An MMDL and what is trained beside it, telling the objective what MultiBench tells it.

    Its parameters have the names they have in the MMDL, so that checkpoints fit either. It
    returns (prediction, args).
    """

    model: Any  # an MMDL, of which torch's hints know no attribute

    def __init__(
        self, model: nn.Module, additional: Iterable[nn.Module], args: dict | None, to_float: bool
    ) -> None:
        super().__init__()
        self.encoders, self.fuse, self.head = model.encoders, model.fuse, model.head
        self.additional = nn.ModuleList(additional)
        self.__dict__["model"] = model  # not registered: its parts are
        self.args, self.to_float = args, to_float
        self.train()

    def train(self, mode: bool = True) -> "Trained":
        """Sets the mode, and counts from here the time, and if training the samples."""
        self.model.training = mode
        self.since = time.time()
        if mode:
            self.samples = {"train": 0, "valid": 0}
        return super().train(mode)

    def forward(self, inputs: list) -> tuple[Tensor, dict | None]:
        packed = self.model.has_padding
        plain = torch.backends.cudnn.flags(enabled=False) if packed and self.training else None
        with plain or nullcontext():
            prediction = self.model(ready(inputs, packed, self.to_float))
        self.samples["train" if self.training else "valid"] += len(prediction)
        if self.args is not None:
            model = self.model
            values = model.reps, model.fuseout, inputs, self.training, model
            self.args.update(zip(OF_A_BATCH, values, strict=True))
        return prediction, self.args

    def __getstate__(self) -> dict[str, Any]:
        # neither are copied or pickled: the last batch, its graph
        own = self.args and {k: v for k, v in self.args.items() if k not in OF_A_BATCH}
        return {**self.__dict__, "args": own}

    def groups(self, fusion_lr: float | None) -> list:
        """Returns the trainable parameters, the fusion's apart if they have their own rate."""
        trainable = [p for p in self.parameters() if p.requires_grad]
        if fusion_lr is None:
            return trainable
        fusion = {id(p) for p in self.fuse.parameters()}
        own = [p for p in trainable if id(p) in fusion]
        rest = [p for p in trainable if id(p) not in fusion]
        return [{"params": rest}, {"params": own, "lr": fusion_lr}]


def ready(inputs: list, is_packed: bool, to_float: bool) -> list:
    """Returns what an MMDL is called with.

    Raises:
        ValueError: for numbers beyond float32.
    """
    features = list(inputs[0] if is_packed else inputs)
    if to_float:
        features = [as_float(x, f"input {i}") for i, x in enumerate(features)]
    return [features, inputs[1]] if is_packed else features


def task_metrics(task: str, auprc: bool) -> tuple[Callable[[Tensor, Tensor], dict], str]:
    """Returns a task's metrics, and the name of the one that selects."""
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; choose from {sorted(TASKS)}")
    measure, selected = TASKS[task]

    def with_auprc(prediction: Tensor, truth: Tensor) -> dict[str, float]:
        area = metrics.average_precision(prediction, truth)
        return measure(prediction, truth) | {"auprc": area}

    return (with_auprc if auprc else measure), selected


def save_whole(module: nn.Module, path: str | Path) -> None:
    """Pickles a module, in evaluation mode as MultiBench leaves it in the file."""
    save_atomically(path, partial(torch.save, module.eval()))


def report_epoch(
    task: str, save: Callable[[], None], timed: Trained | None, history: History
) -> None:
    """Prints the last epoch's lines, with samples and time if `timed`; saves if it is the best."""
    say, record = tqdm.write, history.epochs[-1]  # print, but beside a progress bar
    epoch = f"Epoch {record['epoch'] - 1}"
    say(f"{epoch} train loss: {torch.tensor(record['train_loss'])!s}")
    if timed:
        say(f"train total: {timed.samples['train']}")
    loss = torch.tensor(record["valid_loss"])
    if task == "classification":
        say(f"{epoch} valid loss: {loss!s} acc: {record['valid_accuracy']}")
    elif task == "multilabel":
        scores = f"f1_micro: {record['valid_f1_micro']} f1_macro: {record['valid_f1_macro']}"
        say(f"{epoch} valid loss: {loss!s} {scores}")
    elif task == "regression":
        say(f"{epoch} valid loss: {record['valid_loss']}")
    if not history.stale:
        say("Saving Best")
        save()
    if "valid_auprc" in record:
        say(f"AUPRC: {record['valid_auprc']}")
    if timed:
        say(f"valid time:  {time.time() - timed.since}")
        say(f"Valid total: {timed.samples['valid']}")


def report_scores(task: str, scores: dict[str, float], *, loss: str, f1: str) -> dict[str, float]:
    """Prints a test's lines, and returns what MultiBench returns.

    Args:
        task: as of `train`.
        scores: of the test part.
        loss: what the line of the mean criterion calls it.
        f1: name of a multilabel score, with {} for its average.
    """
    if "auprc" in scores:
        print(f"AUPRC: {scores['auprc']}")
    if "loss" in scores:
        print(f"{loss}: {scores['loss']}")
    if task == "multilabel":
        print(f" f1_micro: {scores['f1_micro']} f1_macro: {scores['f1_macro']}")
        return {f1.format(average): scores[f"f1_{average}"] for average in ("micro", "macro")}
    if task == "regression":
        return {"MSE": scores["loss"]}
    if task == "posneg-classification":
        print(f"acc: {scores['accuracy_nonzero']}, {scores['accuracy']}")
        return {"Accuracy": scores["accuracy_nonzero"]}
    print(f"acc: {scores['accuracy']}")
    return {"Accuracy": scores["accuracy"]}


def print_complexity(what: str, started: float, model: nn.Module) -> None:
    """Prints seconds since `started`, in training the peak memory in MiB, and parameters."""
    print(f"{what} Time: {time.time() - started}")
    if what == "Training":
        try:
            import resource  # not on every system
        except ImportError:
            pass
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(f"Training Peak Mem: {peak / (2**20 if sys.platform == 'darwin' else 2**10)}")
    print(f"{what} Params: {sum(p.numel() for p in model.parameters())}")


def measure_all(
    measure: Callable[[Iterable], dict[str, float]],
    model: nn.Module,
    loaders: Iterable | dict[str, list],
    no_robust: bool,
) -> dict:
    """Measures one loader (`no_robust`), or {modality: [loader a noise level]}: see `test`."""
    noisy = isinstance(loaders, dict)
    if noisy == no_robust or (noisy and not all(loaders.values())):
        raise TypeError(
            "test_dataloaders_all must be one loader with no_robust=True, a dict of modality to a "
            "list of loaders (one a noise level) without it, "
            f"got {type(loaders).__name__} with {no_robust=}"
        )
    started = time.time()
    scores = measure(next(iter(loaders.values()))[0] if noisy else loaders)
    print_complexity("Inference", started, model)
    if not noisy:
        return scores
    return {name: robustness([measure(loader) for loader in row]) for name, row in loaders.items()}


def robustness(scores: list[dict[str, float]], step: float = 0.1) -> dict[str, dict]:
    """Returns every metric's values over noise levels and the area under them (trapezoids)."""
    curves = {name: [level[name] for level in scores] for name in scores[0]}
    return {
        name: {
            "levels": curve,
            "area": step * sum((a + b) / 2 for a, b in zip(curve, curve[1:], strict=False)),
        }
        for name, curve in curves.items()
    }
