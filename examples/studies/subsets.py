"""Compares fusions on every subset of a set's modalities: how much does each of them add?

python -m deq_fusion.examples.studies.subsets --dataset brca --data-dir DIR --runs 20 --jobs 2

The arguments are those of deq-fusion compare (by default of the fusions deq and concat: --fusions
asks for others). Every subset of two or more modalities is a comparison of its own, in a folder of
its own, that goes on where it stopped; single modalities are rows of the whole set's. The output
folder gets all together as subsets.md, tables.json and a picture (Ni et al., 2023, Table 1).
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from deq_fusion.examples.compare_fusions import RECIPES
from deq_fusion.examples.studies.drawing import (
    from_zero,
    label,
    legend_above,
    looks_of,
    make_figure,
)
from deq_fusion.examples.studies.output import Summary, write_all
from deq_fusion.examples.studies.score_tables import score_column, spread
from deq_fusion.examples.studies.tables import Column, Table
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison import Comparison, Recipe, command_line
from deq_fusion.training_structures.comparison.methods import SINGLE, single
from deq_fusion.training_structures.comparison.program.arguments import (
    make_parser,
    read_arguments,
)
from deq_fusion.training_structures.comparison.program.listing import listing
from deq_fusion.training_structures.comparison.program.settings import asked_recipe
from deq_fusion.training_structures.comparison.program.terminal import on_terminal
from deq_fusion.training_structures.comparison.report.table import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROGRAM = "python -m deq_fusion.examples.studies.subsets"
USUAL = "deq", "concat"
ITSELF = "itself"  # the method of a single modality
Subset = tuple[str, ...]


@on_terminal()
def main(argv: Sequence[str] | None = None) -> Summary | None:
    """Carries out the study that the arguments ask for; returns what it found.

    None if nothing but the list of fusions was asked for.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = make_parser(PROGRAM, RECIPES, usual=USUAL, description=__doc__)
    args = read_arguments(parser, FUSIONS, argv)
    if args.list:
        print(listing(FUSIONS, {}, {}))
        return None
    recipe = _recipe(parser, args)
    data = args.data_dir.name if args.data_dir else args.dataset_name
    output = args.output or Path("results", f"{data}-subsets")
    found = {subset: measure(subset, recipe, argv, output) for subset in rows(recipe)}
    told = summary(found)
    command = [*PROGRAM.split(), *argv]
    how = {"command": command, "threads": args.threads, "device": args.device}
    there = write_all(output, "subsets", told, draw(found), **how)
    print(f"\n{told}\n\n{there}; and a folder for each subset")
    return told


def _recipe(parser: ArgumentParser, args: Namespace) -> Recipe:
    try:
        recipe = asked_recipe(args.recipe, args)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    if len(recipe.modalities) < 2:
        parser.error(f"subsets need two modalities at least, got {list(recipe.modalities)}")
    return recipe


def rows(recipe: Recipe) -> list[Subset]:
    """Returns all subsets of two or more modalities, the whole set first."""
    names = recipe.modalities
    return [s for size in range(len(names), 1, -1) for s in combinations(names, size)]


def measure(subset: Subset, recipe: Recipe, argv: Sequence[str], output: Path) -> Comparison:
    """Returns the comparison of a subset, with the single modalities if it is the whole set."""
    own = ["--modalities", ",".join(subset), "--output", str(output / "+".join(subset))]
    own += [] if subset == recipe.modalities else ["--no-unimodal"]
    told = {"program": PROGRAM, "subject": "deq", "usual": USUAL}
    return command_line(RECIPES, FUSIONS, [*argv, *own], **told)


def summary(found: Mapping[Subset, Comparison]) -> Summary:
    """Returns all scores of every subset and method, and of single modalities."""
    scores = next(iter(found.values())).scores
    columns = [Column("modalities"), Column("method"), Column("runs", ".0f")]
    columns += [score_column(score) for score in scores]
    lines = [
        [*where, row.runs, *(spread(row.scores[score.name]) for score in scores)]
        for where, row in _rows_of(found)
    ]
    title = "Scores on every subset of the modalities: mean and sd over the runs"
    return Summary([Table("subsets", columns, lines, 2, title)])


def draw(found: Mapping[Subset, Comparison]) -> "dict[str, Figure]":
    """Returns the first score of every method, with its interval, a line for each subset."""
    score = next(iter(found.values())).score
    lines = list(_rows_of(found))
    subsets = list(dict.fromkeys(subset for (subset, _), _ in lines))
    methods = list(dict.fromkeys(method for (_, method), _ in lines))
    height = 0.9 + len(subsets) * max(0.3, 0.12 * len(methods))
    figure, (axes,) = make_figure(1, height)
    looks, unit = looks_of(methods), 100 if score.percent else 1
    for (subset, method), row in lines:
        shift = methods.index(method) - (len(methods) - 1) / 2
        at = subsets.index(subset) + 0.7 * shift / len(methods)
        value, look = row.scores[score.name], looks[method] | {"linestyle": "none"}
        bounds = [unit * value.low, unit * value.high]
        axes.plot(bounds, [at, at], color=look["color"], linewidth=1.5)
        axes.plot(unit * value.mean, at, markersize=4, label=method, **look)
    axes.set_yticks(range(len(subsets)), subsets, fontsize=8)
    axes.set_ylim(len(subsets) - 0.5, -0.5)
    axes.set_xlabel(f"{label(score)}: mean and its 95 % interval", fontsize=8)
    axes.set_title("scores by modalities", fontsize=9, loc="left")
    from_zero([axes], score)
    legend_above(figure, axes, columns=3)
    return {"subsets": figure}


def _rows_of(found: Mapping[Subset, Comparison]) -> list[tuple[tuple[str, str], Row]]:
    """Returns ((modalities, method), row), subset by subset; a single one's method is itself."""
    lines = []
    for subset, comparison in found.items():
        alone = {
            single(comparison.recipe, name).name: name for name in comparison.recipe.modalities
        }
        for row in comparison.table():
            where = " + ".join(subset), row.method
            if row.kind == SINGLE:
                where = alone[row.method], ITSELF
            lines.append((where, row))
    return lines


if __name__ == "__main__":
    main()
