"""Does DEQ fusion converge once it is trained, and how early may one stop?"""

import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from statistics import fmean

from deq_fusion.examples.studies.convergence.draw import PICTURES, SOLVES
from deq_fusion.examples.studies.convergence.measure import measured
from deq_fusion.examples.studies.convergence.rows import ROWS
from deq_fusion.examples.studies.convergence.summary import (
    Measured,
    early_csv,
    measured_rows,
    radii_csv,
    trace_curve,
    traces_csv,
)
from deq_fusion.examples.studies.drawing import save_all, write_text
from deq_fusion.examples.studies.study import Study
from deq_fusion.training_structures.comparison import Comparison
from deq_fusion.training_structures.comparison.program.arguments import count
from deq_fusion.training_structures.comparison.program.program import exit_if_failed
from deq_fusion.training_structures.comparison.program.terminal import on_terminal
from deq_fusion.training_structures.comparison.report.table import markdown

PROGRAM = "python -m deq_fusion.examples.studies.convergence"
DESCRIPTION = f"""{__doc__}

Trains DEQ fusion and the same map weight-tied (backpropagated through its steps), with and without
Jacobian penalty, from the fusion's own start and from that of the authors' release; then traces
their solves at inference (Ni et al., 2023, Figure 4 and Table 8). The output folder gets

  convergence.png    relative change of z_fuse, and residual of the joint state, against steps
  solvers.png        the residual by solver, joint and block-wise
  radius.png         spectral radius of the trained map
  early.png          validation score against tolerance and step limit at inference
  convergence.md     the table; traces.csv, radii.csv, early.csv: all numbers; .svg of each picture

and a folder for each injection with the comparison of the rows' scores."""
SHOWN = (1, 2, 5, 10, 20, 40, 100)


@on_terminal()
def main(argv: Sequence[str] | None = None) -> str | None:
    """Carries out the study that the arguments ask for; returns its table."""
    argv = sys.argv[1:] if argv is None else list(argv)
    study = Study(PROGRAM, DESCRIPTION, ROWS, "full", "convergence", _add, measured)
    found = study.run(argv)
    if found is None:
        return None
    args, comparisons = found
    text = table(comparisons)
    files = {"convergence.md": f"{text}\n", "traces.csv": traces_csv(comparisons)}
    files |= {"radii.csv": radii_csv(comparisons), "early.csv": early_csv(comparisons)}
    for name, content in files.items():
        write_text(args.output / name, content)
    drawn = save_all(args.output, {name: draw(comparisons) for name, draw in PICTURES.items()})
    print(f"\n{text}\n\nin {args.output}: {', '.join(files)}; {', '.join(drawn)} as .png and .svg")
    exit_if_failed(*comparisons.values())
    return text


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


def table(comparisons: Mapping[str, Comparison]) -> str:
    """Returns the traces at some steps, and the largest spectral radius, as Markdown."""
    lines = []
    for injection, comparison in comparisons.items():
        rows = measured_rows(comparison)
        for name, (row, solve) in SOLVES.items():
            for quantity in ("difference", "residual") if row in rows else ():
                curve = trace_curve(rows[row], solve, quantity)
                values = [] if curve is None else curve.mean
                shown = [f"{values[k - 1]:.1e}" if k <= len(values) else "" for k in SHOWN]
                lines.append([injection, name, solve, quantity, *shown, *_radii(rows[row])])
    head = ["injection", "row", "solve", "quantity", *(f"step {k}" for k in SHOWN)]
    return markdown([*head, "largest radius", "of those below 1 %", "solved %"], lines)


def _radii(found: Measured) -> list[str]:
    """Returns the largest radius of all states and runs, the share below 1, and of solved ones."""
    radii = [run["radii"] for run in found.runs if "failed" not in run["radii"]]
    states = [state for run in radii for state in run.values()]
    there = [state for state in states if state["largest"] is not None]
    if not there:
        return ["", "", ""]
    largest = max(state["largest"] for state in there)
    below = 100 * fmean(state["contracts"] for state in there)
    return [f"{largest:.2f}", f"{below:.1f}", f"{100 * fmean(s['converged'] for s in states):.1f}"]


if __name__ == "__main__":
    main()
