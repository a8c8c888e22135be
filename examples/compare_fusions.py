"""Compares fusions on a benchmark: one command, one protocol, a table and a picture.

deq-fusion list
deq-fusion list --dataset brca
deq-fusion compare --dataset digits --fusions deq,concat --runs 5
deq-fusion compare --dataset brca --data-dir DIR --runs 20 --jobs 2
deq-fusion compare --dataset mosi --data-dir DIR --modalities text,audio
deq-fusion compare --dataset imdb --data-dir DIR --set encoders=vgg_word2vec
deq-fusion compare --dataset vqa --data-dir DIR --fusions deq,concat,mutan
"""

import argparse
from collections.abc import Sequence

from deq_fusion.training_structures.comparison.program.arguments import make_parser
from deq_fusion.training_structures.comparison.program.deferred import Deferred

FOLDERS = {  # dataset -> package of its recipe, systems and floors
    "digits": "deq_fusion.examples.digits",
    "brca": "deq_fusion.examples.brca",
    "tcga": "deq_fusion.examples.tcga",
    "mosi": "deq_fusion.examples.affect",
    "imdb": "deq_fusion.examples.imdb",
    "vqa": "deq_fusion.examples.vqa",
    "sequences": "deq_fusion.examples.synthetic",
    "synthetic": "deq_fusion.examples.synthetic.vectors",
}
RECIPES = Deferred({name: f"{where}.recipe:recipe" for name, where in FOLDERS.items()})
SYSTEMS = Deferred({name: f"{where}.systems:systems" for name, where in FOLDERS.items()})
FLOORS = Deferred(
    {name: f"{where}.systems:FLOORS" for name, where in FOLDERS.items()}
    | {"tables of your own": "deq_fusion.own_data.floors:FLOORS"}
)
PROGRAM = "deq-fusion compare"
USUAL = (
    *("deq", "deq_one_step", "deq_neumann", "deq_paper", "deq_unrolled"),
    *("concat", "concat_linear", "sum", "weighted_sum", "film", "interactions", "interactions3"),
    *("tensor", "low_rank", "mutan", "nl_gate", "gmu", "attention", "cross", "evidential", "late"),
    *("mult", "late_transformer", "early_transformer", "early_gru"),
)
"""The fusions that are compared where none are named: a comparison takes no longer because the
registry has grown. `--fusions all` takes them all."""


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the arguments, without importing what carries them out."""
    return make_parser(PROGRAM, RECIPES, usual=USUAL)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the comparison that the arguments ask for."""
    from deq_fusion.fusions.registry import FUSIONS
    from deq_fusion.training_structures.comparison import command_line

    told = {"subject": "deq", "usual": USUAL, "systems": SYSTEMS, "floors": FLOORS}
    command_line(RECIPES, FUSIONS, argv, program=PROGRAM, **told)


def main_list(argv: Sequence[str] = ()) -> None:
    """Prints the list of the fusions, systems and floors."""
    main(["--list", *argv])


if __name__ == "__main__":
    main()
