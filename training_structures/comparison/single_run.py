"""One run of one method: train a fusion or fit a floor, and score it once."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from .. import distributed
from ..batches import join
from ..checkpoint import seeded
from ..evaluation import evaluate
from ..event_log import Watch
from ..files import Damaged, set_aside
from ..run import Callback, History, OtherRun, load_best, more_is_better
from .identity.data import data_digests
from .methods import Method
from .missing import without
from .recipe import Loaders, Recipe
from .search import search
from .sized import sized
from .space import Search

CHECKPOINT_SECONDS = 2.0  # work that a killed run may lose


@dataclass
class Trained:
    """A trained model, as an `Analysis` gets it.

    Attributes:
        model: the whole.
        fusions: the fusion's own modules in it.
        history: what training measured.
        loaders: the (train, valid, test) data.
        data: part -> digest of these.
        trial: of a search, the number of the trial; else 0.
    """

    model: nn.Module
    fusions: list[nn.Module]
    history: History
    loaders: Loaders
    data: dict[str, str] = field(default_factory=dict)
    trial: int = 0


Analysis = Callable[[Trained, Recipe], Any]
"""A look at a trained model: (trained, recipe) -> what was found, as JSON can hold it."""


def run_floor(method: Method, run: int) -> dict[str, Any]:
    """Fits a floor, and scores it on the recipe's part."""
    recipe = method.recipe
    with seeded(run):
        train, valid, test = loaders = recipe.loaders(run)
        data = data_digests(loaders, recipe.part)
        # nothing is selected, so validation data may be learnt from, unless it is scored
        known, scored = ([train, valid], test) if recipe.part == "test" else ([train], valid)
        started = time.perf_counter()
        prediction = recipe.floors[method.name](known, scored)
        seconds = time.perf_counter() - started
        truth = join([batch[-1] for batch in scored])
    scores = recipe.metrics(prediction, truth)
    named = {name: float(value) for name, value in scores.items()}
    return {"scores": named, "seconds": seconds, "data": data}


def run_fusion(
    method: Method,
    run: int,
    *,
    trials: int = 1,
    prune: bool = False,
    drop_modality: bool = False,
    analyse: Analysis | None = None,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    progress: bool = False,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Trains one method once, and scores the selected epoch on the recipe's part once.

    Args:
        method: what to train.
        run: the seed and, if the recipe resplits, the split.
        trials: hyperparameter settings to train with; the one that is best on validation data
            is scored.
        prune: whether trials end early that are worse than earlier ones, see `tpe.TPE`.
        drop_modality: score also with each modality in turn missing, see `without`, and `System`.
        analyse: called with the model of the selected epoch, see `compare`.
        device: where to train.
        checkpoint: file from which an interrupted run resumes; later trials have one beside it.
        progress: shows a bar of the epochs.
        watch: sees every epoch of every training, and changes nothing.

    Returns:
        `scores` (the recipe's metrics on its part), `valid` (those that selected), `data`
        (digests of its parts), `parameters` (of the model), `fusion_parameters`, `epochs`,
        `best_epoch`, `seconds` (of training), `hyperparameters` (as the search chose them),
        `curve` (records of the epochs), `trials` and `epochs_spent` (on all of them) of a search,
        `missing` and `analysis` if asked for, and for fusions that solve an equilibrium
        `solver_<name>`: means over all training batches of all epochs, and of the shares that
        converged the lowest epoch's, `solver_<name>_lowest`.
    """
    recipe = method.recipe
    trained, tried = _searched(
        *(search(method, run, trials, prune=prune), method, run),
        trials=trials,
        checkpoint=checkpoint,
        watch=watch,
        how={"device": device, "progress": progress},
    )
    best = tried[trained.trial]
    load_best(trained.model, trained.history)
    result = {
        **_scores(trained, method, run, drop_modality),
        "data": trained.data,
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        "fusion_parameters": sum(p.numel() for f in trained.fusions for p in f.parameters()),
        "hyperparameters": {k: best[k] for k in ("options", "optimizer")},
        **_summary(trained.history, recipe.select),
    }
    if trials > 1:
        result["trials"] = tried
        result["epochs_spent"] = sum(trial["epochs"] for trial in tried)
    if analyse is not None:
        with seeded(run):
            result["analysis"] = analyse(trained, recipe)
    return result


def _searched(
    chosen: Search,
    method: Method,
    run: int,
    *,
    trials: int,
    checkpoint: Path | None,
    watch: Watch | None,
    how: Mapping[str, Any],
) -> tuple[Trained, list[dict[str, Any]]]:
    """Returns the best trial's training, and what every trial was and reached.

    Every trial resumes from its checkpoint, so what an interrupted search has tried it tries
    again at once, and goes on as if it had not been interrupted.
    """
    select, best, tried = method.recipe.select, None, []
    for number in range(trials):
        choice = chosen.ask()
        path = checkpoint and trial_checkpoint(checkpoint, number)
        try:
            with _watched(watch, method.name, run, number) as watching:
                callbacks = [*chosen.callbacks, *watching]
                trained = _train(method.changed(**choice), run, path, callbacks, how)
        except FloatingPointError as error:  # diverged: the worst of the trials
            curve = _curve(getattr(error, "history", History()), select)
            spent = {"epochs": len(curve) + 1}  # with the one in which it diverged
            tried.append({**choice, "valid": None, "error": str(error), **spent})
            chosen.tell(None, curve)
            if best is None and number == trials - 1:
                raise
            continue
        score, history = _selecting(trained.history, select), trained.history
        pruned = {"pruned": True} if history.ended else {}
        tried.append({**choice, "valid": score, "epochs": len(history.epochs), **pruned})
        chosen.tell(score, _curve(history, select), **pruned)
        sign = 1 if more_is_better(select) else -1
        if not pruned and (best is None or sign * score > sign * tried[best.trial]["valid"]):
            best = replace(trained, trial=number)
    if best is None:
        raise FloatingPointError("no trial is left: those that were not pruned diverged")
    return best, tried


@contextmanager
def _watched(watch: Watch | None, name: str, run: int, trial: int) -> Iterator[list[Callback]]:
    """Yields the callback that only watches a training, if there is one."""
    if watch is None or not distributed.is_main():
        yield []
        return
    with watch(name, run, trial) as callback:

        def see(history: History) -> None:
            callback(history)  # whatever it returns, the training goes on

        yield [see]


def _scores(trained: Trained, method: Method, run: int, drop_modality: bool) -> dict[str, Any]:
    """Returns `scores` on the recipe's part, and `missing` if asked for: of a system without those
    modalities that it can do without."""
    recipe, (_, valid, test) = method.recipe, trained.loaders
    scored = test if recipe.part == "test" else valid
    scored = distributed.sharded(scored)
    options = {"metrics": recipe.metrics, "precision": recipe.precision}
    with seeded(run):  # loaders draw numbers, too
        result = {"scores": evaluate(trained.model, scored, **options)}
        if drop_modality and len(recipe.modalities) > 1:
            result["missing"] = {}
            for index, name in enumerate(recipe.modalities):
                hidden = _hidden(trained, method, index)
                if hidden is not None:
                    with hidden:
                        result["missing"][name] = evaluate(trained.model, scored, **options)
    return result


def _hidden(trained: Trained, method: Method, modality: int) -> AbstractContextManager[None] | None:
    """Returns a context in which the model is without a modality; None if it knows none."""
    if method.system is None:
        return without(trained.fusions, modality)
    needs = method.system.needs
    if needs is not None and method.recipe.modalities[modality] not in needs:
        return nullcontext()
    own = getattr(trained.model, "without", None)
    return None if own is None else own(modality)


def trial_checkpoint(checkpoint: Path, number: int) -> Path:
    """Returns the checkpoint of a trial: the first one's is `checkpoint` itself."""
    if number == 0:
        return checkpoint
    return checkpoint.with_name(f"{checkpoint.stem}+{number}{checkpoint.suffix}")


def _train(
    method: Method,
    run: int,
    checkpoint: Path | None,
    callbacks: Sequence[Callback],
    how: Mapping[str, Any],
) -> Trained:
    """Trains; a checkpoint that is of no use is set aside, with a warning, and training begun."""
    try:
        return _train_on(method, run, checkpoint, callbacks, how)
    except (Damaged, OtherRun) as error:
        if isinstance(error, OtherRun) and error.settings != ["data"]:
            raise  # another run's; with other data alone it is this run's, and of no use
        if checkpoint is None or not distributed.from_main(checkpoint.exists()):
            raise  # a file of somebody else's
        aside = distributed.from_main(
            set_aside(checkpoint, error.suffix).name if distributed.is_main() else None
        )
        warnings.warn(
            f"{checkpoint} was no checkpoint to go on from, is now {aside}, and its run began "
            f"anew: {error}",
            stacklevel=4,
        )
    return _train_on(method, run, checkpoint, callbacks, how)


def _train_on(
    method: Method,
    run: int,
    checkpoint: Path | None,
    callbacks: Sequence[Callback],
    how: Mapping[str, Any],
) -> Trained:
    recipe = method.recipe
    settings = {**method.settings(), "run": run}
    del settings["epochs"]  # a resumed run may be given more of them
    with seeded(run):
        loaders = recipe.loaders(run)
        data = data_digests(loaders, recipe.part)
        settings["data"] = " ".join(data.values())
        train, valid, _ = loaders
        model, fusions = build_model(method, train)
        own = [p for module in fusions for p in module.parameters()]
        groups = _groups(model, own, recipe.fusion_lr.get(method.name))
        if recipe.parameters is not None:
            groups = recipe.parameters(model)
        if distributed.rank():  # dropout is to differ between processes
            torch.manual_seed(distributed.own_seed(run))
        history = recipe.train(
            model,
            train,
            valid,
            recipe.objective,
            epochs=recipe.epochs,
            optimizer=recipe.optimizer,
            scheduler=recipe.scheduler,
            accumulate=recipe.accumulate,
            clip_norm=recipe.clip_norm,
            precision=recipe.precision,
            parameters=groups,
            metrics=recipe.metrics,
            select=recipe.select,
            patience=recipe.patience,
            checkpoint=checkpoint,
            checkpoint_seconds=CHECKPOINT_SECONDS,
            resume=checkpoint is not None,
            settings=settings,
            callbacks=callbacks,
            **how,
        )
    return Trained(model, fusions, history, loaders, data)


def build_model(method: Method, train: DataLoader) -> tuple[nn.Module, list[nn.Module]]:
    """Returns the recipe's model around the fusion, and the fusion's own modules."""
    recipe, made = method.recipe, []
    fusion: Any = method.fusion

    def make(
        input_dims: Sequence[int], dim: int, outputs: int | None = None
    ) -> tuple[nn.Module, int | None]:
        options = dict(recipe.fusion_options.get(method.name, {}))
        if getattr(fusion, "predicts", False):
            options = {"outputs": outputs, "task": recipe.task} | options
        module, width = sized(fusion(input_dims, dim, **options), dim)
        made.append(module)
        return module, width

    return recipe.build(make, train), made


def _groups(model: nn.Module, own: list[nn.Parameter], rate: float | None) -> list[dict[str, Any]]:
    """Returns parameter groups: the fusion's own, if any, apart from the others."""
    apart = {id(p) for p in own}
    groups = [{"params": [p for p in model.parameters() if id(p) not in apart]}]
    if own:
        groups.append({"params": own} | ({} if rate is None else {"lr": rate}))
    return [group for group in groups if group["params"]]


def _selecting(history: History, select: str) -> float:
    if history.best_epoch is None:
        raise ValueError(
            f"the validation {select} must be a number in some epoch to select by, but was NaN in "
            f"all {len(history.epochs)}; select by another score"
        )
    return history.epochs[history.best_epoch - 1][f"valid_{select}"]


def _curve(history: History, select: str) -> list[float]:
    return [epoch[f"valid_{select}"] for epoch in history.epochs]


def _summary(history: History, select: str) -> dict[str, Any]:
    best = history.epochs[history.best_epoch - 1]
    kept = "epoch", "train_loss", f"valid_{select}", "solver_steps", "solver_converged"
    return {
        "valid": {k[len("valid_") :]: v for k, v in best.items() if k.startswith("valid_")},
        "epochs": len(history.epochs),
        "best_epoch": history.best_epoch,
        "seconds": sum(epoch["seconds"] for epoch in history.epochs),
        **_solver_means(history),
        "curve": [{k: float(f"{e[k]:.6g}") for k in kept if k in e} for e in history.epochs],
    }


def _solver_means(history: History) -> dict[str, float]:
    names = [name for name in history.epochs[-1] if name.startswith("solver_")]
    means = {
        name: sum(epoch[name] for epoch in history.epochs) / len(history.epochs) for name in names
    }
    lowest = {
        f"{name}_lowest": min(epoch[name] for epoch in history.epochs)
        for name in names
        if name.endswith("converged")
    }
    return means | lowest
