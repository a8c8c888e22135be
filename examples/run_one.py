"""What the short example scripts share: train one fusion by a recipe, and print how it did."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from fusions.registry import FUSIONS
from training_structures.comparison import Recipe, Score
from training_structures.comparison.methods import Method, refusal
from training_structures.comparison.single_run import run_fusion
from training_structures.comparison.table import number


def run_one(
    make_recipe: Callable[[argparse.Namespace], Recipe],
    *,
    description: str,
    argv: Sequence[str] | None = None,
    needs_data: bool = False,
) -> dict[str, Any]:
    """Trains the fusion that the arguments ask for (default: deq) and prints its test scores.

    Returns:
        The result, as `run_fusion` describes it.
    """
    parser = _parser(description, needs_data)
    args = parser.parse_args(argv)
    if args.epochs is not None and args.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {args.epochs}")
    torch.set_num_threads(args.threads)
    recipe = make_recipe(args)
    try:
        if args.modalities:
            recipe = recipe.restricted(args.modalities)
        reason = refusal(FUSIONS[args.fusion], recipe)
        if reason:
            parser.error(f"{args.fusion} {reason}")
        result = run_fusion(
            Method(args.fusion, recipe, FUSIONS[args.fusion]),
            args.seed,
            device=args.device,
            checkpoint=args.checkpoint,
            progress=True,
        )
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    print(f"{recipe.name}: {args.fusion}, seed {args.seed}")
    there = [score for score in recipe.scores if score.name in result["scores"]]
    print("test: " + ", ".join(described(result["scores"][s.name], s) for s in there))
    best, epochs = result["best_epoch"], result["epochs"]
    print(f"epoch {best} of {epochs}, selected on validation; {result['seconds']:.1f} s")
    if "solver_steps" in result:
        print(
            f"solver: {result['solver_steps']:.1f} steps, "
            f"{result['solver_converged']:.2%} of the samples converged"
        )
    return result


def described(value: float, score: Score) -> str:
    """Returns a score with its name and unit."""
    return f"{score.name} {number(value, score)}{' %' if score.percent else ''}"


def _parser(description: str, needs_data: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    if needs_data:
        add("--data-dir", type=Path, required=True, help="folder of the data")
        add("--official", action="store_true", help="keep the official split, not a fresh one")
    add("--modalities", nargs="+", metavar="NAME", help="those to use, by name; default: all")
    add("--fusion", choices=FUSIONS, default="deq", metavar="NAME", help="; ".join(FUSIONS))
    add("--seed", type=int, default=0, help="seed of weights, batches and split")
    add("--epochs", type=int, help="bound on the epochs, instead of the recipe's")
    add("--checkpoint", type=Path, help="file to save to; an interrupted run resumes from it")
    add("--device", default="cpu", help="where to train, such as cpu or cuda")
    add("--threads", type=int, default=1, help="threads of torch on a CPU")
    return parser
