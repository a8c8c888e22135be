"""The measure of a trained model, in plain numbers, so that they are kept with the run."""

import math
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from deq_fusion.examples.studies.convergence.rows import TIED
from deq_fusion.examples.studies.study import is_deq, only_fusion
from deq_fusion.fusions.analysis import solved_with, spectral_radii, trace
from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.equilibrium import SOLVERS
from deq_fusion.training_structures.comparison import Recipe
from deq_fusion.training_structures.comparison.single_run import Analysis, Trained
from deq_fusion.training_structures.evaluation import Metrics, evaluate, inputs_of

TOLERANCES = (1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)
LIMITS = (1, 2, 3, 4, TIED, 8, 12, 20, 40)


def measured(args: Namespace) -> Analysis:
    """Returns what measures a trained model as the arguments ask for."""
    return partial(measure, steps=args.steps, samples=args.samples)


def measure(trained: Trained, recipe: Recipe, *, steps: int, samples: int) -> dict[str, Any]:
    """Returns traces, spectral radii, and scores when the solve is stopped early.

    Args:
        trained: a model whose fusion is a DEQ fusion, unrolled or not; of others nothing is
            measured.
        recipe: its benchmark.
        steps: of the traces.
        samples: of the part that is scored, at most, for traces and radii.

    Returns:
        `traces`: solve ("joint anderson", ...) -> block -> quantity ("difference", "residual")
        -> its mean over samples a step, see `fusions.analysis.Trace`. `radii`: state -> mean and
        largest radius of the samples that converged (None without any), the share of these below
        1, and the share that converged. `early`: metrics on the validation part, which may be
        chosen by, by tolerance and by step limit, with the mean of the steps taken; and `share`,
        validation samples per training sample where runs are fresh splits. In place of a solve,
        of `radii` or of `early`: `failed`, the message, where a value was not finite.
    """
    fusion = only_fusion(trained)
    if not is_deq(fusion):
        return {}
    _, valid, test = trained.loaders
    scored = test if recipe.part == "test" else valid
    features, _ = inputs_of(fusion, trained.model, scored, enough=samples)
    device = next(fusion.parameters()).device
    features = [x[:samples].to(device) for x in features]
    solves = product(("joint", "block-wise"), sorted(SOLVERS))
    return {
        "samples": len(features[0]),
        "traces": {
            f"{way} {solver}": _or_failed(
                _trace, fusion, features, joint=way == "joint", solver=solver, steps=steps
            )
            for way, solver in solves
        },
        "radii": _or_failed(_radii, fusion, features),
        "early": _or_failed(_early, trained, fusion, recipe=recipe),
    }


def _or_failed(found: Callable[..., dict], *args: Any, **options: Any) -> dict[str, Any]:
    """Returns what is found; a map that diverges is a finding, too, and the run's scores count."""
    try:
        return found(*args, **options)
    except FloatingPointError as error:
        return {"failed": str(error)}


def _trace(fusion: DEQFusion, features: Sequence[Tensor], **options: Any) -> dict[str, Any]:
    return {
        block: {"difference": _means(t.difference), "residual": _means(t.residual)}
        for block, t in trace(fusion, features, **options).items()
    }


def _radii(fusion: DEQFusion, features: Sequence[Tensor]) -> dict[str, Any]:
    return {state: _radius(radii) for state, radii in spectral_radii(fusion, features).items()}


def _means(values: Tensor) -> list[float]:
    """Returns the mean over the samples that are still solved at each step."""
    means = values.flatten(1).double().nanmean(1).tolist()
    return [rounded(mean) for mean in means if not math.isnan(mean)]


def _radius(radii: Tensor) -> dict[str, float | None]:
    there = radii[~radii.isnan()].double()
    return {
        "mean": rounded(there.mean()),
        "largest": rounded(there.max()) if len(there) else None,
        "contracts": rounded((there < 1).double().mean()),
        "converged": rounded(len(there) / len(radii)),
    }


def _early(trained: Trained, fusion: DEQFusion, *, recipe: Recipe) -> dict[str, Any]:
    """Returns the scores when the solve is less exact, or deeper, than it was in training.

    A weight-tied map takes its steps from zero, whatever their number; it has no tolerance.
    """
    train, valid, _ = trained.loaders
    share = len(valid.dataset) / len(train.dataset) if recipe.resplit else None
    score = partial(_scores, trained, fusion, metrics=recipe.metrics)
    if fusion.unroll is not None:
        limits = {str(k): score(changed=solved_with(fusion, unroll=k)) for k in LIMITS}
        return {"limit": limits, "share": share}
    exact = {f"{tol:g}": score(changed=solved_with(fusion, tol=tol)) for tol in TOLERANCES}
    # no tolerance then: that the limit alone ends the solve
    limits = {str(k): score(changed=solved_with(fusion, tol=0.0, max_steps=k)) for k in LIMITS}
    return {"tolerance": exact, "limit": limits, "share": share}


def _scores(
    trained: Trained, fusion: DEQFusion, *, metrics: Metrics, changed: AbstractContextManager
) -> dict[str, float]:
    """Returns the metrics on the validation part, and the mean steps of the solves."""
    steps: list[Tensor] = []

    def count(module: DEQFusion, args: Any, fused: Tensor) -> None:
        solved = None if module.info is None else module.info.steps.double().flatten()
        steps.append(fused.new_full((len(fused),), module.unroll) if solved is None else solved)

    handle = fusion.register_forward_hook(count)
    try:
        with changed:
            scores = evaluate(trained.model, trained.loaders[1], metrics=metrics)
    finally:
        handle.remove()
    return {name: rounded(value) for name, value in scores.items()} | {
        "steps": rounded(torch.cat(steps).mean())
    }


def rounded(value: float) -> float | None:
    """Returns the value with four digits; None if it is no number, which JSON does not have."""
    return None if math.isnan(value) else float(f"{float(value):.4g}")
