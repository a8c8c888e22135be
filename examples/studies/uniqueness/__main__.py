"""One equilibrium, or several: from how many samples do solvers and starts disagree?"""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from deq_fusion.examples.studies.output import Summary
from deq_fusion.examples.studies.study import Study
from deq_fusion.examples.studies.uniqueness.draw import draw
from deq_fusion.examples.studies.uniqueness.measure import measured, watched
from deq_fusion.examples.studies.uniqueness.rows import ROWS
from deq_fusion.examples.studies.uniqueness.summary import summary
from deq_fusion.training_structures.comparison.program.arguments import count
from deq_fusion.training_structures.comparison.program.terminal import on_terminal

PROGRAM = "python -m deq_fusion.examples.studies.uniqueness"
DESCRIPTION = f"""{__doc__}

Trains DEQ fusion by how it starts, and a map that has one fixed point by construction. Before
training, after epochs 1, 2, 4, 8, ... and at the selected epoch it solves for the equilibria of
validation samples by Anderson's and Broyden's methods and by plain iteration, each from zero and
from random states to 1e-9 in float64; and it scores the selected model with each of these
solutions. It says first how long that takes at most. The output folder gets

  several.png      samples with several fixed points, and the spectral radius, by epoch
  solutions.png    how far the scores of the solutions lie apart
  uniqueness.md    the tables, and tables.json; looks.csv, solutions.csv: all numbers; .svg of
                   each picture

and a folder for each injection with the comparison of the rows' scores."""


def _add(parser: ArgumentParser) -> None:
    add = parser.add_argument
    again = "another number trains all again"
    add("--starts", type=count, default=4, help=f"random ones beside zero (default: 4); {again}")
    add(
        "--samples",
        type=count,
        default=256,
        help=f"of the validation part that are looked at, in whole batches (default: 256); {again}",
    )
    add(
        "--max-steps",
        type=count,
        default=400,
        help=f"bound on the steps of a solve that looks (default: 400); {again}",
    )


STUDY = Study(
    PROGRAM,
    "uniqueness",
    DESCRIPTION,
    ROWS,
    "deq",
    summary=summary,
    draw=draw,
    measure=measured,
    add=_add,
    adapt=watched,
)


@on_terminal()
def main(argv: Sequence[str] | None = None) -> Summary | None:
    """Carries out the study; returns what it found."""
    return STUDY.main(sys.argv[1:] if argv is None else list(argv))


if __name__ == "__main__":
    main()
