"""How long the runs of a comparison take at most, from one epoch of its first row."""

import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from deq_fusion.training_structures.comparison import Recipe
from deq_fusion.training_structures.comparison.methods import Method
from deq_fusion.training_structures.comparison.program.program import asked_runs
from deq_fusion.training_structures.comparison.single_run import Analysis, run_fusion


def estimated(args: Namespace, rows: Mapping[str, Any], recipe: Recipe, analyse: Analysis) -> None:
    """Trains the first row for an epoch, and says on stderr how long all take at most.

    Runs that are stored are taken for good; where none is left nothing is trained, or said.

    Args:
        args: of the program.
        rows: name -> fusion.
        recipe: as it is carried out; no test part is read.
        analyse: what is measured of every trained model.
    """
    runs = asked_runs(args, recipe)
    stored = len(list((args.output / "runs").glob("*.json")))
    left = len(rows) * len(runs) - stored
    if left <= 0:
        return
    name = next(iter(rows))
    method = Method(name, replace(recipe, epochs=1, part="valid"), rows[name])
    began = time.perf_counter()
    epoch = run_fusion(method, runs[0], analyse=analyse, device=args.device)["seconds"]
    looks = time.perf_counter() - began - epoch  # three of them
    print(_told(left, recipe.epochs, epoch, looks, args.jobs), file=sys.stderr, flush=True)


def seconds_of(runs: int, epochs: int, epoch: float, looks: float) -> float:
    """Returns the most seconds that so many runs take.

    Args:
        runs: their number.
        epochs: of each, at most.
        epoch: seconds of one.
        looks: seconds of the three looks of a run of one epoch: before, after it, and at its end.
    """
    each = looks / 3
    return runs * (epochs * epoch + (2 + epochs.bit_length()) * each)


def _told(runs: int, epochs: int, epoch: float, looks: float, jobs: int) -> str:
    hours = seconds_of(runs, epochs, epoch, looks) / 3600
    return (
        f"runs left: {runs}, of at most {epochs} epochs at {epoch:.2g} s, and looks at fixed "
        f"points at {looks / 3:.2g} s: at most {hours:.2g} hours of one process, "
        f"{hours / min(jobs, runs):.2g} with --jobs {jobs}"
    )
