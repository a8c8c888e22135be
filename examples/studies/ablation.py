"""Takes DEQ fusion apart: what does each of its parts, the penalty and the depth bring?"""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn

from deq_fusion.examples.studies.drawing import (
    COLOURS,
    around_zero,
    from_zero,
    label,
    make_figure,
)
from deq_fusion.examples.studies.output import Summary, in_order, score_table
from deq_fusion.examples.studies.study import Build, Study, Variant
from deq_fusion.examples.studies.tables import Column, Table
from deq_fusion.fusions.adapters import Sized
from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.training_structures.comparison import Comparison, Score
from deq_fusion.training_structures.comparison.program.terminal import on_terminal
from deq_fusion.training_structures.comparison.report.table import Row
from deq_fusion.training_structures.comparison.report.text import csv_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PROGRAM = "python -m deq_fusion.examples.studies.ablation"
DESCRIPTION = f"""{__doc__}

--study parts     the parts of DEQ fusion, left out (Ni et al., 2023, Tables 5 to 7)
--study jacobian  the weight of the Jacobian penalty
--study unrolled  steps backpropagated through, in place of the equilibrium

Every row is trained under the protocol of deq-fusion compare and tested against the full
fusion (jacobian: against no penalty), for the scale-free injection and for the paper's own (raw),
in a folder of its own. The output folder gets both together: <study>.md and tables.json (the
table), <study>.csv (all numbers), <study>.png and .svg (the picture)."""


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
    "only_weighted_sum": Variant(
        "x_fuse alone: sum w_i x_i", wrap=weighted_sum, like="weighted_sum"
    ),
    "no_equilibrium": Variant("f_theta and f_fuse once, from zero, on x_fuse", {"unroll": 1}),
    "no_equilibrium_states": Variant(
        "f_theta and f_fuse once, on sum w_i z_i, as the paper describes it",
        {"unroll": 1, "equations.unroll_injection": "states"},
    ),
    "no_f_fuse": Variant("f_theta + DEQ: sum of the z_i", {"equations.f_fuse": False}),
    "no_f_theta": Variant("f_fuse + DEQ: z_i = x_i", {"equations.f_theta": False}),
    "no_gate": Variant("all but the gate", {"equations.gate": False}),
    "full": Variant("DEQ fusion"),
}
OLD = {
    "weighted_sum": "only_weighted_sum",
    "once": "no_equilibrium",
    "once_states": "no_equilibrium_states",
    "f_theta": "no_f_fuse",
    "f_fuse": "no_f_theta",
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


def rows(study: str) -> Mapping[str, Variant]:
    """Returns the rows of one of `STUDIES`. Their scores are all that is measured of them."""
    return STUDIES[study][1]


@on_terminal()
def main(argv: Sequence[str] | None = None) -> Summary | None:
    """Carries out the study that the arguments ask for; returns what it found."""
    argv = sys.argv[1:] if argv is None else list(argv)
    first = ArgumentParser(add_help=False)
    first.add_argument("--study", choices=STUDIES, default="parts")
    return study_of(first.parse_known_args(argv)[0].study).main(argv)


def study_of(name: str) -> Study:
    """Returns one of `STUDIES`, which its `main` or `run` carries out."""
    told = {"rows": rows(name), "subject": STUDIES[name][0], "add": _add, "old": OLD}
    told |= {"summary": partial(summary, name), "draw": partial(draw, name)}
    return Study(PROGRAM, name, DESCRIPTION, **told)


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("--study", choices=STUDIES, default="parts", help="see above")


def summary(study: str, comparisons: Mapping[str, Comparison]) -> Summary:
    """Returns the scores of all rows, with the parts that not all of them have alike, and CSV."""
    variants = rows(study)
    scores = score_table(comparisons, list(variants))
    marked = {name: marks(variant) for name, variant in variants.items()}
    differ = [
        i for i, column in enumerate(zip(*marked.values(), strict=True)) if len(set(column)) > 1
    ]
    columns = [*scores.columns[:2], *(Column(PARTS_OF[i]) for i in differ), *scores.columns[2:]]
    lines = [
        [*row[:2], *(marked[row[1]][i] if row[1] in marked else None for i in differ), *row[2:]]
        for row in scores.rows
    ]
    title = f"{TITLES[study]}: scores, mean and sd over the runs"
    table = Table(study, columns, lines, scores.keys, title)
    return Summary([table], {f"{study}.csv": numbers(comparisons)})


TITLES = {
    "parts": "Parts of DEQ fusion left out (x: there, -: without effect)",
    "jacobian": "The weight of the Jacobian penalty",
    "unrolled": "Steps backpropagated through, in place of the equilibrium",
}
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


def draw(study: str, comparisons: Mapping[str, Comparison]) -> "Mapping[str, Figure]":
    """Returns the rows' scores from 0 on, and below their differences from the subject."""
    variants = rows(study)
    most = max(len(comparison.table()) for comparison in comparisons.values())
    figure, panels = make_figure(2 * len(comparisons), 0.24 * most + 0.9)
    for axes, (injection, comparison) in zip(panels, comparisons.items(), strict=False):
        axes.set_title(f"{injection} injection: scores", fontsize=9, loc="left")
        _draw_rows(axes, variants, comparison, _estimate)
        axes.set_xlabel(f"{label(comparison.score)}: mean and its 95 % interval", fontsize=8)
    upper, lower = panels[: len(comparisons)], panels[len(comparisons) :]
    from_zero(upper, comparison.score)
    for axes, (injection, comparison) in zip(lower, comparisons.items(), strict=True):
        against = comparison.baseline
        axes.set_title(f"{injection} injection: minus {against}", fontsize=9, loc="left")
        _draw_rows(axes, variants, comparison, _difference)
        unit = " (points)" * comparison.score.percent
        axes.set_xlabel(
            f"difference of {comparison.score.name}{unit} over shared runs, 95 % interval",
            fontsize=8,
        )
    around_zero(lower, comparison.score)
    return {study: figure}


def _draw_rows(
    axes: "Axes",
    variants: Mapping[str, Variant],
    comparison: Comparison,
    found: Callable[[Row, Score], tuple[float, float, float] | None],
) -> None:
    """Draws a value with its interval for every row that has one."""
    by_name, names = {row.method: row for row in comparison.table()}, in_order(comparison, variants)
    unit = 100 if comparison.score.percent else 1
    for at, name in enumerate(names):
        values = found(by_name[name], comparison.score)
        if values is not None:
            mean, low, high = (unit * value for value in values)
            colour = COLOURS[0] if name == comparison.baseline else COLOURS[1]
            axes.plot([low, high], [at, at], color=colour, linewidth=2)
            axes.plot(mean, at, "D", color=colour, markersize=5)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _estimate(row: Row, score: Score) -> tuple[float, float, float]:
    found = row.scores[score.name]
    return found.mean, found.low, found.high


def _difference(row: Row, score: Score) -> tuple[float, float, float] | None:
    return row.test and (row.test.difference, row.test.low, row.test.high)


if __name__ == "__main__":
    main()
