"""Settings: a recipe's keyword-only parameters, given on a command line as `--set NAME=VALUE`.

A recipe is a function `recipe(data_dir=None, *, official=False, **settings) -> Recipe`. Names,
types, defaults and descriptions of its settings stand in one place, its signature:

    def recipe(
        data_dir: str | Path | None = None,
        *,
        official: bool = False,
        width: Annotated[int, "of the fused feature"] = 64,
    ) -> Recipe: ...
"""

import argparse
import ast
import inspect
import shutil
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

if TYPE_CHECKING:
    from ..recipe import Recipe

FORM = "recipe(data_dir=None, *, official=False, **settings) -> Recipe"
OWN = "data_dir", "official"  # parameters that are no settings
REQUIRED = inspect.Parameter.empty
HANGING = " " * 8


@dataclass(frozen=True)
class Setting:
    """A setting of a recipe: one of its keyword-only parameters.

    Attributes:
        name: of the parameter.
        default: of it; `REQUIRED` if there is none.
        types: those that a value may have; none known: any.
        sentence: what it is, for the help.
    """

    name: str
    default: Any
    types: tuple[type, ...]
    sentence: str

    def check(self, value: Any) -> None:
        """Raises ValueError for a value of another type."""
        known = (*self.types, int) if float in self.types else self.types
        flag = isinstance(value, bool) and bool not in known  # which Python takes for an integer
        if known and (flag or not isinstance(value, known)):
            wanted = " or ".join("None" if t is type(None) else t.__name__ for t in self.types)
            raise ValueError(f"--set {self.name} must be {wanted}, got {value!r}")


def settings_of(recipe: "Callable[..., Recipe]") -> dict[str, Setting]:
    """Returns the settings of a recipe, by name."""
    parameters = _parameters(recipe)
    return {
        p.name: _setting_of(p) for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in OWN
    }


def make_recipe(
    recipe: "Callable[..., Recipe]",
    data_dir: str | Path | None = None,
    *,
    official: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> "Recipe":
    """Returns what a recipe's function makes of the settings, once they are known to be right.

    Raises:
        ValueError: for a function of another form than `FORM`, a setting that it does not have,
            lacks, or that is of another type; and for what the function refuses itself.
    """
    _check_form(recipe)
    known, given = settings_of(recipe), dict(settings or {})
    for name, value in given.items():
        if name not in known:
            raise ValueError(
                f"--set {name}: this dataset has no such setting; "
                + (f"choose from {list(known)}" if known else "it has none")
            )
        known[name].check(value)
    for name, setting in known.items():
        if setting.default is REQUIRED and name not in given:
            raise ValueError(f"this dataset needs --set {name}=VALUE: {setting.sentence}")
    if official:
        if "official" not in (p.name for p in _parameters(recipe)):
            raise ValueError("this dataset has no official split of its own: leave out --official")
        given["official"] = True
    made = recipe(data_dir, **given)
    if not any(kind.__name__ == "Recipe" for kind in type(made).__mro__):  # by whichever import
        raise ValueError(f"{_name(recipe)} must return a Recipe, got {type(made).__name__}")
    return made


def asked_recipe(recipe: "Callable[..., Recipe]", args: argparse.Namespace) -> "Recipe":
    """Returns the recipe that parsed arguments ask for.

    Its function is given the folder, the split and the settings. The bound on epochs, precision,
    the part that is scored and the modalities are applied to what it returns.

    Raises:
        ValueError: for arguments that the recipe or its data do not allow.
    """
    made = make_recipe(recipe, args.data_dir, official=args.official, settings=dict(args.settings))
    changes = {"precision": args.precision, "part": args.part}
    made = replace(made, **{name: value for name, value in changes.items() if value is not None})
    made = made.shortened(args.epochs) if args.epochs is not None else made
    made = made.restricted(args.modalities) if args.modalities else made
    made.check_data()
    return made


def add_settings(
    parser: argparse._ActionsContainer,
    where: str = "--dataset NAME --help",
    of: str = "the dataset's recipe",
) -> None:
    """Adds `--set`; `describe_settings` tells what can be set.

    Args:
        parser: what the argument is added to.
        where: what its help names as the place where the settings are told.
        of: whose settings they are.
    """
    parser.add_argument(
        "--set",
        dest="settings",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"setting of {of} ({where}); may be given several times",
    )


def describe_settings(
    parser: argparse.ArgumentParser, recipes: "Mapping[str, Callable[..., Recipe]]"
) -> None:
    """Ends the arguments' help by a list of the settings of these recipes, a sentence each.

    Args:
        parser: one that leaves the lines of a description as they are.
        recipes: dataset -> function of its recipe.
    """
    width = max(40, shutil.get_terminal_size().columns - 4)
    lines = []
    for dataset, recipe in recipes.items():
        known = settings_of(recipe).values()
        lines += [f"{dataset}:"] if known else []
        for setting in known:
            lines += textwrap.wrap(
                _described(setting), width, initial_indent="  ", subsequent_indent=HANGING
            )
    none = "this dataset has none" if recipes else "--dataset NAME --help tells those of a dataset"
    parser.add_argument_group("settings, by --set", "\n".join(lines) or none)


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


def _described(setting: Setting) -> str:
    """Returns a line of help: a default of None is what its sentence says, and not shown."""
    shown = setting.default is not None and setting.default is not REQUIRED
    head = f"{setting.name}={setting.default}" if shown else setting.name
    return f"{head}: {setting.sentence}" if setting.sentence else head


def _parameters(recipe: Callable[..., Any]) -> list[inspect.Parameter]:
    """Returns the parameters, their annotations evaluated where they can be."""
    try:
        signature = inspect.signature(recipe, eval_str=True)
    except NameError:  # an annotation is text that names what is imported for type checkers alone
        signature = inspect.signature(recipe)
    return list(signature.parameters.values())


def _setting_of(parameter: inspect.Parameter) -> Setting:
    hint, sentence = parameter.annotation, ""
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        sentence = next((note for note in notes if isinstance(note, str)), "")
    types = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if hint is REQUIRED or not all(isinstance(kind, type) for kind in types):
        # what is not annotated, or by more than plain types, is like its default
        types = () if parameter.default in (None, REQUIRED) else (type(parameter.default),)
    return Setting(parameter.name, parameter.default, types, sentence)


def _check_form(recipe: Callable[..., Any]) -> None:
    """Raises ValueError unless the function takes a folder, and the rest by keyword."""
    parameters = _parameters(recipe)
    first, *rest = parameters or [None]
    keywords = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD
    if not (
        first is not None
        and first.name == "data_dir"
        and first.kind is first.POSITIONAL_OR_KEYWORD
        and all(p.kind in keywords for p in rest)
    ):
        found = inspect.Signature([p.replace(annotation=REQUIRED) for p in parameters])
        raise ValueError(
            f"a recipe must be a function {FORM}, got {_name(recipe)}{found}: the folder and the "
            "split are its parameters, not fields of parsed arguments, and --epochs, --modalities "
            "and --part are applied to what it returns"
        )


def _name(recipe: Callable[..., Any]) -> str:
    return getattr(recipe, "__name__", type(recipe).__name__)
