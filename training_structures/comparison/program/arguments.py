"""The arguments of a comparison's command line."""

import argparse
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...choices import PRECISIONS
from ..report.text import meant
from .settings import add_settings, describe_settings, literal

DESCRIPTION = """\
Trains fusions under one protocol and compares them. Every fusion gets the same encoders, loop,
budget and selection on validation data; the test part is read once. The answer is a table on the
terminal, and results.html (with pictures), .md, .csv and .json in the output folder. An
interrupted comparison goes on where it stopped when the same command is given again."""

ALL = "all"

EPILOG = """\
A fusion of your own, in my_module.py: a class MyFusion(input_dims, dim) that maps a list of
(batch, input_dims[i]) tensors to (batch, dim), or a function that returns (module, width):
  {program} --own-fusion my_module:MyFusion
A dataset of your own: a function recipe(data_dir=None, *, official=False, **settings) -> Recipe:
  {program} --dataset my_module:recipe"""


def make_parser(
    program: str,
    recipes: Mapping[str, Callable],
    *,
    usual: Sequence[str],
    description: str = DESCRIPTION,
    epilog: str = EPILOG,
    baseline: str = "concat",
) -> argparse.ArgumentParser:
    """Returns the parser, to which a program may add arguments of its own.

    Args:
        program: how it is called.
        recipes: dataset -> function of its recipe.
        usual: names of the fusions to compare where the arguments name none.
        description: what its help says first.
        epilog: what it says last.
        baseline: what fusions are tested against where it is among them.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        usage="%(prog)s [options]",
        description=description,
        epilog=epilog.format(program=program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action=_Help, recipes=recipes)
    _what(parser, recipes, usual)
    add_judged(parser, baseline)
    add_how(parser)
    return parser


class _Help(argparse.Action):
    """Shows the help, and of a dataset that was named before it the settings, too."""

    def __init__(self, option_strings: Sequence[str], dest: str, recipes: Mapping[str, Any]):
        says = "show this help; after --dataset NAME with the settings of its recipe"
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=says)
        self.recipes = recipes

    def __call__(self, parser: argparse.ArgumentParser, args: argparse.Namespace, *_: Any) -> None:
        named = args.dataset if isinstance(args.dataset, tuple) else None
        describe_settings(parser, {} if named is None else dict([named]))
        parser.print_help()
        parser.exit()


def read_arguments(
    parser: argparse.ArgumentParser,
    fusions: Mapping[str, Any],
    argv: Sequence[str],
    systems: Mapping[str, Callable[[], Mapping[str, Any]]] | None = None,
) -> argparse.Namespace:
    """Returns the arguments.

    `args.recipe` is the function of the recipe, `args.chosen` name -> fusion, and `args.systems`
    what else `--fusions` names, or `ALL`: it is to be looked up in the recipe.

    Args:
        parser: of `make_parser`.
        fusions: name -> fusion.
        argv: the arguments.
        systems: dataset -> function of its systems, see `command_line`; None: none can be named.
    """
    args = parser.parse_args(argv)
    args.dataset_name, args.recipe = args.dataset
    if systems is not None:
        args.systems = _asked_systems(parser, args, {**fusions, **dict(args.own)}, systems)
    args.chosen = chosen_fusions(parser, args, fusions)
    return args


def chosen_fusions(
    parser: argparse.ArgumentParser, args: argparse.Namespace, fusions: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns name -> fusion, of those that the arguments of `add_fusions` name."""
    own = dict(args.own)
    try:
        known = {**fusions, **own}  # own ones may be named again, and need not be
        asked = names(known, args.fusions, besides=getattr(args, "systems", ()))
        chosen = {name: known[name] for name in asked} | own
    except argparse.ArgumentTypeError as error:
        parser.error(f"argument --fusions: {error}")
    clash = sorted(own.keys() & fusions.keys()) or (len(own) < len(args.own) and list(own))
    if clash:
        parser.error(f"--own-fusion must have a name of its own, {clash} is there already")
    others = getattr(args, "systems", ())  # of which all means what the recipe has: known later
    for method, name, _ in args.option:
        if method not in chosen and others != ALL and method not in others:
            there = [*chosen, *others]
            parser.error(f"--option {method}.{name} must be of a fusion in {there}")
    return chosen


def _asked_systems(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    fusions: Mapping[str, Any],
    systems: Mapping[str, Callable[[], Mapping[str, Any]]],
) -> list[str] | str:
    """Returns what `--fusions` names besides fusions: systems of the dataset, all if it is `all`.

    Of a recipe of one's own nothing is known before it is made.
    """
    if args.fusions == ALL and ALL not in fusions:
        return ALL
    others = [name for name in words(args.fusions) if name not in fusions]
    if not others or args.dataset_name not in systems:
        return others
    own = systems[args.dataset_name]()
    for name in others:
        has = [] if name in own else [dataset for dataset, of in systems.items() if name in of()]
        if has:
            parser.error(
                f"argument --fusions: {name} is a system of {' and '.join(has)}, not of "
                f"{args.dataset_name}; name another --dataset, or leave it out"
            )
    unknown = [name for name in others if name not in own]
    if unknown:
        near, choices = meant(unknown, [*fusions, *own]), ", ".join([*fusions, *own])
        parser.error(
            f"argument --fusions: unknown {unknown}; {near}choose from {choices}, or {ALL}"
        )
    return others


def _what(
    parser: argparse.ArgumentParser,
    recipes: Mapping[str, Any],
    usual: Sequence[str],
) -> None:
    group = parser.add_argument_group("what to compare")
    add = group.add_argument
    first = next(iter(recipes))
    says = "show fusions, systems, floors, their sources, what they take and cost, and stop; after "
    add("--list", action="store_true", help=f"{says}--dataset NAME those of the dataset")
    add(
        "--dataset",
        type=partial(_dataset, recipes),
        default=first,  # argparse parses a default that is text
        metavar="NAME",
        help=f"{', '.join(recipes)}, or my_module:recipe (default: {first})",
    )
    add("--data-dir", type=Path, metavar="DIR", help="folder of the data, where there is one")
    add("--official", action="store_true", help="the official split instead of fresh ones")
    add("--modalities", type=words, metavar="A,B", help="those to use, by name; by default all")
    add_fusions(group, usual)
    add_settings(group)


def add_fusions(group: argparse._ActionsContainer, usual: Sequence[str]) -> None:
    """Adds the arguments that name fusions; `chosen_fusions` reads them."""
    add = group.add_argument
    add(
        "--fusions",
        default=",".join(usual),
        metavar="A,B",
        help="names (deq-fusion list), the dataset's systems too, or all; what cannot take the "
        "data is left out (default: "
        f"{_listed(usual)})",
    )
    add(
        "--own-fusion",
        dest="own",
        type=imported,
        action="append",
        default=[],
        metavar="MODULE:NAME",
        help="a fusion of your own besides; may be given several times",
    )
    # its name of before, which is that of one fusion in the scripts that train one
    add("--fusion", dest="own", type=imported, action="append", help=argparse.SUPPRESS)
    add(
        "--option",
        type=_option,
        action="append",
        default=[],
        metavar="FUSION.NAME=VALUE",
        help=f"option of a fusion's constructor, as {usual[0]}.dropout=0.5, or of a system, as "
        f"ogm_ge.fusion={usual[0]}; may be given several times",
    )


def add_judged(parser: argparse.ArgumentParser, baseline: str = "concat") -> None:
    """Adds the arguments that say how methods are judged."""
    add = parser.add_argument_group("how to compare it").add_argument
    add("--no-unimodal", action="store_true", help="leave out the single modalities")
    add("--metric", metavar="NAME", help="score to compare by; by default the recipe's first")
    add(
        "--baseline",
        metavar="METHOD",
        help="the row of the table that the others are tested against, such as "
        f"'only NAME' or linear (default: {baseline})",
    )
    add("--part", choices=["test", "valid"], default="test", help="what to score; valid to tune")
    add("--search", type=count, default=1, metavar="TRIALS", help="settings every fusion tries")
    add("--prune", action="store_true", help="end trials early that are worse than most before")
    add("--drop-modality", action="store_true", help="score with each modality missing, too")
    add(
        "--robustness",
        type=_levels,
        nargs="?",
        const=True,
        metavar="LEVELS",
        help="score with rising noise in each modality and in all, too, and where a rising share "
        "of the samples lacks one; at 0, 0.1, ... 1, or at the levels given, as 0,0.25,0.5,1",
    )
    add(
        "--diagnose",
        action="store_true",
        help="find out, too, what each modality brings to every fusion, whether they interact in "
        "it, and whether it is as sure as it is right; takes passes, and no training",
    )

    add(
        "--double-epochs",
        action="store_true",
        help="train methods that the bound on epochs may have stopped again with twice as many, "
        "and say whether validation gains by it",
    )


def add_how(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say how runs are made."""
    add = parser.add_argument_group("how to run it").add_argument
    add("--runs", type=count, help="of each method (default: 20 on fresh splits, else 5)")
    add(
        "--first-run",
        type=partial(count, least=0),
        default=0,
        metavar="SEED",
        help="the others follow (default: 0)",
    )
    add("--seeds", type=_integers, metavar="A,B", help="the runs' numbers, instead of those two")
    add("--epochs", type=count, help="bound on the epochs of a run, instead of the recipe's")
    add("--output", type=Path, metavar="DIR", help="folder for results; by default in results/")
    add("--jobs", type=count, default=1, help="processes to run in parallel (default: 1)")
    add("--threads", type=count, default=1, help="threads of each process (default: 1)")
    add("--device", default="cpu", help="where to train, such as cpu or cuda (default: cpu)")
    add("--log", type=Path, metavar="DIR", help="folder for TensorBoard's files, one for each run")
    add("--precision", choices=PRECISIONS, help="of the forward, not the recipe's; fp16: on GPUs")
    add(
        "--cluster",
        metavar="ADDRESS",
        help="scheduler of a dask cluster to run on, as tcp://host:8786; its workers need the "
        "same folders",
    )


def _dataset(recipes: Mapping[str, Any], text: str) -> tuple[str, Any]:
    if ":" in text:
        return text.replace(":", "-"), _import(text)
    if text not in recipes:
        raise argparse.ArgumentTypeError(
            f"unknown {text!r}; choose from {', '.join(recipes)}, or name my_module:recipe"
        )
    return text, recipes[text]


def imported(text: str) -> tuple[str, Any]:
    """Returns of `module:name` the name, and what it names."""
    return text.partition(":")[2], _import(text)


def _import(text: str) -> Any:
    """Returns what `module:name` names."""
    module_name, _, name = text.partition(":")
    if not module_name or not name:
        raise argparse.ArgumentTypeError(f"must be module:name, got {text!r}")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a user's module raises
        raise argparse.ArgumentTypeError(
            f"cannot import {module_name} ({type(error).__name__}: {error}); name a module in "
            "the current folder or on PYTHONPATH that imports"
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise argparse.ArgumentTypeError(
            f"{module_name} must have a class or function {name}; it has {known}"
        )
    return found


def names(known: Mapping[str, Any], text: str, besides: Sequence[str] = ()) -> list[str]:
    """Returns names out of the known ones, as text lists them, but for those `besides`; of `all`,
    all of them."""
    whole = text == ALL and ALL not in known
    chosen = list(known) if whole else [name for name in words(text) if name not in besides]
    unknown = [name for name in chosen if name not in known]
    if unknown:
        near, choices = meant(unknown, known), ", ".join(known)
        raise argparse.ArgumentTypeError(
            f"unknown {unknown}; {near}choose from {choices}, or {ALL}"
        )
    return chosen


def _listed(usual: Sequence[str]) -> str:
    more = f", ... {len(usual)} in all, a fixed list" if len(usual) > 3 else ""
    return ", ".join(usual[:3]) + more


def words(text: str) -> list[str]:
    """Returns the words that a text lists, between commas."""
    return [word.strip() for word in text.split(",")]


def _integers(text: str) -> list[int]:
    found = words(text)
    if not all(word.isdecimal() for word in found) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"must be different integers as 0,1,2, got {text}")
    return [int(word) for word in found]


def _levels(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, words(text)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be numbers as 0,0.5,1, got {text}") from error


def _option(text: str) -> tuple[str, str, Any]:
    match = re.fullmatch(r"(\w+)\.(\w+(?:\.\w+)*)=(.+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"must be FUSION.NAME=VALUE, got {text!r}")
    return match[1], match[2], literal(match[3])


def count(text: str, least: int = 1) -> int:
    """Returns the integer that a text says, of at least `least`."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be an integer of at least {least}, got {text}")
    return int(text)
