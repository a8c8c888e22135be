"""Does DEQ fusion converge once it is trained, and how early may one stop?"""

import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping, Sequence

from examples.convergence.curves import early_csv, measured_rows, radii_csv, trace_curve, traces_csv
from examples.convergence.measure import measured
from examples.convergence.pictures import OWN_SOLVE, PICTURES
from examples.convergence.rows import ROWS
from examples.drawing import save_all, write_text
from examples.studies import Study
from training_structures.comparison.report import Report
from training_structures.comparison.table import markdown

PROGRAM = "python -m examples.convergence"
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


def main(argv: Sequence[str] | None = None) -> str | None:
    """Carries out the study that the arguments ask for; returns its table."""
    argv = sys.argv[1:] if argv is None else list(argv)
    study = Study(PROGRAM, DESCRIPTION, ROWS, "full", "convergence", _add, measured)
    found = study.run(argv)
    if found is None:
        return None
    args, reports = found
    text = table(reports)
    files = {"convergence.md": f"{text}\n", "traces.csv": traces_csv(reports)}
    files |= {"radii.csv": radii_csv(reports), "early.csv": early_csv(reports)}
    for name, content in files.items():
        write_text(args.output / name, content)
    save_all(args.output, {name: draw(reports) for name, draw in PICTURES.items()})
    print(
        f"\n{text}\n\nin {args.output}: {', '.join(files)}; {', '.join(PICTURES)} as .png and .svg"
    )
    return text


def _add(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--steps", type=_positive, default=100, help="length of the traces (default: 100)")
    add(
        "--samples",
        type=_positive,
        default=1000,
        help="of the scored part, at most, that are traced (default: 1000)",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f"must be an integer of at least 1, got {text}")
    return int(text)


def table(reports: Mapping[str, Report]) -> str:
    """Returns the traces at some steps, and the largest spectral radius, as Markdown."""
    lines = []
    for injection, report in reports.items():
        for row, found in measured_rows(report).items():
            solve = OWN_SOLVE.get(row, "joint anderson")
            largest = max(state["largest"] for run in found.runs for state in run["radii"].values())
            for quantity in ("difference", "residual"):
                curve = trace_curve(found, solve, quantity)
                values = [] if curve is None else curve.mean
                shown = [f"{values[k - 1]:.1e}" if k <= len(values) else "" for k in SHOWN]
                lines.append([injection, row, solve, quantity, *shown, f"{largest:.2f}"])
    head = ["injection", "row", "solve", "quantity", *(f"step {k}" for k in SHOWN)]
    return markdown([*head, "largest radius"], lines)


if __name__ == "__main__":
    main()
