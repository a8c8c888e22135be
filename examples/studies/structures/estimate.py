"""How long comparisons of synthetic sets take at most, from an epoch of each fusion."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace

from deq_fusion.training_structures.comparison.methods import FUSION, gather
from deq_fusion.training_structures.comparison.program.program import asked_runs
from deq_fusion.training_structures.comparison.program.settings import asked_recipe
from deq_fusion.training_structures.comparison.single_run import run_fusion


def estimated(asked: Sequence[Namespace]) -> str:
    """Returns in words how long the runs that are left take at most.

    Every fusion is trained for an epoch on the first set; runs that are stored are taken for good,
    and where none is left nothing is trained.

    Args:
        asked: the arguments of each comparison, with `chosen`, `output` and the setting `samples`.
    """
    left = {i: count for i, args in enumerate(asked) if (count := _left(args)) > 0}
    if not left:
        return "all runs are stored"
    first = asked[min(left)]
    epoch = _epoch(first) / dict(first.settings)["samples"]  # of a run of all fusions, a sample
    seconds = 0.0
    for i, runs in left.items():
        recipe = asked_recipe(asked[i].recipe, asked[i])
        seconds += runs * recipe.epochs * epoch * dict(asked[i].settings)["samples"]
    hours, jobs = seconds / 3600, first.jobs
    return (
        f"{len(left)} of {len(asked)} comparisons are left: at most {hours:.2g} hours of one "
        f"process, {hours / jobs:.2g} with --jobs {jobs}"
    )


def _left(args: Namespace) -> float:
    """Returns the runs of all fusions that are left, of which a part may be there."""
    recipe = asked_recipe(args.recipe, args)
    methods, _ = gather(recipe, args.chosen, unimodal=False)
    stored = len(list((args.output / "runs").glob("*.json")))
    return len(asked_runs(args, recipe)) - stored / len(methods)


def _epoch(args: Namespace) -> float:
    """Returns the seconds of an epoch of all fusions together."""
    recipe = asked_recipe(args.recipe, args)
    methods, _ = gather(replace(recipe, epochs=1, part="valid"), args.chosen, unimodal=False)
    run = asked_runs(args, recipe)[0]
    fusions = [method for method in methods if method.kind == FUSION]
    return sum(run_fusion(method, run, device=args.device)["seconds"] for method in fusions)
