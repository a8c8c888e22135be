"""Takes DEQ fusion apart: what does each of its parts, the penalty and the depth bring?"""

import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from deq_fusion.examples.drawing import COLOURS, make_figure, save_all, write_text
from deq_fusion.examples.studies import Build, Study, Variant
from deq_fusion.fusions.adapters import Sized
from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.training_structures.comparison import Comparison
from deq_fusion.training_structures.comparison.program.program import exit_if_failed
from deq_fusion.training_structures.comparison.program.terminal import on_terminal
from deq_fusion.training_structures.comparison.report.table import cells, markdown
from deq_fusion.training_structures.comparison.report.text import csv_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROGRAM = "python -m deq_fusion.examples.ablate"
DESCRIPTION = f"""{__doc__}

--study parts     the parts of DEQ fusion, left out (Ni et al., 2023, Tables 5 to 7)
--study jacobian  the weight of the Jacobian penalty
--study unrolled  steps backpropagated through, in place of the equilibrium

Every row is trained under the protocol of examples.compare_fusions and tested against the full
fusion (jacobian: against no penalty), for the scale-free injection and for the paper's own (raw),
in a folder of its own. A table and a picture bring both together: <study>.md, .csv, .png and .svg
in the output folder."""


class InjectedSum(nn.Module):
    """x_fuse of a DEQ fusion, of which nothing else is kept."""

    def __init__(self, fusion: DEQFusion) -> None:
        super().__init__()
        self.fusion = fusion
        fusion.unimodal = fusion.fuse = None  # nor their parameters

    def forward(self, features: Sequence[Tensor], *, present: Tensor | None = None) -> Tensor:
        """Maps features, a (..., d_i) tensor for each modality, to their sum, (..., dim)."""
        total = self.fusion.pose(features, present).constants.x_fuse
        return total.view(*features[0].shape[:-1], -1)


def weighted_sum(build: Build) -> Build:
    """Returns what builds x_fuse alone, given what builds DEQ fusion."""
    return partial(_weighted_sum, build)


def _weighted_sum(build: Build, input_dims: Sequence[int], dim: int, **options: object) -> Sized:
    fusion, width = build(input_dims, dim, **options)
    return InjectedSum(fusion), width


PARTS = {
    "weighted_sum": Variant("x_fuse alone: sum w_i x_i", wrap=weighted_sum, like="weighted_sum"),
    "once": Variant("f_theta and f_fuse once, from zero, on x_fuse", {"unroll": 1}),
    "once_states": Variant(
        "f_theta and f_fuse once, on sum w_i z_i, as the paper describes it",
        {"unroll": 1, "equations.unroll_injection": "states"},
    ),
    "f_theta": Variant("f_theta + DEQ: sum of the z_i", {"equations.f_fuse": False}),
    "f_fuse": Variant("f_fuse + DEQ: z_i = x_i", {"equations.f_theta": False}),
    "no_gate": Variant("all but the gate", {"equations.gate": False}),
    "full": Variant("DEQ fusion"),
}
WEIGHTS, STEPS = (0.0, 0.01, 0.1, 1.0, 10.0), (1, 2, 4, 8, 16)
STUDIES = {  # name -> the row that the others are tested against, and all rows
    "parts": ("full", PARTS),
    "jacobian": (
        "penalty_0",
        {f"penalty_{w:g}": Variant(f"weight {w:g}", {"jacobian_weight": w}) for w in WEIGHTS},
    ),
    "unrolled": (
        "full",
        {f"steps_{k}": Variant(f"{k} of the map's steps", {"unroll": k}) for k in STEPS}
        | {"full": Variant("DEQ fusion")},
    ),
}


@on_terminal()
def main(argv: Sequence[str] | None = None) -> list[list[str]] | None:
    """Carries out the study that the arguments ask for; returns the lines of its table."""
    argv = sys.argv[1:] if argv is None else list(argv)
    first = ArgumentParser(add_help=False)
    first.add_argument("--study", choices=STUDIES, default="parts")
    name = first.parse_known_args(argv)[0].study
    subject, variants = STUDIES[name]
    study = Study(PROGRAM, DESCRIPTION, variants, subject, suffix=name, add=_add)
    found = study.run(argv)
    if found is None:
        return None
    args, comparisons = found
    head, lines = table(variants, comparisons)
    text = markdown(head, lines)
    write_text(args.output / f"{name}.md", f"{text}\n")
    write_text(args.output / f"{name}.csv", numbers(comparisons))
    save_all(args.output, {name: draw(variants, comparisons)})
    print(f"\n{text}\n\nin {args.output}: {name}.md, .csv, .png, .svg; every run in folders")
    exit_if_failed(*comparisons.values())
    return lines


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("--study", choices=STUDIES, default="parts", help="see above")


def table(
    variants: Mapping[str, Variant], comparisons: Mapping[str, Comparison]
) -> tuple[list[str], list[list[str]]]:
    """Returns heading and lines, as text: a line for each injection and row, with the parts that
    not all rows of the study have alike."""
    scores = next(iter(comparisons.values())).scores
    marked = {name: marks(variant) for name, variant in variants.items()}
    differ = [
        i for i, column in enumerate(zip(*marked.values(), strict=True)) if len(set(column)) > 1
    ]
    head, lines = ["injection", "row", *(PARTS_OF[i] for i in differ)], []
    for injection, comparison in comparisons.items():
        inner, found = cells(comparison.table(), scores, comparison.baseline)
        by_name = {line[0]: line[1:] for line in found}
        for name in _in_order(variants, comparison):
            own = [marked[name][i] if name in marked else "" for i in differ]
            lines.append([injection, name, *own, *by_name[name]])
    return [*head, *inner[1:]], lines


PARTS_OF = "f_theta", "f_fuse", "DEQ", "gate"


def marks(variant: Variant) -> list[str]:
    """Returns which of `PARTS_OF` a row has, as the paper's tables mark them."""
    if variant.wrap is weighted_sum:
        return ["", "", "", "-"]
    theta, fuse, gate = (
        variant.options.get(f"equations.{part}", True) for part in ("f_theta", "f_fuse", "gate")
    )
    solved = "unroll" not in variant.options
    return ["x" * theta, "x" * fuse, "x" * solved, "x" * gate if fuse else "-"]


def numbers(comparisons: Mapping[str, Comparison]) -> str:
    """Returns what the picture shows as CSV: of every score mean, sd and interval."""
    head = ["injection", "row", "runs", "score", "mean", "sd", "low", "high"]
    head += ["difference", "difference_low", "difference_high", "p"]
    lines = []
    for injection, comparison in comparisons.items():
        for row in comparison.table():
            for score in comparison.scores:
                test = row.test if score == comparison.score else None
                tested = [test.difference, test.low, test.high, test.p] if test else [""] * 4
                values = astuple(row.scores[score.name])
                lines.append([injection, row.method, row.runs, score.name, *values, *tested])
    return csv_text(head, lines)


def _in_order(variants: Mapping[str, Variant], comparison: Comparison) -> list[str]:
    """Returns the rows that there are, as the study has them; a user's own come last."""
    there = [row.method for row in comparison.table()]
    return [*(n for n in variants if n in there), *(n for n in there if n not in variants)]


def draw(variants: Mapping[str, Variant], comparisons: Mapping[str, Comparison]) -> "Figure":
    """Returns a panel for each injection: every row's score, with its 95 % interval."""
    most = max(len(comparison.table()) for comparison in comparisons.values())
    figure, panels = make_figure(len(comparisons), 0.27 * most + 0.9, sharex=True)
    for axes, (injection, comparison) in zip(panels, comparisons.items(), strict=True):
        rows = {row.method: row for row in comparison.table()}
        names = _in_order(variants, comparison)
        unit = 100 if comparison.score.percent else 1
        for at, name in enumerate(names):
            found = rows[name].scores[comparison.score.name]
            colour = COLOURS[0] if name == comparison.baseline else COLOURS[1]
            axes.plot([unit * found.low, unit * found.high], [at, at], color=colour, linewidth=2)
            axes.plot(unit * found.mean, at, "D", color=colour, markersize=5)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_title(f"{injection} injection", fontsize=9, loc="left")
    way = " (%)" * comparison.score.percent + " (less is better)" * comparison.score.lower
    panels[-1].set_xlabel(
        f"{comparison.score.name}{way}: mean of the runs and its 95 % interval", fontsize=8
    )
    return figure


if __name__ == "__main__":
    main()
