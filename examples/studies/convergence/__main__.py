"""Does DEQ fusion converge once it is trained, and how early may one stop?"""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from deq_fusion.examples.studies.convergence.draw import draw
from deq_fusion.examples.studies.convergence.measure import measured
from deq_fusion.examples.studies.convergence.rows import OLD, ROWS
from deq_fusion.examples.studies.convergence.summary import summary
from deq_fusion.examples.studies.output import Summary
from deq_fusion.examples.studies.study import Study
from deq_fusion.training_structures.comparison.program.arguments import count
from deq_fusion.training_structures.comparison.program.terminal import on_terminal

PROGRAM = "python -m deq_fusion.examples.studies.convergence"
DESCRIPTION = f"""{__doc__}

Trains DEQ fusion and the same map weight-tied (backpropagated through its steps), with and without
Jacobian penalty, from the fusion's own start and from that of the authors' release; then traces
their solves at inference (Ni et al., 2023, Figure 4 and Table 8). The output folder gets

  convergence.png    relative change of z_fuse, and residual of the joint state, against steps
  solvers.png        the residual by solver, joint and block-wise
  radius.png         spectral radius of the trained map
  early.png          validation score against tolerance and step limit at inference
  convergence.md     the tables, and tables.json; traces.csv, radii.csv, early.csv: all numbers;
                     .svg of each picture

and a folder for each injection with the comparison of the rows' scores."""


def _add(parser: ArgumentParser) -> None:
    add = parser.add_argument
    again = "another number trains all again"
    add("--steps", type=count, default=100, help=f"of the traces (default: 100); {again}")
    add(
        "--samples",
        type=count,
        default=1000,
        help=f"of the scored part, at most, that are traced (default: 1000); {again}",
    )


STUDY = Study(
    PROGRAM,
    "convergence",
    DESCRIPTION,
    ROWS,
    "no_penalty",
    summary=summary,
    draw=draw,
    measure=measured,
    add=_add,
    old=OLD,
)


@on_terminal()
def main(argv: Sequence[str] | None = None) -> Summary | None:
    """Carries out the study; returns what it found."""
    return STUDY.main(sys.argv[1:] if argv is None else list(argv))


if __name__ == "__main__":
    main()
