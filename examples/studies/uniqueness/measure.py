"""The measure: looks at the fixed points before, during and after training, in plain numbers.

All looks are at the validation part, whose scores may be chosen by. They draw from generators of
their own, so that a training that is looked at ends as one that is not.
"""

import math
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from deq_fusion.examples.studies.candidates.contractive import ContractiveFusion
from deq_fusion.examples.studies.convergence.measure import rounded
from deq_fusion.examples.studies.study import is_deq, only_fusion
from deq_fusion.examples.studies.uniqueness.estimate import estimated
from deq_fusion.fusions.analysis import Uniqueness, settle, uniqueness
from deq_fusion.training_structures.checkpoint import seeded
from deq_fusion.training_structures.comparison import Recipe
from deq_fusion.training_structures.comparison.single_run import Analysis, Trained
from deq_fusion.training_structures.evaluation import evaluate, inputs_of
from deq_fusion.training_structures.run import History

EPOCH, BEFORE = "unique_", "unique_before_"  # of the names of looks in the records of epochs
Look = dict[str, float]


def measured(args: Namespace) -> Analysis:
    """Returns what measures a trained model as the arguments ask for."""
    return partial(measure, samples=args.samples, how=_how(args))


def watched(args: Namespace, rows: Mapping[str, Any], recipe: Recipe) -> Recipe:
    """Returns the recipe with looks during training; tells how long its runs take at most."""
    looks = partial(trained_with_looks, recipe.train, args.samples, _how(args))
    recipe = replace(recipe, train=looks)
    estimated(args, rows, recipe, measured(args))
    return recipe


def _how(args: Namespace) -> dict[str, int]:
    return {"starts": args.starts, "max_steps": args.max_steps}


def trained_with_looks(
    train: Callable[..., History],
    samples: int,
    how: Mapping[str, int],
    model: nn.Module,
    data: Iterable,
    valid: Iterable,
    *args: Any,
    callbacks: Iterable[Any] = (),
    **options: Any,
) -> History:
    """Trains as `train` does; the records of epochs 1, 2, 4, 8, ... and the first get looks.

    The model comes as it starts, also where the training goes on from a checkpoint: so the look
    before is taken again then, and the others are in the checkpoint's records.

    Args:
        train: what trains, called as `fit` is.
        samples: see `measure`.
        how: likewise.
        model: as `fit` takes it.
        data: likewise, for training.
        valid: likewise; what is looked at.
        args: further arguments of `train`.
        callbacks: those of `train`, called before the looks.
        options: further keywords of `train`.
    """
    before = _look_at(model, valid, samples, how)

    def see(history: History) -> None:
        epoch = len(history.epochs)
        if epoch & (epoch - 1) == 0:
            found = _look_at(model, valid, samples, how)
            history.epochs[-1].update({f"{EPOCH}{name}": x for name, x in found.items()})

    history = train(model, data, valid, *args, callbacks=[*callbacks, see], **options)
    history.epochs[0].update({f"{BEFORE}{name}": x for name, x in before.items()})
    return history


def _look_at(model: nn.Module, valid: Iterable, samples: int, how: Mapping[str, int]) -> Look:
    """Returns a look at a model's fusion; nothing where none is looked at, or its map diverges."""
    fusion = next((m for m in model.modules() if looked_at(m)), None)
    if fusion is None:
        return {}
    with seeded(0):
        try:
            found, _ = _solved(fusion, model, batches_of(valid, samples), how)
        except FloatingPointError:
            return {}
    return look(found)


def looked_at(fusion: nn.Module) -> bool:
    """Says whether the fixed points of a fusion can be looked for."""
    return is_deq(fusion) or isinstance(fusion, ContractiveFusion)


def measure(
    trained: Trained, recipe: Recipe, *, samples: int, how: Mapping[str, int]
) -> dict[str, Any]:
    """Returns how many fixed points the samples have, through training, and what scores they give.

    Args:
        trained: a model whose fusion is a DEQ fusion or a `ContractiveFusion`; of others nothing
            is measured.
        recipe: its benchmark.
        samples: of the validation part, at most.
        how: `starts`, random ones beside zero, and `max_steps`, the bound on the steps of a solve.

    Returns:
        `samples`; `looks`: epoch, 0 before training -> `look`; `selected`: that of the epoch that
        was chosen, and `epoch`; `converged`: solver -> share of its solves; `scores`: `own`, the
        metrics as the model stands, and `solver start` -> those with the fixed points of each
        solve in place of the fusion's; `share`: validation samples a training sample where
        runs are fresh splits, else None. In place of the last four `failed`, the message, where
        a value was not finite.
    """
    fusion = only_fusion(trained)
    if not looked_at(fusion):
        return {}
    train, valid, _ = trained.loaders
    batches = batches_of(valid, samples)
    looks = looks_of(trained.history)
    try:
        found, count = _solved(fusion, trained.model, batches, how)
        scores = _scores(trained.model, fusion, batches, found, recipe)
    except FloatingPointError as error:
        return {"looks": looks, "failed": str(error)}
    return {
        "samples": count,
        "looks": looks,
        "selected": {"epoch": trained.history.best_epoch, **look(found)},
        "converged": {name: rounded(share) for name, share in found.converged.items()},
        "scores": scores,
        "share": len(valid.dataset) / len(train.dataset) if recipe.resplit else None,
    }


def batches_of(loader: Iterable, samples: int) -> list[Any]:
    """Returns the first batches of a loader, of so many samples together, or all.

    The last is cut where it holds nothing but tensors.
    """
    batches, left = [], samples
    for batch in loader:
        batches.append(_first(batch, left) if _of_tensors(batch) else batch)
        left -= len(batch[-1])
        if left <= 0:
            break
    return batches


def _of_tensors(batch: Any) -> bool:
    return isinstance(batch, Tensor) or (
        isinstance(batch, (list, tuple)) and all(map(_of_tensors, batch))
    )


def _first(batch: Any, samples: int) -> Any:
    return batch[:samples] if isinstance(batch, Tensor) else [_first(x, samples) for x in batch]


def _solved(
    fusion: nn.Module, model: nn.Module, batches: Sequence[Any], how: Mapping[str, int]
) -> tuple[Uniqueness, int]:
    """Returns where solves end, and of how many samples."""
    features, _ = inputs_of(fusion, model, batches)
    device = next(fusion.parameters()).device
    features = [x.to(device) for x in features]
    if isinstance(fusion, ContractiveFusion):
        exact = deepcopy(fusion).double()
        f, zero = exact.whole_map([x.double() for x in features])
        found = settle(f, zero, **how)
        with torch.no_grad():
            found = replace(found, fused=exact.of_states(found.states))
    else:
        found = uniqueness(fusion, features, **how)
    return found, len(features[0])


def look(found: Uniqueness) -> Look:
    """Returns shares of samples (`Uniqueness`), and radii; those that are no number are left out.

    `several`, `starts_differ`, `solvers_differ`, `solvers_differ_from_zero`: of those judged;
    `judged`; `radius_median`, `radius_largest`, and `contracts`, the share of radii below 1, of
    the solutions that converged.
    """
    shares = {
        name: found.share(getattr(found, name))
        for name in ("several", "starts_differ", "solvers_differ", "solvers_differ_from_zero")
    }
    radii = found.radius[~found.radius.isnan()]
    if len(radii):
        shares["radius_median"] = float(radii.median())
        shares["radius_largest"] = float(radii.max())
        shares["contracts"] = float((radii < 1).double().mean())
    shares["judged"] = float(found.judged.double().mean())
    return {name: rounded(x) for name, x in shares.items() if not math.isnan(x)}


def looks_of(history: History) -> dict[str, Look]:
    """Returns epoch -> look, as `trained_with_looks` left them; 0: before training."""
    found: dict[str, Look] = {}
    for epoch, record in enumerate(history.epochs, start=1):
        before = {k.removeprefix(BEFORE): x for k, x in record.items() if k.startswith(BEFORE)}
        names = (k for k in record if k.startswith(EPOCH) and not k.startswith(BEFORE))
        after = {k.removeprefix(EPOCH): record[k] for k in names}
        found |= {"0": before} if before else {}
        found |= {str(epoch): after} if after else {}
    return found


def _scores(
    model: nn.Module,
    fusion: nn.Module,
    batches: Sequence[Any],
    found: Uniqueness,
    recipe: Recipe,
) -> dict[str, dict[str, float | None]]:
    options = {"metrics": recipe.metrics, "precision": recipe.precision}
    scores = {"own": evaluate(model, batches, **options)}
    assert found.fused is not None
    for k, solver in enumerate(found.solvers):
        for start in range(found.label.shape[1]):
            put = _Put(found.fused[k, start], found.label[k, start] >= 0)
            handle = fusion.register_forward_hook(put)
            try:
                scores[f"{solver} {start}"] = evaluate(model, batches, **options)
            finally:
                handle.remove()
    return {solve: {n: rounded(x) for n, x in of.items()} for solve, of in scores.items()}


class _Put:
    """A hook that puts fixed points, row by row, in the place of what a fusion returns.

    Where a solve did not converge, what the fusion returns stays.

    Args:
        fused: (B, d), of all batches.
        converged: (B,) bool.
    """

    def __init__(self, fused: Tensor, converged: Tensor) -> None:
        self.fused, self.converged, self.at = fused, converged, 0

    def __call__(self, fusion: nn.Module, args: Any, result: Tensor) -> Tensor:
        own = result.reshape(-1, result.shape[-1])
        rows = slice(self.at, self.at + len(own))
        self.at += len(own)
        put = torch.where(self.converged[rows].unsqueeze(1), self.fused[rows].to(own), own)
        return put.view_as(result)
