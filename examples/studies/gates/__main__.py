"""Which modality does the gate of DEQ fusion let through, step by step, even if it is noise?"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from functools import partial

from deq_fusion.examples.studies.gates.draw import draw
from deq_fusion.examples.studies.gates.measure import measure
from deq_fusion.examples.studies.gates.rows import FULL, OLD, ROWS
from deq_fusion.examples.studies.gates.summary import summary
from deq_fusion.examples.studies.output import Summary
from deq_fusion.examples.studies.study import Study
from deq_fusion.training_structures.comparison.program.arguments import count
from deq_fusion.training_structures.comparison.program.terminal import on_terminal
from deq_fusion.training_structures.comparison.single_run import Analysis

PROGRAM = "python -m deq_fusion.examples.studies.gates"
DESCRIPTION = f"""{__doc__}

The share of a modality is the mean of its |alpha_i| = |G(z + z_i)| over entries and samples, over
the sum of the modalities' (Ni et al., 2023, Figure 3), here of a joint solve from zero, with the
fusion's own solver, on the part that is scored. At 1/N each, the gate prefers none.

full      DEQ fusion; its shares for every class, too, and with noise in place of each modality's
          features when it is used, after training without
noise_in_modality_1   DEQ fusion trained and scored with noise in place of the first modality's
          features; noise_in_modality_2 ... 4: in place of the others', as far as there are any

The noise is normal, with the root mean square of the features of each sample. Every row is
trained under the protocol of deq-fusion compare, for the scale-free injection and for the
paper's own (raw), in a folder of its own. The output folder gets gates.md and tables.json (the
tables), gates.csv (all numbers) and pictures (.png, .svg): gates (shares against steps),
gates_classes and gates_noise."""


def _add(parser: ArgumentParser) -> None:
    for name, default, text in (
        ("--steps", 20, "of the solve that is looked at"),
        ("--samples", 10_000, "after so many of the scored part no further batch is read"),
    ):
        help = f"{text} (default: {default}); another number trains all again"
        parser.add_argument(name, type=count, default=default, metavar="N", help=help)


def _measure(args: Namespace) -> Analysis:
    return partial(measure, steps=args.steps, samples=args.samples)


STUDY = Study(
    PROGRAM,
    "gates",
    DESCRIPTION,
    ROWS,
    FULL,
    summary=summary,
    draw=draw,
    measure=_measure,
    add=_add,
    old=OLD,
)


@on_terminal()
def main(argv: Sequence[str] | None = None) -> Summary | None:
    """Carries out the study; returns what it found."""
    return STUDY.main(sys.argv[1:] if argv is None else list(argv))


if __name__ == "__main__":
    main()
