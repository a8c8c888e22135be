"""MultiBench's gradient blending: its names, arguments, printed lines and file, over `fit`.

Heads on each encoder and on the fused feature are trained together, see `blending`. Unlike
MultiBench's, the file holds a fusion that was trained: the fusion and the head that are fine-tuned
are copies of the trained ones, made when a round of blending is over, and both learn. Losses of
trials, fine-tuning, validation and tests are measured with the encoders in evaluation mode.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from tqdm import tqdm

from . import distributed
from .batches import as_float, split_last
from .blending import BLEND, BlendedLoss, Blending, Heads, hold_out, normalised, trial, worth
from .fine_tuning import Encoded, FineTuning
from .fit import History, evaluate, fit
from .metrics import average_precision
from .multibench import measure_all, print_complexity, save_whole, task_metrics
from .Supervised_Learning import default_device, two_arguments

criterion: Callable[..., Tensor] = nn.CrossEntropyLoss()
"""The loss of every head, of (prediction, truth). MultiBench's users assign another one here."""

delta = False
"""Whether weights are by differences, as in the paper; see `blending.worth`. Likewise."""

say = tqdm.write  # print, but beside a progress bar


class completeModule(nn.Module):
    """Encoders, a fusion and a head as one model: what is saved.

    Args:
        encoders: one a modality.
        fuse: the encoders' outputs -> the fused feature.
        head: the fused feature -> the prediction.
    """

    def __init__(self, encoders: Iterable[nn.Module], fuse: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.fuse = fuse
        self.head = head

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """Maps [x_1, ..., x_M] to the prediction."""
        return self.head(self.fuse([encoder(x[i]) for i, encoder in enumerate(self.encoders)]))


class _Blended(completeModule):
    """A complete module with a head on each encoder, and the weights of all heads' losses."""

    weights: Tensor

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        fuse: nn.Module,
        head: nn.Module,
        heads: Sequence[nn.Module],
    ) -> None:
        super().__init__(encoders, fuse, head)
        if len(heads) != len(encoders):
            raise ValueError(
                "unimodal_classification_heads must be one for each of the "
                f"{len(encoders)} unimodal_models, got {len(heads)}"
            )
        self.heads = nn.ModuleList(heads)
        count = len(heads) + 1
        self.register_buffer("weights", torch.full((count,), 1 / count))
        self.round: str | None = None

    def forward(self, x: Sequence[Tensor]) -> Any:
        """Maps [x_1, ..., x_M] to the fused prediction, when blending with those of the heads."""
        if self.round != BLEND:
            return super().forward(x)
        features = Encoded(self.encoders)(x)
        alone = [head(feature) for head, feature in zip(self.heads, features, strict=True)]
        return self.head(self.fuse(features)), Heads(alone, self.weights)


def gb_estimate(
    unimodal_models: Sequence[nn.Module],
    multimodal_classification_head: nn.Module,
    fuse: nn.Module,
    unimodal_classification_heads: Sequence[nn.Module],
    train_dataloader: Iterable,
    gb_epoch: int,
    batch_size: int | None,
    v_dataloader: Iterable,
    lr: float,
    weight_decay: float = 0.0,
    optimtype: Callable[..., Optimizer] = torch.optim.SGD,
) -> list[float]:
    """Trains copies of each encoder with its head, and of all together, and prints how it went.

    Args:
        unimodal_models: encoders, one a modality.
        multimodal_classification_head: the fused feature -> the prediction.
        fuse: the encoders' outputs -> the fused feature.
        unimodal_classification_heads: an encoder's output -> a prediction, one a modality.
        train_dataloader: batches [x_1, ..., x_M, y] to train on.
        gb_epoch: for how many epochs.
        batch_size: not used, as in MultiBench.
        v_dataloader: batches of samples that are held out.
        lr: learning rate.
        weight_decay: of the optimiser.
        optimtype: class of the optimiser.

    Returns:
        The weights of the losses, which sum to 1: one a modality, then that of the fused.
    """
    optimizer = partial(optimtype, lr=lr, weight_decay=weight_decay)
    worths = []
    parts = zip(unimodal_models, unimodal_classification_heads, strict=True)
    for number, (encoder, head) in enumerate(parts):
        say(f"At gb_estimate unimodal {number}")
        copy = nn.Sequential(deepcopy(encoder), deepcopy(head))
        options = {"optimizer": optimizer, "split_batch": partial(_split, number)}
        worths.append(_tried(copy, train_dataloader, v_dataloader, gb_epoch, options))
    say("At gb_estimate multimodal ")
    whole = completeModule(unimodal_models, fuse, multimodal_classification_head)
    options = {"optimizer": optimizer, "split_batch": partial(_split, None)}
    worths.append(_tried(deepcopy(whole), train_dataloader, v_dataloader, gb_epoch, options))
    return normalised(worths)


def _tried(
    model: nn.Module, train: Iterable, held_out: Iterable, epochs: int, options: dict[str, Any]
) -> float:
    """Returns the worth of a head, and prints how its trial went."""

    def report(history: History) -> None:
        record = history.epochs[-1]
        say(f"Epoch {record['epoch'] - 1} loss: {torch.tensor(record['train_loss'])!s}")

    loss = two_arguments(criterion)
    options = {**options, "epochs": epochs, "callbacks": [report]}
    before, after = trial(model, train, held_out, loss, **options)
    ends = [f"{torch.tensor(value)!s}" for value in after]
    say(f"Final train loss: {ends[0]} valid loss: {ends[1]}")
    raw = worth(before, after, delta=delta)
    say(f"raw: {torch.tensor(raw)!s}")
    return raw


def train(
    unimodal_models: Sequence[nn.Module],
    multimodal_classification_head: nn.Module,
    unimodal_classification_heads: Sequence[nn.Module],
    fuse: nn.Module,
    train_dataloader: DataLoader,
    valid_dataloader: Iterable,
    num_epoch: int,
    lr: float,
    gb_epoch: int = 20,
    v_rate: float = 0.08,
    weight_decay: float = 0.0,
    optimtype: Callable[..., Optimizer] = torch.optim.SGD,
    finetune_epoch: int = 25,
    classification: bool = True,
    AUPRC: bool = False,
    savedir: str | Path = "best.pt",
    track_complexity: bool = True,
    *,
    device: torch.device | str | None = None,
    seed: int | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> History:
    """Trains the modules in place, prints what MultiBench prints, and saves the best fine-tuned.

    The first `v_rate` of the training set are held out. Every `gb_epoch` epochs the heads are
    weighed anew, by trials on them; when these epochs of the blended loss are over, copies of
    fusion and head are fine-tuned on what the encoders make of the training set, and the best by
    the loss of `valid_dataloader` so far is pickled at `savedir`, as a `completeModule`. The
    modules keep the weights of the last blended epoch.

    Args:
        unimodal_models: encoders, one a modality.
        multimodal_classification_head: the fused feature -> the prediction.
        unimodal_classification_heads: an encoder's output -> a prediction, one a modality.
        fuse: the encoders' outputs -> the fused feature.
        train_dataloader: a DataLoader of batches [x_1, ..., x_M, y]; see `hold_out`.
        valid_dataloader: batches to select on.
        num_epoch: epochs of the blended loss; as many as are whole rounds of `gb_epoch`.
        lr: learning rate.
        gb_epoch: epochs between estimates of the weights, and of each trial.
        v_rate: share of the training set that is held out for these.
        weight_decay: of the optimiser.
        optimtype: class of the optimiser.
        finetune_epoch: epochs of each fine-tuning.
        classification: whether accuracy is printed.
        AUPRC: whether the area under the precision-recall curve is, of two classes.
        savedir: file of the whole model.
        track_complexity: whether time, memory and parameters are printed.
        device: by default a GPU, if there is one.
        seed: seeds the run, see `fit`.
        checkpoint: of `fit`, by default `<savedir>.ckpt`.
        resume: goes on from the checkpoint if it exists.
        progress: shows a bar, on a terminal.

    Returns:
        The record of every epoch: also the heads' weights, `weight_<number>`, and where there was
        a fine-tuning the best loss on validation data in it, `finetuned_loss`.

    Raises:
        ValueError: for numbers of epochs or a share that make no sense, or in a process group.
    """
    _check_epochs(num_epoch, gb_epoch, finetune_epoch)
    rest, held_out = hold_out(train_dataloader, v_rate)
    parts = unimodal_models, fuse, multimodal_classification_head
    model = _Blended(*parts, unimodal_classification_heads)
    optimizer = partial(optimtype, lr=lr, weight_decay=weight_decay)

    def weigh() -> list[float]:
        others = (unimodal_classification_heads, rest, gb_epoch, None, held_out)
        return gb_estimate(
            *(unimodal_models, multimodal_classification_head, fuse, *others),
            *(lr, weight_decay, optimtype),
        )

    blending = Blending(model, weigh, gb_epoch)
    tuning = FineTuning(
        *(model, rest, valid_dataloader, two_arguments(criterion), optimizer),
        every=gb_epoch,
        epochs=finetune_epoch,
        split_batch=partial(_split, None),
        metrics=partial(_measured, classification, AUPRC),
        save=partial(_save, model.encoders, savedir),
        report=_report_tuned,
    )
    started = time.time()
    history = fit(
        model,
        rest,
        None,
        BlendedLoss(two_arguments(criterion)),
        epochs=num_epoch // gb_epoch * gb_epoch,
        optimizer=optimizer,
        rounds=blending,
        device=device or default_device(),
        seed=seed,
        checkpoint=f"{savedir}.ckpt" if checkpoint is None else checkpoint,
        resume=resume,
        settings={
            "gb_epoch": gb_epoch,
            "v_rate": v_rate,
            "finetune_epoch": finetune_epoch,
            "delta": delta,
        },
        split_batch=partial(_split, None),
        callbacks=[blending.record, partial(_report_blended, model, gb_epoch), tuning],
        progress=progress,
    )
    if track_complexity:
        print_complexity("Training", started, model)
    return history


def single_test(
    model: nn.Module,
    test_dataloader: Iterable,
    auprc: bool = False,
    classification: bool = True,
) -> dict[str, float]:
    """Prints the mean loss and the scores; returns accuracy or, without classes, that mean loss."""
    scores = evaluate(
        model,
        test_dataloader,
        objective=two_arguments(criterion),
        metrics=partial(_measured, classification, auprc),
        split_batch=partial(_split, None),
    )
    _print_scores("test loss", scores, classification)
    return {"Accuracy": scores["accuracy"]} if classification else {"MSE": scores["loss"]}


def test(
    model: nn.Module,
    test_dataloaders_all: Iterable | dict[str, list],
    dataset: str,
    method_name: str = "My method",
    auprc: bool = False,
    classification: bool = True,
    no_robust: bool = False,
) -> dict:
    """Runs `single_test` on one loader (`no_robust`), or on {modality: [loader a noise level]}.

    Returns:
        What `Supervised_Learning.test` returns; `dataset` and `method_name` are not used, either.
    """
    measure = partial(single_test, model, auprc=auprc, classification=classification)
    return measure_all(measure, model, test_dataloaders_all, no_robust)


def _split(number: int | None, batch: list | tuple) -> tuple[Any, Tensor]:
    """Returns all inputs, or the one of that number, as floats; and the truth, (n, 1) as (n,)."""
    inputs, truth = split_last(batch)
    floats = [as_float(x, f"input {i}") for i, x in enumerate(inputs)]
    single = truth.numel() == len(truth)
    return floats if number is None else floats[number], truth.reshape(-1) if single else truth


def _measured(
    classification: bool, auprc: bool, prediction: Tensor, truth: Tensor
) -> dict[str, float]:
    if classification:
        measure, _ = task_metrics("classification", auprc)
        return measure(prediction, truth)
    return {"auprc": average_precision(prediction, truth)} if auprc else {}


def _report_blended(model: _Blended, gb_epoch: int, history: History) -> None:
    record = history.epochs[-1]
    number = record["epoch"] - 1
    if number % gb_epoch == 0:
        say(f"epoch {number} weights: {model.weights.tolist()}")
    say(f"epoch {number} blend train loss: {torch.tensor(record['train_loss'])!s}")


def _save(
    encoders: Iterable[nn.Module], path: str | Path, fuse: nn.Module, head: nn.Module
) -> None:
    say("Saving best")
    save_whole(completeModule(encoders, fuse, head), path)


def _report_tuned(epoch: int, record: dict[str, float], samples: int) -> None:
    if record["epoch"] == 1:
        say(f"Length of ftt_dataloader: {samples}")
    say(f"finetune train loss: {torch.tensor(record['train_loss'])!s}")
    scores = {name[len("valid_") :]: v for name, v in record.items() if name.startswith("valid_")}
    _print_scores(f"epoch {epoch - 1} valid loss", scores, "accuracy" in scores)


def _print_scores(what: str, scores: dict[str, float], classification: bool) -> None:
    accuracy = f" acc: {scores['accuracy']}" if classification else ""
    say(f"{what}: {torch.tensor(scores['loss'])!s}{accuracy}")
    if "auprc" in scores:
        say(f"With AUPRC: {scores['auprc']}")


def _check_epochs(num_epoch: int, gb_epoch: int, finetune_epoch: int) -> None:
    for name, number in {"gb_epoch": gb_epoch, "finetune_epoch": finetune_epoch}.items():
        if not isinstance(number, Integral) or number < 1:
            raise ValueError(f"{name} must be a whole number from 1 up, got {number}")
    if not isinstance(num_epoch, Integral) or num_epoch < gb_epoch:
        raise ValueError(
            f"num_epoch must be a whole number, at least the {gb_epoch} of gb_epoch, after which "
            f"there is a model to save, got {num_epoch}"
        )
    if distributed.processes() > 1:
        raise ValueError("gradient_blend trains in one process; start it without torchrun")
