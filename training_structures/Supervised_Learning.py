"""MultiBench's supervised training: its names, arguments, printed lines and files, over `fit`."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .batches import as_float
from .fit import History, evaluate, fit
from .multibench import (
    Trained,
    measure_all,
    print_complexity,
    ready,
    report_epoch,
    report_scores,
    save_whole,
    task_metrics,
)
from .objectives import fitted

CROSS_ENTROPY = nn.CrossEntropyLoss()
KNOWN = (nn.CrossEntropyLoss, nn.MSELoss, nn.BCEWithLogitsLoss, nn.L1Loss)


class MMDL(nn.Module):
    """Encoders, a fusion and a head as one model.

    Attributes:
        reps: the encoders' outputs of the last forward; no part of a copy or a file.
        fuseout: what the fusion returned then; likewise.
    """

    def __init__(
        self,
        encoders: Iterable[nn.Module],
        fusion: nn.Module,
        head: nn.Module,
        has_padding: bool = False,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.fuse = fusion
        self.head = head
        self.has_padding = has_padding
        self.fuseout = None
        self.reps = []

    def forward(self, inputs: list) -> Tensor:
        """Maps [x_1, ..., x_M], or with padding [[x_1, ...], [lengths_1, ...]], to a prediction.

        The head gets the fused feature; of an exact tuple, its first item. With padding, encoders
        that return [output, ...] have the head called with [fused, lengths_1].
        """
        if self.has_padding:
            # packing a sequence takes its lengths on the CPU
            lengths = [n.cpu() if isinstance(n, Tensor) else n for n in inputs[1]]
            inputs = [list(pair) for pair in zip(inputs[0], lengths, strict=False)]
        self.reps = [self.encoders[i](x) for i, x in enumerate(inputs)]
        nested = self.has_padding and not isinstance(self.reps[0], Tensor)
        self.fuseout = self.fuse([rep[0] for rep in self.reps] if nested else self.reps)
        fused = self.fuseout[0] if type(self.fuseout) is tuple else self.fuseout
        return self.head([fused, lengths[0]] if nested else fused)

    def __getstate__(self) -> dict[str, Any]:
        # the graph of the last forward can be neither copied nor pickled, and its data are not ours
        return {**self.__dict__, "reps": [], "fuseout": None}


def deal_with_objective(
    objective: Callable[..., Tensor], pred: Tensor, truth: Tensor, args: dict | None
) -> Tensor:
    """Returns the objective; any but four of torch's own losses gets all three arguments."""
    kind = type(objective)  # not isinstance: a subclass may take three
    if kind not in KNOWN:
        return objective(pred, truth, args)
    truth = truth.to(pred.device)
    if kind is not nn.CrossEntropyLoss:
        truth = as_float(truth, "the truth")
    return objective(pred, fitted(objective, pred, truth))


def dealing(objective: Callable[..., Tensor], **given: Any) -> Callable[..., Tensor]:
    """Returns `deal_with_objective` of an objective, which still tells what its batches count."""
    deal = partial(deal_with_objective, objective, **given)
    deal.__wrapped__ = objective
    deal.adds_auxiliary_loss = getattr(objective, "adds_auxiliary_loss", False)
    return deal


def two_arguments(criterion: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns a loss of prediction and truth; four of torch's own get the truth as they need it."""
    return dealing(criterion, args=None) if type(criterion) in KNOWN else criterion


def default_device() -> str:
    """Returns where MultiBench trains."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def train(
    encoders: Iterable[nn.Module],
    fusion: nn.Module,
    head: nn.Module,
    train_dataloader: Iterable,
    valid_dataloader: Iterable,
    total_epochs: int,
    additional_optimizing_modules: Iterable[nn.Module] = (),
    is_packed: bool = False,
    early_stop: bool = False,
    task: str = "classification",
    optimtype: Callable[..., Optimizer] = torch.optim.RMSprop,
    lr: float = 0.001,
    weight_decay: float = 0.0,
    objective: Callable[..., Tensor] = CROSS_ENTROPY,
    auprc: bool = False,
    save: str | Path = "best.pt",
    validtime: bool = False,
    objective_args_dict: dict | None = None,
    input_to_float: bool = True,
    clip_val: float | None = 8,
    track_complexity: bool = True,
    *,
    device: torch.device | str | None = None,
    seed: int | None = None,
    fusion_lr: float | None = None,
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    accumulation: int = 1,
    selection: str | None = None,
    patience: int | None = None,
    resume: bool = False,
    progress: bool = True,
) -> History:
    """Trains the modules in place, prints what MultiBench prints, and saves the best epoch.

    The whole model is pickled at `save`; `<save>.ckpt` beside it is the checkpoint of `fit`, from
    which `resume` goes on and `load_best` restores. The modules keep the last epoch's weights.

    Batches are [x_1, ..., x_M, y], or if `is_packed` ([x_m], [lengths_m], ..., y). Selection is on
    accuracy, macro F1 or the loss, by `task`; `early_stop` is a patience of 8 epochs. The modules
    in `additional_optimizing_modules` are trained too, but neither clipped nor pickled. A dict
    given as `objective_args_dict` holds `reps`, `fused`, `inputs`, `training` and `model` of the
    batch whenever the objective is called with it.

    Args:
        encoders: one a modality.
        fusion: the encoders' outputs -> the fused feature.
        head: the fused feature -> the prediction.
        train_dataloader: batches to train on.
        valid_dataloader: batches to select on.
        total_epochs: at most.
        additional_optimizing_modules: what else is trained, such as an objective's own modules.
        is_packed: whether a batch has the modalities in a list, and their lengths in another.
        early_stop: stops after 8 epochs without improvement.
        task: "classification", "multilabel", "regression" or "posneg-classification".
        optimtype: class of the optimiser.
        lr: learning rate.
        weight_decay: of the optimiser.
        objective: the loss; any but four of torch's own is called with (prediction, truth,
            objective_args_dict).
        auprc: whether the area under the precision-recall curve is measured, of two classes.
        save: file of the whole model.
        validtime: whether times and numbers of samples are printed.
        objective_args_dict: what else the objective is given.
        input_to_float: whether inputs are cast to float32.
        clip_val: bound on the norm of the gradient; None does not clip.
        track_complexity: whether time, memory and parameters are printed.
        device: by default a GPU, if there is one.
        seed: seeds the run, see `fit`.
        fusion_lr: a learning rate for the fusion's parameters alone.
        scheduler: builds it from the optimiser, see `fit`.
        accumulation: batches a step.
        selection: another validation metric to select on.
        patience: epochs without improvement after which to stop, in place of `early_stop`'s 8.
        resume: goes on from `<save>.ckpt` if it exists.
        progress: shows a bar, on a terminal.

    Returns:
        The record of every epoch, and the best one's weights.
    """
    model = MMDL(encoders, fusion, head, is_packed)
    trained = Trained(model, additional_optimizing_modules, objective_args_dict, input_to_float)
    measure, selected = task_metrics(task, auprc)
    save_best = partial(save_whole, model, save)
    started = time.time()
    history = fit(
        trained,
        train_dataloader,
        valid_dataloader,
        dealing(objective),
        epochs=total_epochs,
        optimizer=partial(optimtype, lr=lr, weight_decay=weight_decay),
        parameters=trained.groups(fusion_lr),
        scheduler=scheduler,
        accumulate=accumulation,
        clip_norm=clip_val,
        clipped=model.parameters(),
        metrics=measure,
        select=selection or selected,
        patience=8 if early_stop and patience is None else patience,
        device=device or default_device(),
        seed=seed,
        checkpoint=f"{save}.ckpt",
        resume=resume,
        callbacks=[partial(report_epoch, task, save_best, trained if validtime else None)],
        progress=progress,
    )
    if track_complexity:
        print_complexity("Training", started, trained)
    return history


def single_test(
    model: nn.Module,
    test_dataloader: Iterable,
    is_packed: bool = False,
    criterion: Callable[..., Tensor] = CROSS_ENTROPY,
    task: str = "classification",
    auprc: bool = False,
    input_to_float: bool = True,
) -> dict[str, float]:
    """Prints and returns accuracy, F1 scores, or for regression the mean criterion."""
    measure, _ = task_metrics(task, auprc)
    scores = evaluate(
        model,
        test_dataloader,
        objective=two_arguments(criterion) if task == "regression" else None,
        metrics=measure,
        split_batch=lambda batch: (ready(batch[:-1], is_packed, input_to_float), batch[-1]),
    )
    return report_scores(task, scores, loss="mse", f1="{}")


def test(
    model: nn.Module,
    test_dataloaders_all: Iterable | dict[str, list],
    dataset: str = "default",
    method_name: str = "My method",
    is_packed: bool = False,
    criterion: Callable[..., Tensor] = CROSS_ENTROPY,
    task: str = "classification",
    auprc: bool = False,
    input_to_float: bool = True,
    no_robust: bool = False,
) -> dict:
    """Runs `single_test` on one loader (`no_robust`), or on {modality: [loader a noise level]}.

    Returns:
        The metrics; or, for every modality and metric, `levels`, its values at noise 0.0, 0.1, ...,
        and `area`, that under them. MultiBench's relative and effective robustness stand against
        its published curves of other methods: `eval_scripts.robustness.report_robustness` prints
        them. `dataset` and `method_name`, the keys to those curves and the names of its plots, are
        accepted and not used.
    """
    measure = partial(
        single_test,
        model,
        is_packed=is_packed,
        criterion=criterion,
        task=task,
        auprc=auprc,
        input_to_float=input_to_float,
    )
    return measure_all(measure, model, test_dataloaders_all, no_robust)
