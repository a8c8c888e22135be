"""Fusions head to head: the same data, model, loop, budget and selection for each of them.

A `Recipe` says what a benchmark is. A run trains one fusion with one seed, selects the epoch
on validation data, and scores the test part once. Every finished run is a file, so that an
interrupted comparison goes on where it stopped.
"""

import argparse
import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import joblib
from tqdm import tqdm

from . import report
from .comparison_run import MixedSettings, run_and_store, stored
from .recipe import Fusion as Fusion
from .recipe import Loaders as Loaders
from .recipe import Recipe as Recipe


def compare(
    recipe: Recipe,
    fusions: Mapping[str, Fusion],
    *,
    runs: Sequence[int],
    output: str | Path,
    jobs: int = 1,
    threads: int = 1,
    device: str = "cpu",
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Returns the result of every method (recipe's floors, then fusions) in every run.

    Each result is written to `output`/runs as soon as it is there, and read from there if it is
    there already. Its keys are listed at `comparison_run.run_fusion`.

    Args:
        runs: run numbers; the seed and, if the recipe resplits, the split of each.
        jobs: processes to run in parallel.
        threads: threads of each process.

    Raises:
        MixedSettings: if `output` holds a run with other settings.
    """
    folder = Path(output) / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    methods = [*recipe.floors, *fusions]
    done = {(m, run): stored(recipe, folder, m, run) for run in runs for m in methods}
    todo = [key for key, result in done.items() if result is None]
    work = (
        joblib.delayed(run_and_store)(
            recipe, fusions.get(method), method, run, folder, threads=threads, device=device
        )
        for method, run in todo
    )
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    finished = parallel(work)
    hidden = None if progress else True
    bar = {"total": len(done), "initial": len(done) - len(todo), "unit": "run"}
    if progress and bar["initial"]:
        print(f"{bar['initial']} of {bar['total']} runs were there already, in {folder}")
    for result in tqdm(finished, desc=recipe.name, disable=hidden, **bar):
        done[result["method"], result["run"]] = result
    return [done[method, run] for method in methods for run in runs]


def command_line(
    recipes: Mapping[str, Callable[..., Recipe]],
    fusions: Mapping[str, Fusion],
    argv: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Runs the comparison that the arguments ask for, and prints and writes its results.

    Args:
        recipes: dataset -> function of the parsed arguments that returns its recipe.
        fusions: name -> fusion, those that can be asked for.
        argv: the arguments; by default the process's.
    """
    parser, args = _arguments(recipes, fusions, argv)
    recipe = recipes[args.dataset](args)
    output, runs = args.output or _folder(args), args.runs or (20 if recipe.resplit else 5)
    options = {**recipe.fusion_options}
    for method, name, value in args.option:
        options[method] = {**options.get(method, {}), name: value}
    recipe = replace(recipe, fusion_options=options, part=args.part)
    chosen = {name: fusions[name] for name in args.fusions}
    try:
        results = compare(
            recipe,
            chosen,
            runs=range(args.first_run, args.first_run + runs),
            output=output,
            jobs=args.jobs,
            threads=args.threads,
            device=args.device,
        )
    except (MixedSettings, FileNotFoundError) as error:
        parser.error(str(error))
    table = report.table(results, test_share=_test_share(recipe, args.first_run))
    title = recipe.name if recipe.part == "test" else f"{recipe.name}, validation part"
    resampling = "resampling (Nadeau and Bengio, 2003) and " if recipe.resplit else ""
    legend = (
        "Scores in percent, mean ± sd over runs; costs a run. p: paired t-test, corrected for "
        f"{resampling}the number of comparisons (Holm, 1979); intervals are for each comparison "
        "alone. converged: share of all forward solves in training, rounded down."
    )
    print(report.write(table, results, output, title=title, legend=legend))
    print(f"\nin {output}: results.md, results.csv, results.png, and every run in runs")
    return results


def _folder(args: argparse.Namespace) -> Path:
    """Returns the folder of results where none is given: one for each kind of comparison."""
    data = [args.data_dir.name] if args.data_dir else []
    kind = [*(["official"] if args.official else []), *([args.part] if args.part != "test" else [])]
    return Path("results", "-".join([args.dataset, *data, *kind]))


def _test_share(recipe: Recipe, run: int) -> float | None:
    """Returns scored samples per training sample where runs are fresh splits of one set."""
    if not recipe.resplit:
        return None
    train, valid, test = recipe.load(run)
    return len((test if recipe.part == "test" else valid).dataset) / len(train.dataset)


def _arguments(
    recipes: Mapping[str, Any], fusions: Mapping[str, Any], argv: Sequence[str] | None
) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        description="Trains fusions under one protocol and compares them: a table on the terminal, "
        "results.md, results.csv and results.png in the output folder. An interrupted comparison "
        "goes on where it stopped when the same command is given again.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    add = parser.add_argument
    add("--dataset", choices=recipes, default=next(iter(recipes)), help="benchmark")
    add("--data-dir", type=Path, help="folder of the data, for benchmarks that read one")
    add(
        "--fusions",
        type=partial(_names, fusions),
        default=list(fusions),
        help="names, separated by commas",
    )
    text = "option of a fusion's constructor, such as deq.dropout=0.5; may be given several times"
    add(
        "--option",
        type=partial(_option, fusions),
        action="append",
        default=[],
        metavar="FUSION.NAME=VALUE",
        help=text,
    )
    add("--part", choices=["test", "valid"], default="test", help="what to score; valid to tune")
    add("--runs", type=_count, help="runs of each fusion; by default 20 on fresh splits, else 5")
    add("--first-run", type=int, default=0, help="seed of the first run; the others follow")
    add("--official", action="store_true", help="keep the official split instead of fresh ones")
    add("--epochs", type=_count, help="bound on the epochs of a run, instead of the recipe's")
    add("--output", type=Path, help="folder for results; by default one in results/")
    add("--jobs", type=_count, default=1, help="processes to run in parallel")
    add("--threads", type=_count, default=1, help="threads of each process")
    add("--device", default="cpu", help="where to train, such as cpu or cuda")
    args = parser.parse_args(argv)
    for method, name, _ in args.option:
        if method not in args.fusions:
            parser.error(f"--option {method}.{name} must be of a fusion in {args.fusions}")
    return parser, args


def _names(fusions: Mapping[str, Any], text: str) -> list[str]:
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in fusions]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown {unknown}; choose from {list(fusions)}")
    return chosen


def _option(fusions: Mapping[str, Any], text: str) -> tuple[str, str, Any]:
    match = re.fullmatch(r"(\w+)\.(\w+)=(.+)", text)
    if not match or match[1] not in fusions:
        raise argparse.ArgumentTypeError(
            f"must be FUSION.NAME=VALUE with a fusion of {list(fusions)}, got {text!r}"
        )
    try:
        return match[1], match[2], ast.literal_eval(match[3])
    except (ValueError, SyntaxError):
        return match[1], match[2], match[3]  # a word, such as raw


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text}")
    return int(text)
