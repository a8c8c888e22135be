"""Which structure can a fusion learn? Every fusion on synthetic sets whose best score is known."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from deq_fusion.examples.studies.output import Summary, write_all
from deq_fusion.examples.studies.structures.draw import draw
from deq_fusion.examples.studies.structures.estimate import estimated
from deq_fusion.examples.studies.structures.sets import SETS
from deq_fusion.examples.studies.structures.summary import Found, summary
from deq_fusion.examples.synthetic.vectors.recipe import LEAST, recipe
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison.program.arguments import (
    count,
    make_parser,
    names,
    read_arguments,
    words,
)
from deq_fusion.training_structures.comparison.program.program import carry_out, exit_if_failed
from deq_fusion.training_structures.comparison.program.settings import asked_recipe
from deq_fusion.training_structures.comparison.program.terminal import on_terminal
from deq_fusion.training_structures.comparison.report.table import markdown

PROGRAM = "python -m deq_fusion.examples.studies.structures"
DATASET = "synthetic"
USUAL = [name for name, entry in FUSIONS.items() if entry.features[-1] == "vectors"]
DESCRIPTION = f"""{__doc__}

Each set is a comparison of its own, by the protocol of deq-fusion compare and with its arguments,
in a folder of its own that goes on where it stopped. It says first how long all take at most. The
output folder gets

  structures.png   what each fusion reaches of what can be reached, set by set
  sizes.png        with several --samples: accuracy against the samples to learn from
  structures.md    the tables, and tables.json; .svg of each picture

--list shows the sets."""


@on_terminal()
def main(argv: Sequence[str] | None = None) -> Summary | None:
    """Carries out the study; returns what it found, or None if only the list was asked for."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = make_own_parser()
    args = read_arguments(parser, FUSIONS, ["--dataset", DATASET, *argv])
    if args.list:
        lines = [[n, s.summary, *map(str, [s.settings])] for n, s in SETS.items()]
        print(markdown(["set", "the class", "settings"], lines))
        return None
    output = args.output or Path("results", "structures")
    asked = {
        (samples, name): arguments(parser, args, samples, name, output)
        for samples in args.samples
        for name in args.sets
    }
    print(estimated(list(asked.values())), file=sys.stderr, flush=True)
    command = [PROGRAM, *argv]
    found: Found = {
        key: carry_out(parser, own, command=command, subject="deq") for key, own in asked.items()
    }
    told = summary(found)
    how: dict[str, Any] = {"threads": args.threads, "device": args.device}
    how |= {"command": [*PROGRAM.split(), *argv]}
    there = write_all(output, "structures", told, draw(told.tables[0]), **how)
    print(f"\n{told}\n\n{there}; and a folder for each set")
    exit_if_failed(*found.values())
    return told


def make_own_parser() -> ArgumentParser:
    """Returns the parser: that of a comparison, and which sets."""
    parser = make_parser(PROGRAM, {DATASET: recipe}, usual=USUAL, description=DESCRIPTION)
    add = parser.add_argument_group("which sets").add_argument
    add(
        "--sets",
        type=partial(names, SETS),
        default=list(SETS),
        metavar="A,B",
        help=f"of {', '.join(SETS)} (default: all)",
    )
    add(
        "--samples",
        type=lambda text: [count(word, least=LEAST) for word in words(text)],
        default=[2000],
        metavar="N,M",
        help="to learn from (default: 2000)",
    )
    return parser


def arguments(
    parser: ArgumentParser, args: Namespace, samples: int, name: str, output: Path
) -> Namespace:
    """Returns the arguments of a set's comparison, as `carry_out` takes them; a setting that is
    the set's own ends the program with a message."""
    settings = {**SETS[name].settings, "samples": samples}
    for key, _ in args.settings:
        if key in settings:
            parser.error(f"--set {key}: the sets say it (--sets, --samples), so leave it out")
    own = {"settings": [*settings.items(), *args.settings], "no_unimodal": True}
    own |= {"output": output / f"{samples}" / name}
    found = Namespace(**{**vars(args), **own})
    try:
        asked_recipe(found.recipe, found)
    except ValueError as error:
        parser.error(str(error))
    return found


if __name__ == "__main__":
    main()
