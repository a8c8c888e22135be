"""Tables 5 to 8, of DEQ fusion itself: the project's own studies, beside the paper's figures."""

import argparse
from collections.abc import Mapping, Sequence

from deq_fusion.examples.compare_fusions import RECIPES
from deq_fusion.examples.studies import ablation
from deq_fusion.examples.studies.convergence.__main__ import STUDY as CONVERGING
from deq_fusion.examples.studies.convergence.summary import measured_rows, trace_curve
from deq_fusion.examples.studies.output import Summary
from deq_fusion.examples.studies.paper_tables.paper_of_deq import (
    ABLATIONS,
    CONVERGENCE,
    NAMES,
    STEPS,
)
from deq_fusion.examples.studies.paper_tables.rows import Ablation, Shown, cells
from deq_fusion.examples.studies.paper_tables.summary import OURS, PAPER, shown_column
from deq_fusion.examples.studies.score_tables import spread
from deq_fusion.examples.studies.study import Study
from deq_fusion.examples.studies.tables import Cell, Column, Table
from deq_fusion.training_structures.comparison import Comparison
from deq_fusion.training_structures.comparison.program.settings import settings_of

Comparisons = Mapping[str, Mapping[str, Comparison]]
"""Dataset -> injection -> comparison."""

SOLVE = "joint anderson"
CONVERGED_ROWS = "no_penalty", "penalty"
PASSED_ON = "runs", "epochs", "jobs", "threads", "device", "precision", "log", "cluster"


def ablated(
    number: int, folders: Mapping[str, str], args: argparse.Namespace
) -> tuple[Summary, Comparisons]:
    """Carries out the study behind one of the tables 5 to 7.

    Args:
        number: of the table.
        folders: dataset -> folder of its data, of those that are at hand.
        args: of the study.
    """
    table = ABLATIONS[number]
    found = _studied(ablation.study_of("parts"), list(table.rows), table.scores, folders, args)
    return ablation_summary(number, table, found), found


def converging(folders: Mapping[str, str], args: argparse.Namespace) -> tuple[Summary, Comparisons]:
    """Carries out the study behind table 8, see `ablated`."""
    found = _studied(CONVERGING, CONVERGED_ROWS, CONVERGENCE, folders, args)
    return convergence_summary(found), found


def _studied(
    study: Study,
    rows: Sequence[str],
    wanted: Mapping[str, object],
    folders: Mapping[str, str],
    args: argparse.Namespace,
) -> Comparisons:
    """Returns what a study finds of some of its rows, on those of the wanted sets at hand."""
    found = {}
    for dataset in wanted:
        if dataset in folders:
            argv = study_arguments(dataset, folders[dataset], rows, args)
            found[dataset] = study.run(argv)[1]
    return found


def study_arguments(
    dataset: str, folder: str, rows: Sequence[str], args: argparse.Namespace
) -> list[str]:
    """Returns the arguments of a study on one dataset: those of ours that it has."""
    argv = ["--dataset", dataset, "--data-dir", folder, "--fusions", ",".join(rows)]
    argv += ["--output", str(args.output / dataset)]
    given = {name: getattr(args, name) for name in PASSED_ON}
    argv += [f"--{name}={value}" for name, value in given.items() if value is not None]
    argv += [f"--first-run={args.first_run}"]
    argv += [f"--seeds={','.join(map(str, args.seeds))}"] if args.seeds else []
    known = settings_of(RECIPES[dataset])
    return argv + [f"--set={key}={value}" for key, value in args.settings if key in known]


def ablation_summary(number: int, table: Ablation, found: Comparisons) -> Summary:
    """Returns a table of parts left out: a line a row and injection, the paper's beside ours.

    The paper's figures are repeated for both injections; sets that were not measured have theirs
    alone.
    """
    injections = list(dict.fromkeys(i for each in found.values() for i in each)) or ["-"]
    columns = [Column("row"), Column("injection")]
    for dataset, scores in table.scores.items():
        for shown in scores:
            sides = (PAPER, OURS) if dataset in found else (PAPER,)
            columns += [shown_column(_of(dataset, shown), side) for side in sides]
    lines = [
        [row, injection, *_ablation_cells(table, row, injection, found)]
        for row in table.rows
        for injection in injections
    ]
    title = f"Table {number} of Ni et al. (2023): {table.title}, as printed and as measured here"
    return Summary([Table(f"table_{number}", columns, lines, 2, title)])


def _of(dataset: str, shown: Shown) -> Shown:
    return Shown(f"{NAMES[dataset]}, {shown.heading}", shown.score, shown.form, shown.lower)


def _ablation_cells(table: Ablation, row: str, injection: str, found: Comparisons) -> list[Cell]:
    line: list[Cell] = []
    for dataset, scores in table.scores.items():
        comparison = found.get(dataset, {}).get(injection)
        results = {} if comparison is None else {each.method: each for each in comparison.table()}
        for shown, printed in zip(scores, cells(table.rows[row][dataset], scores), strict=True):
            line.append(printed)
            if dataset in found:
                own = results[row].scores.get(shown.score) if row in results else None
                line.append(None if own is None else spread(own))
    return line


def convergence_summary(found: Comparisons) -> Summary:
    """Returns the relative change of z_fuse at the paper's steps: its own, and ours below it."""
    columns = [*map(Column, ("set", "injection", "row"))]
    columns += [Column(f"step {step}", ".2e") for step in STEPS]
    lines: list[list[Cell]] = []
    for dataset, (name, figures) in CONVERGENCE.items():
        lines.append([name, "-", "as printed", *map(float, figures.split())])
        for injection, comparison in found.get(dataset, {}).items():
            for row, measured in measured_rows(comparison).items():
                curve = trace_curve(measured, SOLVE, "difference")
                mean = [] if curve is None else list(curve.mean)
                shown = [mean[k - 1] if k <= len(mean) else None for k in STEPS]
                lines.append([name, injection, row, *shown])
    title = (
        "Table 8 of Ni et al. (2023), the relative change of z_fuse by step of the solver, as "
        "printed and as measured here; a solve that ended has no further step"
    )
    return Summary([Table("table_8", columns, lines, 3, title)])
