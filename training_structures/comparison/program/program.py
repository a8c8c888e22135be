"""The program around a comparison."""

import argparse
import importlib.util
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import joblib

from ...event_log import event_logs
from ...files import CannotWrite
from ..comparing import compare
from ..comparison import Comparison
from ..lock import check_free
from ..recipe import Fusion, Recipe
from ..report.text import printable
from ..single_run import Analysis
from ..systems import About, System
from .arguments import ALL, make_parser, read_arguments
from .listing import listing
from .settings import asked_recipe
from .terminal import on_terminal
from .trying import try_fusions


@on_terminal()
def command_line(
    recipes: Mapping[str, Callable[..., Recipe]],
    fusions: Mapping[str, Fusion],
    argv: Sequence[str] | None = None,
    *,
    program: str,
    subject: str | None = None,
    usual: Sequence[str] | None = None,
    systems: Mapping[str, Callable[[], Mapping[str, System]]] | None = None,
    floors: Mapping[str, Mapping[str, About]] | None = None,
) -> Comparison | None:
    """Runs the comparison that the arguments ask for, and prints and writes its results.

    Args:
        recipes: dataset -> function of its recipe, as `settings` describes it.
        fusions: name -> fusion, those that can be asked for.
        argv: the arguments; by default the process's.
        program: how it is called, for messages and for whoever repeats it.
        subject: the fusion that the comparison is about, set off in text and pictures.
        usual: the fusions to compare where the arguments name none; None: all of them.
        systems: dataset -> function without arguments of all its systems by name, of which its
            recipe has those that its settings allow in `Recipe.systems`; None: none can be named.
        floors: dataset -> what its floors are, for `--list`.

    Raises:
        SystemExit: for arguments that make no sense, with a message; and after the results are
            written, if a run has failed.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = make_parser(program, recipes, usual=list(fusions) if usual is None else usual)
    args = read_arguments(parser, fusions, argv, systems)
    if args.list:
        named = any(word.partition("=")[0] == "--dataset" for word in argv)
        print(listing(fusions, systems or {}, floors or {}, args if named else None))
        return None
    found = carry_out(parser, args, command=[program, *argv], subject=subject)
    exit_if_failed(found)
    return found


@on_terminal()
def carry_out(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    *,
    command: Sequence[str],
    subject: str | None,
    change: Callable[[Recipe], Recipe] = lambda recipe: recipe,
    analyse: Analysis | None = None,
    finish: Callable[[Comparison], Comparison] = lambda found: found,
) -> Comparison:
    """Runs the comparison of these arguments, and prints and writes its results.

    Args:
        parser: tells of arguments that make no sense.
        args: of `read_arguments`.
        command: what asked for it, program and arguments.
        subject: the fusion that the comparison is about.
        change: applied to the recipe that the arguments ask for.
        analyse: see `compare`.
        finish: applied to the comparison before it is printed and written.

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
        found = _compared(args, recipe, output, subject, analyse)
        found = finish(replace(found, asked=_line(command)))
        found.write(output)
    except CannotWrite:
        raise
    except (ValueError, OSError) as error:
        parser.error(printable(str(error), keep="\n"))
    print(f"\n{found}\n\nin {output}: {_files(args)}")
    return found


def _files(args: argparse.Namespace) -> str:
    """Returns in words what there is to look at, and what is only there."""
    drawn = importlib.util.find_spec("matplotlib") is not None
    pictures = "pictures" if drawn else "no pictures: pip install matplotlib"
    hidden = ", scores without each modality" if args.drop_modality else ""
    robust = "; curves of every run in robustness.csv" if args.robustness else ""
    robust += "; diagnoses of every run in diagnoses.csv" if args.diagnose else ""
    return f"results.html ({pictures}{hidden}), .md, .csv, .json{robust}; every run in runs"


def exit_if_failed(*found: Comparison) -> None:
    """Raises SystemExit if a run of these comparisons has failed."""
    failures = sum(len(each.failures) for each in found)
    if failures:
        sys.exit(f"runs that failed: {failures}; the same command tries them again")


def _compared(
    args: argparse.Namespace,
    recipe: Recipe,
    output: Path,
    subject: str | None,
    analyse: Analysis | None,
) -> Comparison:
    """Returns the comparison, once it is carried out.

    Raises:
        ValueError: for arguments that make no sense.
        FileNotFoundError: for files that are not there.
        SystemExit: if every run failed.
    """
    runs, chosen = asked_runs(args, recipe), args.chosen | _systems(args, recipe)
    try_fusions(args, recipe, chosen, runs[0])
    print(f"{recipe.name}: runs {list(runs)}, in {output}", file=sys.stderr, flush=True)
    with _cluster(args.cluster):
        found = compare(
            recipe,
            chosen,
            runs,
            output=output,
            baseline=args.baseline,
            subject=subject if subject in chosen else None,
            metric=args.metric,
            unimodal=not args.no_unimodal,
            trials=args.search,
            prune=args.prune,
            drop_modality=args.drop_modality,
            robustness=args.robustness,
            diagnose=args.diagnose,
            double_epochs=args.double_epochs,
            analyse=analyse,
            jobs=None if args.cluster else args.jobs,
            threads=args.threads,
            device=args.device,
            watch=event_logs(args.log) if args.log else None,
        )
    if not found.results:
        last = printable(found.failures[-1]["error"], keep="\n\t")
        sys.exit(f"every run failed, the last with:\n{last}")
    return found


def _line(command: Sequence[str]) -> str:
    program, *arguments = command
    return f"{program} {shlex.join(arguments)}".strip()


def _asked_recipe(args: argparse.Namespace) -> Recipe:
    """Returns the recipe that the arguments ask for, with their options of fusions."""
    recipe = asked_recipe(args.recipe, args)
    options = {**recipe.fusion_options}
    for method, name, value in args.option:
        options[method] = {**options.get(method, {}), name: value}
    return replace(recipe, fusion_options=options)


def _systems(args: argparse.Namespace, recipe: Recipe) -> dict[str, System]:
    """Returns name -> system of those of the recipe that the arguments name."""
    asked = getattr(args, "systems", ())
    names = list(recipe.systems) if asked == ALL else asked
    for name in names:
        if name not in recipe.systems:
            there = ", ".join(recipe.systems) or "none"
            raise ValueError(
                f"--fusions: {name} is neither a fusion nor a system of {recipe.name}, with these "
                f"settings, whose systems are: {there}"
            )
    return {name: recipe.systems[name] for name in names}


def asked_runs(args: argparse.Namespace, recipe: Recipe) -> Sequence[int]:
    """Returns the numbers of the runs that the arguments ask for."""
    if args.seeds:
        return args.seeds
    return range(args.first_run, args.first_run + (args.runs or (20 if recipe.resplit else 5)))


def results_folder(args: argparse.Namespace) -> Path:
    """Returns the folder of results where none is given: one for each kind of comparison."""
    kind = [args.dataset_name, *([args.data_dir.name] if args.data_dir else [])]
    kind += ["official"] if args.official else []
    kind += [*asked_kind(args), *(args.modalities or [])]
    return Path("results", "-".join(kind))


def asked_kind(args: argparse.Namespace) -> list[str]:
    """Returns words for what is asked of a comparison besides its data."""
    kind = [args.part] if args.part != "test" else []
    kind += ["search"] if args.search > 1 else []
    kind += ["prune"] if args.prune else []
    kind += ["missing"] if args.drop_modality else []
    kind += ["robust"] if args.robustness else []
    kind += ["diagnosed"] if args.diagnose else []
    kind += [args.precision] if args.precision else []
    kind += [f"epochs={args.epochs}"] if args.epochs else []
    return kind + [f"{name}={str(value).replace('/', '-')}" for name, value in args.settings]


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
