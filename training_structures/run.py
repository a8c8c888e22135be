"""A run's state: what it has measured, and everything it needs to go on after an interruption."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from .checkpoint import LEFT_ALONE, load_checkpoint, rng_state, save_checkpoint, set_rng_state
from .distributed import from_main, gathered, is_main, processes, raising_alike, rank
from .files import Damaged, shown
from .saved_run import (
    WRONG,
    alike,
    check_history,
    check_optimizer,
    check_parts,
    check_random,
    check_steps,
    demand,
    kin,
)


@dataclass(repr=False)
class History:
    """The measurements of a run, epoch by epoch, and its best weights.

    Attributes:
        epochs: one record an epoch: `epoch` (from 1), `train_loss`, `valid_loss`, one
            `valid_<metric>` a metric, `learning_rate` (numbered if there are several parameter
            groups), `seconds`, and `solver_<name>` for what equilibrium solves report.
        best_epoch: the epoch selected on validation data; None before there is one.
        best_state: the model's state_dict after that epoch, on the CPU.
        ended: whether a callback ended the training.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    best_state: dict[str, Tensor] = field(default_factory=dict)
    ended: bool = False

    def __repr__(self) -> str:
        """Says how long it was and what the best epoch reached, without records and weights."""
        count = len(self.epochs)
        told = [f"{count} epoch{'s' * (count != 1)}"]
        if self.best_epoch is not None:
            told.append(f"best is {self.best_epoch}")
            record = self.epochs[self.best_epoch - 1] if self.epochs else {}
            told += [f"{n} {record[n]:.4g}" for n in ("train_loss", "valid_loss") if n in record]
        return f"History({', '.join(told)})"

    @property
    def stale(self) -> int:
        """The number of epochs since the best one."""
        return len(self.epochs) - (self.best_epoch or 0)


Callback = Callable[[History], bool | None]
"""Called after every epoch, whose record is `history.epochs[-1]`; True ends the training."""


@dataclass
class Run:
    """Everything a run needs to go on from where it is, besides its data.

    Attributes:
        key: the record's entry that selects the best epoch; None selects the latest.
        maximise: whether more of it is better; None goes by its name.
        generators: the loaders' own random generators.
        settings: numbers and strings that a resumed run must share.
        scaler: of the loss; its state is kept if it is enabled.
    """

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    key: str | None
    maximise: bool | None
    generators: list[torch.Generator]
    settings: dict[str, Any]
    scaler: GradScaler
    history: History = field(default_factory=History)
    saved_epochs: int = 0
    saved_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.key is None and isinstance(self.scheduler, ReduceLROnPlateau):
            raise ValueError(
                "ReduceLROnPlateau follows a validation metric, so it needs valid data"
            )
        if self.maximise is None:
            self.maximise = more_is_better(str(self.key))
        groups = [_described(group) for group in self.optimizer.param_groups]
        self.settings |= {
            "optimizer_type": type(self.optimizer).__name__,
            "groups": groups,
            "scheduler_type": type(self.scheduler).__name__,
            "selection": (self.key, self.maximise),
            "generators": len(self.generators),
            "processes": processes(),
        }

    def finish_epoch(self, record: dict[str, float]) -> None:
        """Keeps an epoch's record, and its weights if it is the best; steps the scheduler."""
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        many = len(rates) > 1
        record |= {
            f"learning_rate_{i}" if many else "learning_rate": r for i, r in enumerate(rates)
        }
        improves = self._improves(record)
        self.history.epochs.append(record)
        if improves:
            self.history.best_epoch = len(self.history.epochs)
            self.history.best_state = {
                name: value.detach().to("cpu", copy=True)
                for name, value in self.model.state_dict().items()
            }
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(record[self.key])
        elif self.scheduler is not None:
            self.scheduler.step()

    def tell(self, callbacks: Iterable[Callback]) -> None:
        """Calls the first process's callbacks, each of them; all processes learn of an end."""
        said = [callback(self.history) for callback in callbacks] if is_main() else []
        self.history.ended = bool(from_main(any(said)))

    def _improves(self, record: dict[str, float]) -> bool:
        if self.key is None:
            return True
        if self.key not in record:
            names = [name[len("valid_") :] for name in record if name.startswith("valid_")]
            raise ValueError(f"select must be one of {names}, got {self.key[len('valid_') :]!r}")
        new = record[self.key]
        if self.history.best_epoch is None:
            return new == new  # not a NaN
        best = self.history.epochs[self.history.best_epoch - 1][self.key]
        return new > best if self.maximise else new < best

    def save(self, path: str | Path, *, after: float = 0.0) -> None:
        """Writes a checkpoint, unless the last is that recent; if it fails, the last one stays.

        With several processes all must call it, and the first writes the one file.

        Args:
            path: the file.
            after: seconds since the last writing before which there is nothing to do.
        """
        epochs, now = len(self.history.epochs), time.monotonic()
        if epochs == self.saved_epochs or from_main(now - self.saved_at < after):
            return
        random = gathered((rng_state(), [g.get_state() for g in self.generators]))
        rng, generators = random[0] if len(random) == 1 else zip(*random, strict=True)
        contents = {
            "settings": self.settings,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "history": vars(self.history),
            "rng": rng,
            "generators": generators,
        }
        if self.scaler.is_enabled():
            contents["scaler"] = self.scaler.state_dict()
        with raising_alike(OSError):
            if is_main():
                save_checkpoint(path, contents)
        self.saved_epochs, self.saved_at = epochs, now

    def resume(self, path: str | Path | None) -> None:
        """Goes back to where `save` wrote `path`; starts afresh if there is no such file.

        Raises:
            Damaged: a ValueError, for a file that is no checkpoint, or whose contents are not
                as a run's must be; nothing is changed then.
            ValueError: for that of another model or run; nothing is changed, either.
        """
        if path is None:
            raise ValueError("resume=True needs the path of a checkpoint")
        if not from_main(Path(path).exists()):
            return
        source = str(path)
        with raising_alike(Damaged):
            saved = load_checkpoint(path)
            check_parts(saved, source)
        check_weights(saved["model"], self.model, source)
        check_settings(saved["settings"], self.settings, source)
        with raising_alike(Damaged):
            rng, generators = self._checked(saved, source)
            self._load(saved, source)
        self.model.load_state_dict(saved["model"])
        self.history = History(**saved["history"])
        self.saved_epochs = len(self.history.epochs)
        set_rng_state(rng)
        for generator, state in zip(self.generators, generators, strict=True):
            generator.set_state(state)

    def _checked(self, saved: Mapping[str, Any], source: str) -> tuple[Any, Any]:
        """Returns this process's random states, once all that can be looked at is sound."""
        check_history(saved["history"], source, self.key)
        check_optimizer(saved["optimizer"], self.optimizer, source)
        if self.scheduler is not None:
            same = kin(saved["scheduler"], self.scheduler.state_dict())
            demand(same, source, f"the state of a {type(self.scheduler).__name__}")
        if self.scaler.is_enabled():
            same = kin(saved.get("scaler"), self.scaler.state_dict())
            demand(same, source, "the state of the loss's scale")
        rng, generators = saved["rng"], saved["generators"]
        if processes() > 1:
            both = isinstance(rng, list | tuple) and len(rng) == len(generators) == processes()
            demand(both, source, f"the random states of {processes()} processes")
            rng, generators = rng[rank()], generators[rank()]
        check_random(rng, generators, len(self.generators), source)
        return rng, generators

    def _load(self, saved: Mapping[str, Any], source: str) -> None:
        """Gives optimiser, scheduler and scale their states; if one does not fit, all are kept."""
        parts = {"optimizer": self.optimizer, "scheduler": self.scheduler, "scaler": self.scaler}
        if self.scheduler is None:
            del parts["scheduler"]
        if not self.scaler.is_enabled():
            del parts["scaler"]
        before = {name: deepcopy(part.state_dict()) for name, part in parts.items()}
        try:
            for name, part in parts.items():
                part.load_state_dict(saved[name])
            check_steps(self.optimizer, source)
        except (*WRONG, NotImplementedError) as error:
            for name, state in before.items():
                parts[name].load_state_dict(state)
            if isinstance(error, Damaged):
                raise
            what = f"{source} must hold the states of {', '.join(parts)} as this run's"
            raise Damaged(f"{what} ({shown(str(error))}); {LEFT_ALONE}") from error


def more_is_better(name: str) -> bool:
    """Returns whether more of a metric is better, by its name: not of loss, mse and mae."""
    return not name.endswith(("loss", "mse", "mae"))


def load_best(model: nn.Module, source: History | str | Path) -> None:
    """Gives `model` the weights of the best epoch, from a history or a checkpoint's path.

    Raises:
        ValueError: if there are none, or another model's; `model` is left as it was.
    """
    if isinstance(source, History):
        history, name = source, "the history"
    else:
        saved, name = load_checkpoint(source), str(source)
        check_parts(saved, name)
        history = History(**saved["history"])
    if history.best_epoch is None:
        raise ValueError(f"{name} has no best epoch yet, so there are no weights to restore")
    check_weights(history.best_state, model, name)
    model.load_state_dict(history.best_state)


def check_weights(state: Mapping[str, Tensor], model: nn.Module, source: str) -> None:
    """Raises ValueError unless `state` has the names and shapes of the model's own state.

    Nor may it be complex where that is real: torch would lose the imaginary part.
    """
    own = model.state_dict(keep_vars=True)
    expected = {
        name: None if nn.parameter.is_lazy(value) else value.shape for name, value in own.items()
    }
    alone = sorted(expected.keys() ^ state.keys())
    wrong = [f"{ascii(name)[1:-1][:80]} on one side only" for name in alone]  # it is foreign
    wrong += [
        f"{name} {tuple(state[name].shape)} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if shape is not None and name in state and state[name].shape != shape
    ]
    wrong += [
        f"{name} {state[name].dtype} instead of {value.dtype}"
        for name, value in own.items()
        if name in state and state[name].is_complex() and not value.is_complex()
    ]
    if wrong:
        raise ValueError(
            f"{source} must hold the weights of this very model, but differs in {len(wrong)} of "
            f"them ({', '.join(wrong[:3])}); build the model as it was when they were saved"
        )


def _described(group: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Returns a parameter group's size and its hyperparameters, which a checkpoint can hold."""
    plain = {k: v for k, v in group.items() if isinstance(v, bool | int | float | str | tuple)}
    rate = {"lr": float(group["lr"])}  # that may be a tensor
    return len(group["params"]), plain | rate


class OtherRun(ValueError):
    """A checkpoint is that of a run with other settings.

    Attributes:
        settings: their names.
    """

    suffix = "other"  # what `set_aside` adds to its name
    settings: Sequence[str] = ()


def check_settings(saved: Mapping[str, Any], expected: Mapping[str, Any], source: str) -> None:
    """Raises OtherRun unless a run's settings are those it is resumed with."""
    wrong = [k for k, value in expected.items() if not alike(saved.get(k), value)]
    if wrong:
        error = OtherRun(
            f"{source} must come from a run with the same settings, but has "
            + "; ".join(f"{k} {shown(saved.get(k))} instead of {expected[k]}" for k in wrong)
            + f"; {LEFT_ALONE}"
        )
        error.settings = wrong
        raise error


def loader_generators(*loaders: Iterable[Any]) -> list[torch.Generator]:
    """Returns the loaders' own generators: they shuffle, so they belong to a run's state."""
    found: dict[int, torch.Generator] = {}
    owners = list(loaders)
    for owner in owners:  # samplers may hold samplers
        generator = getattr(owner, "generator", None)
        if generator is not None:
            found[id(generator)] = generator
        inner = (getattr(owner, name, None) for name in ("batch_sampler", "sampler"))
        owners.extend(sampler for sampler in inner if sampler is not None)
    return list(found.values())
