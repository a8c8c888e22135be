"""The part that the benchmarks' train.py share: train by a recipe, and print how it did.

Several processes, started by torchrun, share the work; the first one prints.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.choices import PRECISIONS
from deq_fusion.training_structures.comparison import Recipe, Score
from deq_fusion.training_structures.comparison.methods import Method, refusal, single
from deq_fusion.training_structures.comparison.program.arguments import imported, words
from deq_fusion.training_structures.comparison.program.settings import (
    add_settings,
    asked_recipe,
    describe_settings,
)
from deq_fusion.training_structures.comparison.report.table import number
from deq_fusion.training_structures.comparison.single_run import Analysis, run_fusion
from deq_fusion.training_structures.distributed import is_main, process_group
from deq_fusion.training_structures.event_log import event_logs

MakeRecipe = Callable[..., Recipe]
More = Callable[[argparse.ArgumentParser], Callable[..., Analysis | None]]
PARALLEL = """on two GPUs, which share every batch, in mixed precision:
  torchrun --nproc-per-node 2 -m {name} --device cuda --precision bf16 ...
all fusions under one protocol, with intervals and tests:
  deq-fusion compare --help
"""
OWN = "a fusion of your own: a class MyFusion(input_dims, dim), found from the current folder"


def run_one(
    recipe: MakeRecipe,
    argv: Sequence[str] | None = None,
    *,
    description: str,
    needs_data: bool = False,
    more: More | None = None,
) -> dict[str, Any]:
    """Trains what the arguments ask for, one fusion or every modality alone; prints test scores.

    Args:
        recipe: of the benchmark.
        argv: the command line; None: that of the process.
        description: of the script.
        needs_data: whether the recipe reads a folder.
        more: adds arguments of the script's own to the parser, and returns the function that
            makes of the parsed ones and the recipe an analysis for `run_fusion`, or None.

    Returns:
        The result, as `run_fusion` describes it; with `--unimodal` modality -> result.
    """
    parser = _parser(recipe, description, needs_data)
    make_analysis = more(parser) if more else lambda args, made: None
    args, made = _parse(parser, recipe, argv)
    method = None if args.unimodal else _method(args, made)
    reason = method and refusal(method.fusion, made)
    if reason:
        parser.error(f"{method.name} {reason}")
    try:
        analyse = make_analysis(args, made)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    with process_group(args.device) as args.device:
        if method is None:
            return _run_unimodal(parser, args, made)
        return _run(parser, args, method, args.checkpoint, analyse)


def _run_unimodal(
    parser: argparse.ArgumentParser, args: argparse.Namespace, recipe: Recipe
) -> dict[str, dict[str, Any]]:
    """Trains every modality on its own, with the recipe's encoder and head."""
    results = {}
    for name in recipe.modalities:
        path = args.checkpoint and args.checkpoint.with_name(f"{args.checkpoint.name}.{name}")
        results[name] = _run(parser, args, single(recipe, name), path)
    return results


def described(value: float, score: Score) -> str:
    """Returns a score with its name and unit."""
    return f"{score.name} {number(value, score)}{' %' if score.percent else ''}"


def _method(args: argparse.Namespace, recipe: Recipe) -> Method:
    if args.own_fusion is None:
        return Method(args.fusion, recipe, FUSIONS[args.fusion])
    name, fusion = args.own_fusion
    return Method(name, recipe, fusion)


def _run(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    method: Method,
    checkpoint: Path | None,
    analyse: Analysis | None = None,
) -> dict[str, Any]:
    if is_main():
        print(f"{method.recipe.name}: {method.name}, seed {args.seed}", flush=True)
    try:
        result = run_fusion(
            method,
            args.seed,
            analyse=analyse,
            device=args.device,
            checkpoint=checkpoint,
            progress=True,
            watch=event_logs(args.log) if args.log else None,
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if is_main():
        _report(result, method.recipe)
    return result


def _report(result: Mapping[str, Any], recipe: Recipe) -> None:
    there = [score for score in recipe.scores if score.name in result["scores"]]
    print(f"{recipe.part}: " + ", ".join(described(result["scores"][s.name], s) for s in there))
    best, epochs = result["best_epoch"], result["epochs"]
    print(f"epoch {best} of {epochs}, selected on validation; {result['seconds']:.1f} s")
    if "solver_steps" in result:
        print(
            f"solver: {result['solver_steps']:.1f} steps, "
            f"{result['solver_converged']:.2%} of the samples converged"
        )


def _parse(
    parser: argparse.ArgumentParser, recipe: MakeRecipe, argv: Sequence[str] | None
) -> tuple[argparse.Namespace, Recipe]:
    args = parser.parse_args(argv)
    if args.epochs is not None and args.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {args.epochs}")
    torch.set_num_threads(args.threads)
    args.modalities = [name for text in args.modalities or () for name in words(text)]
    try:
        return args, asked_recipe(recipe, args)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))


def _parser(recipe: MakeRecipe, description: str, needs_data: bool) -> argparse.ArgumentParser:
    spec = getattr(sys.modules["__main__"], "__spec__", None)  # how `python -m` was asked to run
    parser = argparse.ArgumentParser(
        prog=spec and f"python -m {spec.name}",
        usage="%(prog)s [options]",
        description=description,
        epilog=PARALLEL.format(name=spec.name if spec else "deq_fusion.examples.digits.train"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_model(parser)
    _add_data(parser, needs_data)
    _add_training(parser)
    describe_settings(parser, {"its recipe": recipe})
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to train")
    add = group.add_mutually_exclusive_group().add_argument
    known = f"deq (the default); others: {', '.join(name for name in FUSIONS if name != 'deq')}"
    add("--fusion", choices=FUSIONS, default="deq", metavar="NAME", help=known)
    add("--own-fusion", type=imported, metavar="MODULE:NAME", help=OWN)
    add("--unimodal", action="store_true", help="no fusion: every modality on its own, in turn")
    add_settings(group, "listed below")


def _add_data(parser: argparse.ArgumentParser, needs_data: bool) -> None:
    add = parser.add_argument_group("on which data").add_argument
    if needs_data:
        add("--data-dir", type=Path, required=True, metavar="DIR", help="folder of the data")
        add("--official", action="store_true", help="keep the official split, not a fresh one")
    else:
        parser.set_defaults(data_dir=None, official=False)
    add("--modalities", nargs="+", metavar="A,B", help="those to use, by name; by default all")
    add(
        "--part",
        choices=["test", "valid"],
        default="test",
        help="what to score (default: test); valid to tune",
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how to train").add_argument
    add("--seed", type=int, default=0, help="of weights, batches and split (default: 0)")
    add("--epochs", type=int, help="bound on the epochs, instead of the recipe's")
    add("--log", type=Path, metavar="DIR", help="folder for TensorBoard's event files")
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="saved to; an interrupted run resumes from it",
    )
    add("--device", default="cpu", help="where to train, such as cuda (default: cpu)")
    add("--precision", choices=PRECISIONS, help="of the forward, not the recipe's; fp16: on GPUs")
    add("--threads", type=int, default=1, help="threads of torch on a CPU (default: 1)")
