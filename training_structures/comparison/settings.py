"""Settings of a recipe on a command line: `--set NAME=VALUE`.

A recipe is a function of the parsed arguments. Its keyword-only parameters are its settings,
so their names, defaults and descriptions stand in one place, its signature and docstring.
"""

import argparse
import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any


def add_settings(parser: argparse._ActionsContainer, recipes: Mapping[str, Callable]) -> None:
    """Adds `--set`, whose help lists the settings of the recipes."""
    parser.add_argument(
        "--set",
        dest="settings",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="setting of the dataset's recipe; may be given several times: "
        + ("; ".join(filter(None, map(_listed, recipes, recipes.values()))) or "there is none"),
    )


def make_recipe(recipe: Callable[..., Any], args: argparse.Namespace) -> Any:
    """Returns the recipe for the arguments, with the settings among them.

    Raises:
        ValueError: for a setting that the recipe does not have, or that is of another type
            than its default.
    """
    known, given = defaults(recipe), dict(args.settings)
    for name, value in given.items():
        if name not in known:
            raise ValueError(
                f"--set {name}: this dataset has no such setting; "
                + (f"choose from {list(known)}" if known else "it has none")
            )
        kind = type(known[name])
        if kind is not type(None) and not isinstance(value, (kind, int) if kind is float else kind):
            raise ValueError(f"--set {name} must be like {known[name]!r}, got {value!r}")
    return recipe(args, **given)


def defaults(recipe: Callable[..., Any]) -> dict[str, Any]:
    """Returns the settings of a recipe and their defaults."""
    parameters = inspect.signature(recipe).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def literal(text: str) -> Any:
    """Returns the Python value that the text writes, or the text if it writes none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # a word, such as raw


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals and value):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, got {text!r}")
    return name, literal(value)


def _listed(name: str, recipe: Callable[..., Any]) -> str:
    known = ", ".join(f"{key}={value}" for key, value in defaults(recipe).items())
    return f"{name} has {known}" if known else ""
