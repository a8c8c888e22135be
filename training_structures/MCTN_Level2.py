"""MultiBench's training of MCTN with two levels: its names, arguments, printed lines and file.

Batches are ([vision, audio, text], ..., labels), each modality (batch, steps, d), with the same
steps. The text is the source, vision the first target, audio the second. Unlike MultiBench's,
nothing is built at import, and the file is written with the first epoch whatever its error.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from .batches import as_float
from .evaluation import Means
from .fit import History, evaluate, fit
from .metrics import posneg, regression
from .multibench import measure_all, save_whole
from .Supervised_Learning import CROSS_ENTROPY, default_device, two_arguments

Criterion = Callable[[Tensor, Tensor], Tensor]

criterion_t = nn.MSELoss()
criterion_c = nn.MSELoss()
criterion_r = nn.L1Loss()

say = tqdm.write  # print, but beside a progress bar


class Translations(NamedTuple):
    """Pairs (translation, what it should be), (steps, batch, d): the extras of the model.

    Attributes:
        first: of the source into the first target.
        back: of that translation into the source.
        second: of what the first level has taught into the second target.
    """

    first: tuple[Tensor, Tensor]
    back: tuple[Tensor, Tensor]
    second: tuple[Tensor, Tensor]


class _Translating(nn.Module):
    """A model of two levels as `fit` calls it; what predicts sees the source alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: tuple[Tensor, Tensor, Tensor]) -> Any:
        source, target0, target1 = inputs
        if not self.training:
            return self.model(source)[-1]
        first, back, second, prediction = self.model(source, target0, target1)
        pairs = (first, target0), (back, source), (second, target1)
        return prediction, Translations(*pairs)


class _Loss:
    """The criterion of the prediction, and in training those of the translations, weighted.

    A translation's is the mean over its steps. What the prediction's own have been is kept, to be
    shown for each epoch.
    """

    def __init__(self, prediction: Criterion, translations: list[tuple[float, Criterion]]) -> None:
        self.__wrapped__ = prediction  # which says what a batch counts
        self.prediction, self.translations = two_arguments(prediction), translations
        self.seen = Means()

    def __call__(self, prediction: Tensor, truth: Tensor, *extras: Translations) -> Tensor:
        loss = own = self.prediction(prediction, truth)
        for pairs in extras:
            self.seen.add({"regression": own.item()}, len(truth))
            for (weight, criterion), (found, wanted) in zip(self.translations, pairs, strict=True):
                steps = [criterion(y, x) for y, x in zip(found, wanted, strict=True)]
                loss = loss + weight * sum(steps) / len(steps)
        return loss

    def taken(self) -> float:
        """Returns the mean of the prediction's own since it was last asked for."""
        seen, self.seen = self.seen, Means()
        return seen.values()["regression"]


def train(
    traindata: Iterable,
    validdata: Iterable,
    encoder0: nn.Module,
    decoder0: Any,
    encoder1: nn.Module,
    decoder1: Any,
    reg_encoder: nn.Module,
    head: nn.Module,
    criterion_t0: Criterion = criterion_t,
    criterion_c: Criterion = criterion_c,
    criterion_t1: Criterion = criterion_t,
    criterion_r: Criterion = criterion_r,
    max_seq_len: int = 20,
    mu_t0: float = 0.01,
    mu_c: float = 0.01,
    mu_t1: float = 0.01,
    dropout_p: float = 0.1,
    early_stop: bool = False,
    patience_num: int = 15,
    lr: float = 1e-4,
    weight_decay: float = 0.01,
    op_type: Callable[..., Optimizer] = torch.optim.AdamW,
    epoch: int = 100,
    model_save: str | Path = "best_mctn.pt",
    testdata: Iterable | None = None,
    *,
    device: torch.device | str | None = None,
    seed: int | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> History:
    """Trains the modules in place, prints what MultiBench prints, and saves the best epoch.

    The model, of encoders and decoders of `fusions.MCTN`, is pickled at `model_save` whenever the
    mean absolute error on validation data is the least so far.

    Args:
        traindata: batches to train on.
        validdata: batches to select on.
        encoder0: of the source, and of what it is translated to.
        decoder0: of the first target and the source; it puts the parts together.
        encoder1: of the states of `encoder0`.
        decoder1: of the second target; likewise.
        reg_encoder: a GRU, of the states of `encoder1`.
        head: the states of `reg_encoder` -> the prediction.
        criterion_t0: the loss of a step of the first translation.
        criterion_c: of the way back.
        criterion_t1: of the second translation.
        criterion_r: the loss of the prediction.
        max_seq_len: steps after which sequences are cut.
        mu_t0: weight of the first translation.
        mu_c: of the way back.
        mu_t1: of the second translation.
        dropout_p: probability of dropout on the last states, and on the prediction.
        early_stop: stops when more than `patience_num` epochs in a row were no better.
        patience_num: their number.
        lr: learning rate.
        weight_decay: of the optimiser.
        op_type: class of the optimiser.
        epoch: epochs, at most.
        model_save: file of the whole model.
        testdata: not used, as in MultiBench.
        device: by default a GPU, if there is one.
        seed: seeds the run, see `fit`.
        checkpoint: of `fit`, by default `<model_save>.ckpt`.
        resume: goes on from the checkpoint if it exists.
        progress: shows a bar, on a terminal.

    Returns:
        The record of every epoch, and the best one's weights, each with "model." before its name.

    Raises:
        TypeError: for decoders that cannot put the parts together.
    """
    for name, decoder in {"decoder0": decoder0, "decoder1": decoder1}.items():
        if not hasattr(decoder, "translating"):
            raise TypeError(
                f"{name} must be a Decoder of fusions.MCTN, or have its method translating, got "
                f"{type(decoder).__name__}"
            )
    first, second = decoder0.translating(encoder0), decoder1.translating(encoder1)
    model = first.before(second, reg_encoder, head, dropout_p)
    criteria = map(two_arguments, (criterion_t0, criterion_c, criterion_t1))
    loss = _Loss(criterion_r, list(zip((mu_t0, mu_c, mu_t1), criteria, strict=True)))
    return fit(
        _Translating(model),
        traindata,
        validdata,
        loss,
        epochs=epoch,
        optimizer=partial(op_type, lr=lr, weight_decay=weight_decay),
        metrics=_measured,
        select="mae",
        patience=patience_num + 1 if early_stop else None,
        device=device or default_device(),
        seed=seed,
        checkpoint=f"{model_save}.ckpt" if checkpoint is None else checkpoint,
        resume=resume,
        settings={"max_seq_len": max_seq_len, "mu": (mu_t0, mu_c, mu_t1)},
        split_batch=partial(_split, max_seq_len),
        callbacks=[partial(_report, loss, partial(save_whole, model, model_save))],
        progress=progress,
    )


def single_test(model: nn.Module, testdata: Iterable, max_seq_len: int = 20) -> dict[str, float]:
    """Prints the error and both accuracies of signs; returns that of truths other than 0."""
    say("Start Testing ---------->>")
    split = partial(_split, max_seq_len)
    scores = evaluate(_Translating(model), testdata, metrics=_measured, split_batch=split)
    say(f"Test: {_shown(scores)}")
    return {"Acc:": scores["accuracy_nonzero"]}


def test(
    model: nn.Module,
    test_dataloaders_all: Iterable | dict[str, list],
    dataset: str,
    method_name: str = "My method",
    is_packed: bool = False,
    criterion: Criterion = CROSS_ENTROPY,
    task: str = "classification",
    auprc: bool = False,
    input_to_float: bool = True,
    no_robust: bool = True,
) -> dict:
    """Runs `single_test` on one loader (`no_robust`), or on {modality: [loader a noise level]}.

    Returns:
        What `Supervised_Learning.test` returns; the other arguments are not used, as in MultiBench.
    """
    return measure_all(partial(single_test, model), model, test_dataloaders_all, no_robust)


def _split(max_seq_len: int, batch: list | tuple) -> tuple[tuple[Tensor, ...], Tensor]:
    """Returns (text, vision, audio), cut, of one width and with their steps first, and labels."""
    views = [as_float(x, f"modality {i}")[:, :max_seq_len] for i, x in enumerate(batch[0])]
    if len(views) != 3 or len({tuple(x.shape[:2]) for x in views}) > 1:
        raise ValueError(
            "MCTN translates aligned sequences: a batch must begin with [vision, audio, text], "
            f"each (batch, steps, d) with the same steps, got {[tuple(x.shape) for x in views]}"
        )
    width = max(x.shape[2] for x in views)
    vision, audio, text = (F.pad(x, (0, width - x.shape[2])).transpose(0, 1) for x in views)
    return (text, vision, audio), batch[-1]


def _measured(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    return {"mae": regression(prediction, truth)["mae"]} | posneg(prediction, truth)


def _shown(scores: dict[str, float]) -> str:
    accuracies = f"Acc1: {scores['accuracy']}, Acc2: {scores['accuracy_nonzero']}"
    return f"MAE: {scores['mae']}, {accuracies}"


def _report(loss: _Loss, save: Callable[[], None], history: History) -> None:
    """Prints the last epoch's lines; saves if it is the best."""
    record = history.epochs[-1]
    number, total, own = record["epoch"] - 1, record["train_loss"], loss.taken()
    say("start training ---------->>")
    parts = f"total loss: {total}, regression loss: {own}, embedding loss: {total - own}"
    say(f"Train Epoch {number}, {parts}")
    say("Start Evaluating ---------->>")
    scores = {name[len("valid_") :]: v for name, v in record.items() if name.startswith("valid_")}
    say(f"Eval Epoch: {number}, {_shown(scores)}")
    if not history.stale:
        say("<------------ Saving Best Model\n")
        save()
