"""The program around a comparison."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import joblib
import torch

from ..event_log import event_logs
from ..files import CannotWrite
from .arguments import make_parser, read_arguments
from .compare import compare
from .listing import listing
from .lock import check_free
from .methods import Method, gather
from .recipe import Fusion, Recipe, Score
from .report import Report
from .settings import asked_recipe
from .single_run import Analysis, build_model
from .store import provenance
from .terminal import on_terminal
from .text import printable


def command_line(
    recipes: Mapping[str, Callable[..., Recipe]],
    fusions: Mapping[str, Fusion],
    argv: Sequence[str] | None = None,
    *,
    program: str,
    subject: str | None = None,
    later: Mapping[str, str] | None = None,
) -> Report | None:
    """Runs the comparison that the arguments ask for, and prints and writes its results.

    Args:
        recipes: dataset -> function of its recipe, as `settings` describes it.
        fusions: name -> fusion, those that can be asked for.
        argv: the arguments; by default the process's.
        program: how it is called, for messages and for whoever repeats it.
        subject: the fusion that the comparison is about, set off in text and pictures.
        later: methods that are not there yet -> why, for `--list`.

    Raises:
        SystemExit: for arguments that make no sense, with a message; and after the results are
            written, if a run has failed.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = make_parser(program, recipes, fusions)
    args = read_arguments(parser, fusions, argv)
    if args.list:
        print(listing(fusions, later or {}))
        return None
    report = carry_out(parser, args, command=[program, *argv], subject=subject)
    exit_if_failed(report)
    return report


@on_terminal()
def carry_out(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    *,
    command: Sequence[str],
    subject: str | None,
    change: Callable[[Recipe], Recipe] = lambda recipe: recipe,
    analyse: Analysis | None = None,
) -> Report:
    """Runs the comparison of these arguments, and prints and writes its results.

    Args:
        parser: tells of arguments that make no sense.
        args: of `read_arguments`.
        command: what asked for it, program and arguments.
        subject: the fusion that the comparison is about.
        change: applied to the recipe that the arguments ask for.
        analyse: see `compare`.

    Raises:
        SystemExit: for arguments that make no sense, if every run failed, if the comparison
            cannot go on for now, or if it is stopped by Ctrl-C or SIGTERM: each with a message.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        parser.error(
            "a comparison must be one process, which starts others by --jobs, got "
            f"{os.environ['WORLD_SIZE']} of torchrun; let torchrun start a script of one fusion"
        )
    output = args.output or results_folder(args)
    try:
        check_free(output)  # before data are read, which may take long
        recipe = change(_asked_recipe(args))
        report = _report(args, recipe, output, subject=subject, command=command, analyse=analyse)
        report.write(output)
    except CannotWrite:
        raise
    except (ValueError, OSError) as error:
        parser.error(printable(str(error), keep="\n"))
    files = "results.html (pictures), .md, .csv, .json; every run in runs"
    print(f"\n{report.terminal()}\n\nin {output}: {files}")
    return report


def exit_if_failed(*reports: Report) -> None:
    """Raises SystemExit if a run of these comparisons has failed."""
    failures = sum(len(report.found.failures) for report in reports)
    if failures:
        sys.exit(f"runs that failed: {failures}; the same command tries them again")


def _report(
    args: argparse.Namespace,
    recipe: Recipe,
    output: Path,
    *,
    subject: str | None,
    command: Sequence[str],
    analyse: Analysis | None,
) -> Report:
    """Returns the report of the comparison, once it is carried out.

    Raises:
        ValueError, FileNotFoundError: for arguments that make no sense.
        SystemExit: if every run failed.
    """
    runs, baseline = _runs(args, recipe), _baseline(args, recipe)
    print(f"{recipe.name}: runs {list(runs)}, in {output}", file=sys.stderr, flush=True)
    test_share = _test_share(args, recipe, runs[0])
    with _cluster(args.cluster):
        found = compare(
            recipe,
            args.chosen,
            runs=runs,
            output=output,
            unimodal=not args.no_unimodal,
            trials=args.search,
            prune=args.prune,
            drop_modality=args.drop_modality,
            analyse=analyse,
            jobs=None if args.cluster else args.jobs,
            threads=args.threads,
            device=args.device,
            watch=event_logs(args.log) if args.log else None,
        )
    if not found.results:
        if found.failures:
            last = printable(found.failures[-1]["error"], keep="\n\t")
            sys.exit(f"every run failed, the last with:\n{last}")
        reasons = "; ".join(f"{name} {reason}" for name, reason in found.skipped.items())
        raise ValueError(f"no fusion takes this dataset: {reasons}")
    score = _score(args.metric, recipe, found.results[0]["scores"])
    made_by = provenance(args.threads, args.device)
    return Report(found, recipe, score, baseline, subject, test_share, command, made_by)


def _asked_recipe(args: argparse.Namespace) -> Recipe:
    """Returns the recipe that the arguments ask for, with their options of fusions."""
    recipe = asked_recipe(args.recipe, args)
    options = {**recipe.fusion_options}
    for method, name, value in args.option:
        options[method] = {**options.get(method, {}), name: value}
    return replace(recipe, fusion_options=options)


def _baseline(args: argparse.Namespace, recipe: Recipe) -> str | None:
    """Returns the method to test against, once metric and baseline are known to be there."""
    known = [score.name for score in recipe.scores]
    if args.metric not in (None, *known):
        raise ValueError(f"unknown metric {args.metric!r}; choose from {', '.join(known)}")
    unimodal = not args.no_unimodal
    methods, _ = gather(recipe, args.chosen, unimodal=unimodal)
    names = [method.name for method in methods]
    if args.baseline not in (None, *names):
        raise ValueError(f"unknown baseline {args.baseline!r}; choose from {', '.join(names)}")
    return args.baseline or ("concat" if "concat" in names else None)


def _score(metric: str | None, recipe: Recipe, there: Mapping[str, float]) -> Score:
    """Returns the score to compare by; by default the first that this set has."""
    for score in recipe.scores:
        if score.name in there and metric in (None, score.name):
            return score
    raise ValueError(f"this set has no {metric}; choose a metric from {', '.join(there)}")


def _runs(args: argparse.Namespace, recipe: Recipe) -> Sequence[int]:
    if args.seeds:
        return args.seeds
    return range(args.first_run, args.first_run + (args.runs or (20 if recipe.resplit else 5)))


def results_folder(args: argparse.Namespace) -> Path:
    """Returns the folder of results where none is given: one for each kind of comparison."""
    kind = [args.dataset_name, *([args.data_dir.name] if args.data_dir else [])]
    kind += ["official"] if args.official else []
    kind += [args.part] if args.part != "test" else []
    kind += ["search"] if args.search > 1 else []
    kind += ["prune"] if args.prune else []
    kind += ["missing"] if args.drop_modality else []
    kind += [args.precision] if args.precision else []
    kind += [f"{name}={str(value).replace('/', '-')}" for name, value in args.settings]
    return Path("results", "-".join([*kind, *(args.modalities or [])]))


def _test_share(args: argparse.Namespace, recipe: Recipe, run: int) -> float | None:
    """Returns scored samples per training sample where runs are fresh splits of one set.

    Tries what the arguments name before any work: the data, the device, and options of fusions.
    """
    train, valid, test = recipe.loaders(run)
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {args.device} cannot be used here ({error})") from error
    for name in {method for method, _, _ in args.option}:
        try:
            build_model(Method(name, recipe, args.chosen[name]), train)
        except (TypeError, ValueError) as error:
            options = dict(recipe.fusion_options[name])
            raise ValueError(f"{name} cannot be built with {options}: {error}") from error
    if not recipe.resplit:
        return None
    return len((test if recipe.part == "test" else valid).dataset) / len(train.dataset)


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Sends joblib's work to the dask cluster at an address, if there is one."""
    if address is None:
        yield
        return
    try:
        from dask.distributed import Client
    except ModuleNotFoundError as error:
        raise ValueError("--cluster needs dask: pip install distributed") from error
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise ValueError(f"no dask scheduler answers at {address} ({error})") from error
    with client, joblib.parallel_config(backend="dask"):
        yield
