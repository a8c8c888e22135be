"""The measurements behind a table of systems: a comparison for each group of its rows."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deq_fusion.examples.compare_fusions import RECIPES
from deq_fusion.examples.studies.paper_tables.protocol import LABEL, selected_on_test
from deq_fusion.examples.studies.paper_tables.rows import Group, PaperTable, Row
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.checkpoint import seeded
from deq_fusion.training_structures.comparison import Comparison, Recipe
from deq_fusion.training_structures.comparison.methods import single
from deq_fusion.training_structures.comparison.program.program import carry_out
from deq_fusion.training_structures.comparison.program.settings import asked_recipe
from deq_fusion.training_structures.comparison.report.table import Row as Result

COMPANION = "concat"  # a comparison has a fusion, also where a floor or a modality is all one asks
NOT_ASKED: Mapping[str, Any] = {  # of a comparison's arguments, those that a table does not have
    "own": [],
    "option": [],
    "baseline": None,
    "metric": None,
    "part": "test",
    "search": 1,
    "prune": False,
    "drop_modality": False,
    "robustness": None,
    "diagnose": False,
    "double_epochs": False,
}


@dataclass(frozen=True)
class Found:
    """The findings of a group.

    Attributes:
        comparison: of those of its methods that are there; None if there are none.
        parts: the samples in train, validation and test; empty if there are no data.
        name: of the recipe, which tells data, host and split.
        absent: method -> why it is not there.
        settings: of the recipe, by which one tells whether weights were pretrained.
    """

    comparison: Comparison | None
    parts: str
    name: str
    absent: Mapping[str, str]
    settings: Mapping[str, Any]

    def row(self, method: str) -> Result | None:
        """Returns a method's results; None without a finished run."""
        if self.comparison is None or not self.comparison.results:
            return None
        return next((row for row in self.comparison.table() if row.method == method), None)


def measure(
    table: PaperTable,
    rows: Sequence[Row],
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    command: Sequence[str],
    *,
    published: bool = False,
) -> dict[str, Found]:
    """Carries out the comparisons of these rows; returns group -> what was found.

    A group whose data are not there is told as absent; the program ends if no group has any.

    Args:
        table: of the rows.
        rows: those that are wanted.
        parser: tells of arguments that make no sense.
        args: of the study.
        command: what asked for it.
        published: whether by the paper's protocol, selecting on test.
    """
    found = {}
    for name in dict.fromkeys(row.group for row in rows):
        methods = list(dict.fromkeys(m for row in rows if row.group == name for m in row.methods))
        own = arguments(table, name, args, published=published)
        found[name] = _group(methods, parser, own, command, published=published)
    reasons = [why for each in found.values() if not each.parts for why in each.absent.values()]
    if reasons and not any(each.parts for each in found.values()):
        parser.error(reasons[0])
    return found


def arguments(
    table: PaperTable, name: str, args: argparse.Namespace, *, published: bool
) -> argparse.Namespace:
    """Returns the arguments of a group's comparison, as `carry_out` takes them."""
    group = table.groups[name]
    settings = {**group.settings, **(group.published if published else {})}
    settings |= {key: value for key, value in args.settings if key not in group.without}
    folder = args.output / (f"{name}, {LABEL}" if published else name)
    runs = args.runs or (table.runs if published else None)
    own = {"dataset_name": table.dataset, "recipe": RECIPES[table.dataset], "output": folder}
    own |= {"official": published and table.official, "modalities": _names(group), "runs": runs}
    own |= {"settings": list(settings.items()), "no_unimodal": True, "data_dir": args.data_dir[0]}
    return argparse.Namespace(**{**NOT_ASKED, **vars(args), **own})


def _names(group: Group) -> list[str] | None:
    return None if group.modalities is None else list(group.modalities)


def _group(
    methods: Sequence[str],
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    command: Sequence[str],
    *,
    published: bool,
) -> Found:
    def change(recipe: Recipe) -> Recipe:
        floors = {name: fit for name, fit in recipe.floors.items() if name in methods}
        changed = replace(recipe, floors=floors)
        return selected_on_test(changed) if published else changed

    try:
        recipe = asked_recipe(args.recipe, args)
        parts = _parts(change(recipe))
    except (ValueError, OSError) as error:
        return Found(None, "", "", dict.fromkeys(methods, str(error)), dict(args.settings))
    args.chosen = {name: FUSIONS[name] for name in methods if name in FUSIONS}
    args.systems = [name for name in methods if name in recipe.systems]
    modalities = [single(recipe, name).name for name in recipe.modalities]
    args.no_unimodal = not set(modalities) & set(methods)
    known = {*args.chosen, *args.systems, *recipe.floors, *modalities}
    absent = {
        name: f"{name} is not among the fusions, systems and floors here"
        for name in methods
        if name not in known
    }
    comparison = None
    if len(absent) < len(methods):
        if not args.chosen and not args.systems:
            args.chosen = {COMPANION: FUSIONS[COMPANION]}
        comparison = carry_out(parser, args, command=command, subject="deq", change=change)
        absent |= {name: f"not compared: {why}" for name, why in comparison.skipped.items()}
    return Found(comparison, parts, recipe.name, absent, dict(args.settings))


def _parts(recipe: Recipe) -> str:
    """Returns how many samples train, validation and test have."""
    with seeded(0):
        train, valid, test = recipe.loaders(0)
    counts = [str(len(loader.dataset)) for loader in (train, valid, test)]
    return "/".join([counts[0], "-" if valid is test else counts[1], counts[2]])
