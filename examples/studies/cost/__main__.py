"""The cost of deep equilibrium fusion: one command, one run.

python -m deq_fusion.examples.studies.cost                  everything (under eight minutes)
python -m deq_fusion.examples.studies.cost --parts cases --shapes 128,2,512
python -m deq_fusion.examples.studies.cost --device cuda    the same on a GPU

Methods: DEQ fusion with the exact and the one-step gradient, the same map solved jointly by
torchdeq (if it is installed), unrolled with as many steps and backpropagated, and concatenation
followed by a linear map. Sequences: EF-LSTM, whose loop is torch's own, MFN, MARN and RMFN. Prints
tables, and writes them (cost.md, tables.json) after every group of measurements, with pictures in
the end. The cost within the published models: `.cost.hosts`; how fast data are read:
`.cost.loading`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from deq_fusion.examples.studies.cost.draw import draw
from deq_fusion.examples.studies.cost.measure import PARTS
from deq_fusion.examples.studies.cost.rows import SHAPES
from deq_fusion.examples.studies.cost.summary import summary
from deq_fusion.examples.studies.cost.timing import Settings, threads
from deq_fusion.examples.studies.output import Summary, write_all

PROGRAM = "python -m deq_fusion.examples.studies.cost"


def main(argv: Sequence[str] | None = None) -> Summary:
    """Measures, prints and saves what the arguments ask for; returns what was found."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = _parse(argv)
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler's own words
    settings = Settings(args.seconds, args.most, args.device)
    how = {"command": [*PROGRAM.split(), *argv], "threads": args.threads, "device": args.device}
    groups = []
    with threads(args.threads):
        for part in args.parts:
            options = {"shapes": args.shapes} if part == "cases" else {}
            for group in PARTS[part](settings, **options):
                groups.append(group)
                write_all(args.output, "cost", summary(groups), {}, **how)
    told = summary(groups)
    there = write_all(args.output, "cost", told, draw(groups), **how)
    print(f"\n{told}\n\n{there}")
    return told


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--parts", type=_parts, default=list(PARTS), help=f"of {','.join(PARTS)} (default: all)")
    add("--shapes", type=_shape, nargs="+", default=[*SHAPES], help="batch,modalities,width ...")
    add("--seconds", type=float, default=3.0, help="time for one group of repeats (default: 3)")
    add("--most", type=int, default=100, help="most repeats (default: 100)")
    add("--device", default="cpu", help="where to measure (default: cpu)")
    add("--threads", type=int, default=1, help="number of threads (default: 1)")
    add("--output", type=Path, default=Path("results/cost"), help="folder (default: %(default)s)")
    return parser.parse_args(argv)


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown part {unknown[0]!r}; choose from {list(PARTS)}")
    return parts


def _shape(text: str) -> tuple[int, int, int]:
    try:
        batch, modalities, dim = (int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"a shape must be three numbers like 128,2,512, got {text!r}"
        ) from None
    return batch, modalities, dim


if __name__ == "__main__":
    main()
