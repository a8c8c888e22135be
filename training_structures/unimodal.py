"""MultiBench's training of one modality: its names, arguments, printed lines and files.

An encoder and a head are trained as `nn.Sequential(encoder, head)` on one modality of a
multimodal batch. Unlike MultiBench's, validation and tests run in evaluation mode, training moves
the modules to the device, and the first epoch is saved even if its metric is zero.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .batches import as_float
from .fit import History, evaluate, fit
from .multibench import (
    measure_all,
    print_complexity,
    report_epoch,
    report_scores,
    save_whole,
    task_metrics,
)
from .Supervised_Learning import CROSS_ENTROPY, default_device, two_arguments

CLIP_NORM = 8  # MultiBench's


def train(
    encoder: nn.Module,
    head: nn.Module,
    train_dataloader: Iterable,
    valid_dataloader: Iterable,
    total_epochs: int,
    early_stop: bool = False,
    optimtype: Callable[..., Optimizer] = torch.optim.RMSprop,
    lr: float = 0.001,
    weight_decay: float = 0.0,
    criterion: Callable[[Tensor, Tensor], Tensor] = CROSS_ENTROPY,
    auprc: bool = False,
    save_encoder: str | Path = "encoder.pt",
    save_head: str | Path = "head.pt",
    modalnum: int = 0,
    task: str = "classification",
    track_complexity: bool = True,
    *,
    device: torch.device | str | None = None,
    seed: int | None = None,
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    patience: int | None = None,
    resume: bool = False,
    progress: bool = True,
) -> History:
    """Trains the modules in place, prints what MultiBench prints, and saves the best epoch.

    The modules are pickled at `save_encoder` and `save_head`; `<save_encoder>.ckpt` is the
    checkpoint of `fit`, from which `resume` goes on and `load_best` restores
    `nn.Sequential(encoder, head)`. The modules keep the last epoch's weights.

    Batches are [x_1, ..., x_M, y], of which item `modalnum`, from 0 and cast to float, and the
    last one are used. Selection is on accuracy, macro F1 or the loss, by `task`; `early_stop` is
    a patience of 8 epochs; the norm of the gradient is clipped at 8.

    Args:
        encoder: the modality -> its feature.
        head: the feature -> the prediction.
        train_dataloader: batches to train on.
        valid_dataloader: batches to select on.
        total_epochs: at most.
        early_stop: stops after 8 epochs without improvement.
        optimtype: class of the optimiser.
        lr: learning rate.
        weight_decay: of the optimiser.
        criterion: the loss, of prediction and truth. The truth is cast for those of torch's own
            that `deal_with_objective` knows.
        auprc: whether the area under the precision-recall curve is measured, of two classes.
        save_encoder: file of the encoder.
        save_head: file of the head.
        modalnum: which of a batch's inputs is used, from 0.
        task: "classification", "multilabel", "regression" or "posneg-classification".
        track_complexity: whether time, memory and parameters are printed.
        device: by default a GPU, if there is one.
        seed: seeds the run, see `fit`.
        scheduler: builds it from the optimiser, see `fit`.
        patience: epochs without improvement after which to stop, in place of `early_stop`'s 8.
        resume: goes on from `<save_encoder>.ckpt` if it exists.
        progress: shows a bar, on a terminal.

    Returns:
        The record of every epoch, and the best one's weights.
    """
    model = nn.Sequential(encoder, head)
    measure, selected = task_metrics(task, auprc)

    def save_best() -> None:
        save_whole(encoder, save_encoder)
        save_whole(head, save_head)

    started = time.time()
    history = fit(
        model,
        train_dataloader,
        valid_dataloader,
        two_arguments(criterion),
        epochs=total_epochs,
        optimizer=partial(optimtype, lr=lr, weight_decay=weight_decay),
        scheduler=scheduler,
        clip_norm=CLIP_NORM,
        metrics=measure,
        select=selected,
        patience=8 if early_stop and patience is None else patience,
        device=device or default_device(),
        seed=seed,
        checkpoint=f"{save_encoder}.ckpt",
        resume=resume,
        settings={"modalnum": modalnum},
        split_batch=partial(_choose, modalnum),
        callbacks=[partial(report_epoch, task, save_best, None)],
        progress=progress,
    )
    if track_complexity:
        print_complexity("Training", started, model)
    return history


def single_test(
    encoder: nn.Module,
    head: nn.Module,
    test_dataloader: Iterable,
    auprc: bool = False,
    modalnum: int = 0,
    task: str = "classification",
    criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> dict[str, float]:
    """Prints and returns accuracy, F1 scores, or for regression the mean criterion.

    A criterion's mean is printed for every task.
    """
    if task == "regression" and criterion is None:
        raise ValueError(
            "task='regression' is scored by the mean of a criterion, got criterion=None; "
            "pass the loss to report, nn.MSELoss() for example"
        )
    measure, _ = task_metrics(task, auprc)
    scores = evaluate(
        nn.Sequential(encoder, head),
        test_dataloader,
        objective=None if criterion is None else two_arguments(criterion),
        metrics=measure,
        split_batch=partial(_choose, modalnum),
    )
    return report_scores(task, scores, loss="loss", f1="F1 score ({})")


def test(
    encoder: nn.Module,
    head: nn.Module,
    test_dataloaders_all: Iterable | dict[str, list],
    dataset: str = "default",
    method_name: str = "My method",
    auprc: bool = False,
    modalnum: int = 0,
    task: str = "classification",
    criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
    no_robust: bool = False,
) -> dict:
    """Runs `single_test` on one loader (`no_robust`), or on {modality: [loader a noise level]}.

    Returns:
        What `Supervised_Learning.test` returns; `dataset` and `method_name` are not used, either.
    """
    measure = partial(
        single_test,
        encoder,
        head,
        auprc=auprc,
        modalnum=modalnum,
        task=task,
        criterion=criterion,
    )
    return measure_all(measure, nn.Sequential(encoder, head), test_dataloaders_all, no_robust)


def _choose(modalnum: int, batch: list | tuple) -> tuple[Tensor, Tensor]:
    """Returns one modality, as floats, and the truth."""
    if not 0 <= modalnum < len(batch) - 1:  # -1 would be the truth
        raise ValueError(
            f"modalnum must be one of the {len(batch) - 1} inputs of a batch, counted from 0, "
            f"got {modalnum}"
        )
    chosen = batch[modalnum]
    if not isinstance(chosen, Tensor):
        raise TypeError(
            f"input {modalnum} of a batch must be a tensor, got {type(chosen).__name__}; "
            "a packed batch ([x_1, ...], [lengths_1, ...], ..., y) needs Supervised_Learning"
        )
    return as_float(chosen, f"input {modalnum}"), batch[-1]
