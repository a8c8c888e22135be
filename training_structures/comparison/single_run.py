"""One run of a comparison: train a fusion or fit a floor, score it once, store the result."""

import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from .checkpoint import save_atomically, seeded
from .evaluation import evaluate
from .fit import fit
from .recipe import Fusion, Recipe
from .run import History, load_best


class MixedSettings(ValueError):
    """A folder of results holds runs with other settings."""


def run_fusion(
    recipe: Recipe,
    fusion: Fusion,
    method: str,
    run: int,
    *,
    device: str = "cpu",
    checkpoint: Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Trains one fusion once, and scores the selected epoch on the recipe's part once.

    With a `checkpoint`, an interrupted run resumes from it.

    Returns:
        `scores` (the recipe's metrics on its part), `valid` (those that selected), `parameters`
        (of the model), `fusion_parameters`, `epochs`, `best_epoch`, `seconds` (of training), and
        for fusions that solve an equilibrium `solver_<name>`: means over all training batches of
        all epochs, and of the shares that converged the lowest epoch's, `solver_<name>_lowest`.
    """
    settings = {**recipe.settings(method), "run": run}
    del settings["epochs"]  # a resumed run may be given more of them
    with seeded(run):
        train, valid, test = recipe.load(run)
        model, own = _build(recipe, fusion, method, train)
        history = fit(
            model,
            train,
            valid,
            recipe.objective,
            epochs=recipe.epochs,
            optimizer=recipe.optimizer,
            parameters=_groups(model, own, recipe.fusion_lr.get(method)),
            metrics=recipe.metrics,
            select=recipe.select,
            patience=recipe.patience,
            device=device,
            checkpoint=checkpoint,
            resume=checkpoint is not None,
            settings=settings,
            progress=progress,
        )
    load_best(model, history)
    scored = test if recipe.part == "test" else valid
    return {
        "scores": evaluate(model, scored, metrics=recipe.metrics),
        "parameters": sum(p.numel() for p in model.parameters()),
        "fusion_parameters": sum(p.numel() for p in own),
        **_summary(history),
    }


def _build(
    recipe: Recipe, fusion: Fusion, method: str, train: DataLoader
) -> tuple[nn.Module, list[nn.Parameter]]:
    """Returns the recipe's model around the fusion, and the fusion's own parameters."""
    made: list[nn.Module] = []

    def make(input_dims: Sequence[int], dim: int) -> tuple[nn.Module, int]:
        module, width = fusion(input_dims, dim, **recipe.fusion_options.get(method, {}))
        made.append(module)
        return module, width

    model = recipe.build(make, train)
    return model, [p for module in made for p in module.parameters()]


def _groups(model: nn.Module, own: list[nn.Parameter], rate: float | None) -> list[dict[str, Any]]:
    """Returns parameter groups: the fusion's own, if any, apart from the others."""
    apart = {id(p) for p in own}
    groups = [{"params": [p for p in model.parameters() if id(p) not in apart]}]
    if own:
        groups.append({"params": own} | ({} if rate is None else {"lr": rate}))
    return groups


def _summary(history: History) -> dict[str, Any]:
    best = history.epochs[history.best_epoch - 1]
    return {
        "valid": {k[len("valid_") :]: v for k, v in best.items() if k.startswith("valid_")},
        "epochs": len(history.epochs),
        "best_epoch": history.best_epoch,
        "seconds": sum(epoch["seconds"] for epoch in history.epochs),
        **_solver_means(history),
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


def _run_floor(recipe: Recipe, method: str, run: int) -> dict[str, Any]:
    train, valid, test = recipe.load(run)
    # nothing is selected, so validation data may be learnt from, unless it is scored
    known, scored = ([train, valid], test) if recipe.part == "test" else ([train], valid)
    started = time.perf_counter()
    prediction = recipe.floors[method](known, scored)
    seconds = time.perf_counter() - started
    truth = torch.cat([batch[-1] for batch in scored])
    return {"scores": recipe.metrics(prediction, truth), "seconds": seconds}


def run_and_store(
    recipe: Recipe,
    fusion: Fusion | None,
    method: str,
    run: int,
    folder: Path,
    *,
    threads: int,
    device: str,
) -> dict[str, Any]:
    """Carries out one run of one method, and writes its result to a file of its own."""
    torch.set_num_threads(threads)
    if method in recipe.floors:
        result = _run_floor(recipe, method, run)
    else:
        result = run_fusion(recipe, fusion, method, run, device=device)
    result |= {"method": method, "run": run, "settings": recipe.settings(method)}
    result |= {"versions": {"python": platform.python_version(), "torch": torch.__version__}}
    text = json.dumps(result, indent=1)
    save_atomically(_path(folder, method, run), lambda file: file.write(text.encode()))
    return result


def stored(recipe: Recipe, folder: Path, method: str, run: int) -> dict[str, Any] | None:
    """Returns the stored result of a run, or None.

    Raises:
        MixedSettings: if its settings were others.
    """
    path = _path(folder, method, run)
    if not path.exists():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    settings = recipe.settings(method)
    changed = [k for k in settings if result["settings"].get(k) != settings[k]]
    if changed:
        raise MixedSettings(
            f"{path} must come from the same settings, but {changed[0]} was "
            f"{result['settings'].get(changed[0])} and is {settings[changed[0]]}; choose another "
            "output folder, or delete that file"
        )
    return result


def _path(folder: Path, method: str, run: int) -> Path:
    return folder / f"{method}-{run}.json"
