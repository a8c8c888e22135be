"""What is measured of every trained model; plain numbers, so that they are kept with the run."""

import math
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from statistics import fmean
from typing import Any

from torch import Tensor

from examples.convergence.rows import TIED
from fusions.analysis import solved_with, spectral_radii, trace
from fusions.deq import DEQFusion
from fusions.equilibrium import SOLVERS
from training_structures.comparison import Recipe
from training_structures.comparison.single_run import Analysis, Trained
from training_structures.evaluation import evaluate, inputs_of

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
        -> its mean over samples a step, see `fusions.analysis.Trace`; or `failed`: the message of
        a solve that met a value that is not finite. `radii`: state -> mean and largest of the
        samples, and share below 1. `early`: scores on the validation part, which may be chosen
        by, by tolerance and by step limit, with the mean of the steps taken.
    """
    (fusion,) = trained.fusions
    if not isinstance(fusion, DEQFusion):
        return {}
    _, valid, test = trained.loaders
    scored = test if recipe.part == "test" else valid
    features, _ = inputs_of(fusion, trained.model, scored, enough=samples)
    device = next(fusion.parameters()).device
    features = [x[:samples].to(device) for x in features]
    return {
        "samples": len(features[0]),
        "traces": _traces(fusion, features, steps),
        "radii": {k: _radius(v) for k, v in spectral_radii(fusion, features).items()},
        "early": _early(trained, fusion, recipe),
    }


def _traces(fusion: DEQFusion, features: Sequence[Tensor], steps: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for joint in (True, False):
        for solver in sorted(SOLVERS):
            name = f"{'joint' if joint else 'block-wise'} {solver}"
            try:
                traces = trace(fusion, features, joint=joint, solver=solver, steps=steps)
            except FloatingPointError as error:  # a diverging solve is a finding, too
                found[name] = {"failed": str(error)}
                continue
            found[name] = {
                block: {"difference": _means(t.difference), "residual": _means(t.residual)}
                for block, t in traces.items()
            }
    return found


def _means(values: Tensor) -> list[float]:
    """Returns the mean over the samples that are still solved at each step."""
    means = values.flatten(1).double().nanmean(1).tolist()
    return [rounded(mean) for mean in means if not math.isnan(mean)]


def _radius(radii: Tensor) -> dict[str, float]:
    share = (radii < 1).double().mean()
    return {
        "mean": rounded(radii.mean()),
        "largest": rounded(radii.max()),
        "contracts": rounded(share),
    }


def _early(trained: Trained, fusion: DEQFusion, recipe: Recipe) -> dict[str, Any]:
    """Returns the scores when the solve is less exact, or deeper, than it was in training.

    A weight-tied map takes its steps from zero, whatever their number; it has no tolerance.
    """
    score = partial(_scores, trained, fusion, recipe)
    if fusion.unroll is not None:
        return {"limit": {str(k): score(_unrolled(fusion, k)) for k in LIMITS}}
    tolerances = {f"{tol:g}": score(solved_with(fusion, tol=tol)) for tol in TOLERANCES}
    # no tolerance then: that the limit alone ends the solve
    limits = {str(k): score(solved_with(fusion, tol=0.0, max_steps=k)) for k in LIMITS}
    return {"tolerance": tolerances, "limit": limits}


@contextmanager
def _unrolled(fusion: DEQFusion, steps: int) -> Iterator[None]:
    trained_with, fusion.unroll = fusion.unroll, steps
    try:
        yield
    finally:
        fusion.unroll = trained_with


def _scores(
    trained: Trained, fusion: DEQFusion, recipe: Recipe, changed: AbstractContextManager
) -> dict[str, float]:
    """Returns the metrics on the validation part, and the mean steps of the solves."""
    steps: list[float] = []

    def count(module: DEQFusion, args: Any, fused: Any) -> None:
        steps.append(module.unroll or float(module.info.steps.double().mean()))

    handle = fusion.register_forward_hook(count)
    try:
        with changed:
            scores = evaluate(trained.model, trained.loaders[1], metrics=recipe.metrics)
    finally:
        handle.remove()
    scores = {name: rounded(value) for name, value in scores.items()}
    return {**scores, "steps": rounded(fmean(steps))}


def rounded(value: float) -> float:
    """Returns the value with four digits: a run's file is for people, too."""
    return float(f"{float(value):.4g}")
