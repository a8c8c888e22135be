"""Compares fusions on every subset of a set's modalities: what does each of them add?

python -m deq_fusion.examples.studies.subsets --dataset brca --data-dir DIR --runs 20 --jobs 2

The arguments are those of examples.compare_fusions (by default of the fusions deq and concat:
--fusions asks for others). Every subset of two or more modalities is a comparison of its own, in
a folder of its own, that goes on where it stopped; single modalities are rows of the whole set's.
A last table brings all together, and is kept as subsets.md (Ni et al., 2023, Table 1).
"""

import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from deq_fusion.examples.compare_fusions import RECIPES
from deq_fusion.fusions.registry import FUSIONS, LATER
from deq_fusion.training_structures.comparison import command_line
from deq_fusion.training_structures.comparison.methods import SINGLE, single
from deq_fusion.training_structures.comparison.program.arguments import (
    make_parser,
    read_arguments,
)
from deq_fusion.training_structures.comparison.program.program import listing
from deq_fusion.training_structures.comparison.program.settings import asked_recipe
from deq_fusion.training_structures.comparison.program.terminal import on_terminal
from deq_fusion.training_structures.comparison.report.table import markdown, score_heading, spread
from deq_fusion.training_structures.files import save_atomically

PROGRAM = "python -m deq_fusion.examples.studies.subsets"
USUAL = "deq", "concat"


@on_terminal()
def main(argv: Sequence[str] | None = None) -> str:
    """Runs the comparisons that the arguments ask for; returns the table of them all."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = make_parser(PROGRAM, RECIPES, usual=USUAL)
    args = read_arguments(parser, FUSIONS, argv)
    if args.list:
        print(listing(FUSIONS, LATER))
        return ""
    try:
        recipe = asked_recipe(args.recipe, args)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    names = recipe.modalities
    if len(names) < 2:
        parser.error(f"subsets need two modalities at least, got {list(names)}")
    data = args.data_dir.name if args.data_dir else args.dataset_name
    output = args.output or Path("results", f"{data}-subsets")
    told = {"program": PROGRAM, "subject": "deq", "later": LATER, "usual": USUAL}
    alone = {single(recipe, name).name: name for name in names}
    lines = []
    for size in range(len(names), 1, -1):
        for subset in combinations(names, size):
            whole = size == len(names)
            folder = output / "+".join(subset)
            own = ["--modalities", ",".join(subset), "--output", str(folder)]
            own += [] if whole else ["--no-unimodal"]
            found = command_line(RECIPES, FUSIONS, [*argv, *own], **told)
            for row in found.table():
                what = " + ".join(subset), row.method
                if row.kind == SINGLE:
                    what = alone[row.method], "itself"
                lines.append([*what, *(spread(row.scores[s.name], s) for s in found.scores)])
    head = ["modalities", "method", *map(score_heading, found.scores)]
    table = markdown(head, lines)
    save_atomically(output / "subsets.md", lambda file: file.write(f"{table}\n".encode()))
    print(f"\n{table}\n\nin {output}: subsets.md, and a folder for each subset")
    return table


if __name__ == "__main__":
    main()
