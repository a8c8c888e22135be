"""Before any training: does DEQ fusion's solver converge, and how much memory does it take?

python -m deq_fusion.examples.studies.solver                      both parts (some minutes)
python -m deq_fusion.examples.studies.solver --parts convergence  one of them

convergence   steps and share converged, for every kind of input: the worst case over modalities
              and widths
memory        the peak memory of a training step that takes every step of its limit

Prints the tables; the output folder gets them as solver.md and tables.json, with a picture each.
"""

import argparse
import itertools
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from deq_fusion.examples.studies.drawing import legend_above, looks_of, make_figure
from deq_fusion.examples.studies.output import Summary, write_all
from deq_fusion.examples.studies.tables import Column, Table
from deq_fusion.fusions.deq import DEQFusion
from deq_fusion.fusions.equilibrium import SolveRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROGRAM = "python -m deq_fusion.examples.studies.solver"
TOL, MAX_STEPS = 1e-3, 40  # the fusion's defaults
LIMITS = 10, 50, 200
EQUATIONS = {"deq": "scale_free", "deq_paper": "paper"}
MODALITIES, WIDTHS, BATCH = (2, 3, 5), (64, 300, 512, 1024), 128
INPUTS: dict[str, Callable[[Tensor], Tensor]] = {  # of standard normal features (batch, width)
    "normal": lambda x: x,
    "ReLU": torch.relu,
    "minus ReLU": lambda x: -torch.relu(x),
    "minus sparse ReLU": lambda x: -torch.relu(x - 1.5),
    "normal + 10": lambda x: x + 10,
    "ReLU x 0.001": lambda x: 1e-3 * torch.relu(x),
    "ReLU x 1000": lambda x: 1e3 * torch.relu(x),
    "mixed scales": lambda x: x * 10 ** (6 * torch.rand(len(x), 1) - 3),
    "mixed, signed": lambda x: _sign(x) * torch.relu(x) * 10 ** (6 * torch.rand(len(x), 1) - 3),
}


PARTS = "convergence", "memory"
Found = Mapping[str, Mapping]
"""Part -> row -> numbers."""


def _sign(x: Tensor) -> Tensor:
    return torch.randint(2, (len(x), 1)) * 2.0 - 1


def rows(part: str) -> list:
    """Returns (inputs, fusion) of all that are solved, or the step limits."""
    return list(LIMITS) if part == "memory" else list(itertools.product(INPUTS, EQUATIONS))


def measure(part: str, row: tuple[str, str] | int) -> dict[str, float]:
    """Returns what is found out about a row: `convergence` or `memory`."""
    return measure_memory(row) if part == "memory" else measure_convergence(*row)


def measure_convergence(inputs: str, fusion: str, seed: int = 0) -> dict[str, float]:
    """Returns most steps and share converged, forward and backward, over modalities and widths."""
    torch.manual_seed(seed)
    solve = partial(_solve, INPUTS[inputs], EQUATIONS[fusion])
    records = [solve(n, d) for n in MODALITIES for d in WIDTHS]
    found = {}
    for direction in ("forward", "backward"):
        stats = [s for record in records for s in getattr(record, direction).values()]
        converged = torch.cat([s.converged for s in stats]).double().mean()
        found[f"{direction}_steps"] = max(int(s.steps.max()) for s in stats)
        found[f"{direction}_converged"] = float(converged)
    return found


def _solve(transform: Callable[[Tensor], Tensor], equations: str, n: int, d: int) -> SolveRecord:
    limits = {"tol": TOL, "max_steps": MAX_STEPS, "on_failure": "ignore"}
    fusion = DEQFusion([d] * n, d, equations=equations, **limits)
    fused = fusion([transform(torch.randn(BATCH, d)).requires_grad_() for _ in range(n)])
    fused.backward(torch.randn_like(fused))
    return fusion.info


def measure_memory(limit: int, repeats: int = 3) -> dict[str, float]:
    """Returns the median peak memory, in MiB, of training steps in processes of their own."""
    # glibc then gives freed tensors back at once, and the peak is that of what lives
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "deq_fusion.examples.studies.solver", "--peak", str(limit)]
    peaks = [float(subprocess.check_output(command, env=env)) for _ in range(repeats)]
    return {"mib": sorted(peaks)[repeats // 2]}


def peak(limit: int) -> float:
    """Returns by how many MiB a training step of `limit` steps raises the process's peak."""
    torch.manual_seed(0)
    options = {"tol": 0.0, "max_steps": limit, "on_failure": "ignore"}  # no early end
    fusion = DEQFusion([512] * 3, 512, **options)
    features = [torch.randn(256, 512).requires_grad_() for _ in range(3)]
    start = _peak_mib()
    fused = fusion(features)
    fused.backward(torch.randn_like(fused))
    if not bool((fusion.info.steps == limit).all()):
        raise RuntimeError("every sample must have taken every step")
    return _peak_mib() - start


def _peak_mib() -> float:
    """Returns this process's peak; Linux's getrusage has that of whoever started it in it, too."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def summary(found: Found) -> Summary:
    """Returns a table for each part that was measured."""
    tables = []
    if "convergence" in found:
        columns = [Column("inputs"), Column("fusion"), Column("most steps", ".0f")]
        columns += [Column("converged", ".2%"), Column("most backward steps", ".0f")]
        columns += [Column("backward converged", ".2%")]
        lines = [[*row, *numbers.values()] for row, numbers in found["convergence"].items()]
        title = (
            f"Untrained convergence: {BATCH} samples, N in {MODALITIES}, d in {WIDTHS}, tolerance "
            f"{TOL:g}, at most {MAX_STEPS} steps"
        )
        tables.append(Table("convergence", columns, lines, 2, title))
    if "memory" in found:
        columns = [Column("step limit"), Column("MiB", ".0f"), Column("to the first", ".3f")]
        peaks = {limit: numbers["mib"] for limit, numbers in found["memory"].items()}
        first = next(iter(peaks.values()))
        lines = [[str(limit), mib, mib / first] for limit, mib in peaks.items()]
        title = "Peak memory of a training step above its start, by step limit, all steps taken"
        tables.append(Table("memory", columns, lines, 1, title))
    return Summary(tables)


def draw(found: Found) -> "dict[str, Figure]":
    """Returns a picture for each part that was measured."""
    makers = {"convergence": draw_convergence, "memory": draw_memory}
    return {part: makers[part](numbers) for part, numbers in found.items()}


def draw_convergence(found: Mapping[tuple[str, str], Mapping[str, float]]) -> "Figure":
    """Returns most steps, and the share that converged, by kind of input: forward, backward."""
    names = list(dict.fromkeys(inputs for inputs, _ in found))
    shown = {
        "forward_steps": ("most steps of a forward solve", 1, MAX_STEPS),
        "backward_steps": ("most steps of a backward solve", 1, MAX_STEPS),
        "forward_converged": ("forward solves converged (%)", 100, 100),
        "backward_converged": ("backward solves converged (%)", 100, 100),
    }
    figure, panels = make_figure(len(shown), 0.9 + 0.2 * len(names))
    looks = looks_of(EQUATIONS)
    for axes, (key, (title, unit, most)) in zip(panels, shown.items(), strict=True):
        for number, fusion in enumerate(EQUATIONS):
            places = [at + 0.3 * (number - 0.5) for at in range(len(names))]
            values = [unit * found[inputs, fusion][key] for inputs in names]
            look = looks[fusion] | {"linestyle": "none"}
            axes.plot(values, places, markersize=4, label=fusion, clip_on=False, **look)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, most)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("%" if unit == 100 else f"steps, of at most {MAX_STEPS}", fontsize=8)
    legend_above(figure, panels[0])
    return figure


def draw_memory(found: Mapping[int, Mapping[str, float]]) -> "Figure":
    """Returns the peak memory against the step limit."""
    figure, (axes,) = make_figure(1, 2.4)
    look = looks_of(["deq"])["deq"]
    axes.plot(list(found), [numbers["mib"] for numbers in found.values()], markersize=4, **look)
    axes.set_ylim(0, 1.1 * max(numbers["mib"] for numbers in found.values()))
    axes.set_xlim(0, 1.05 * max(found))
    axes.set_title("peak memory of a training step", fontsize=9, loc="left")
    axes.set_xlabel("steps taken, forward and backward each", fontsize=8)
    axes.set_ylabel("MiB above the start", fontsize=8)
    return figure


def main(argv: Sequence[str] | None = None) -> Summary | None:
    """Carries out the study that the arguments ask for; returns what it found."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, every = parser.add_argument, ", ".join(PARTS)
    add("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {every}")
    add("--output", type=Path, default=Path("results/solver"), help="folder (default: %(default)s)")
    add("--peak", type=int, help=argparse.SUPPRESS)  # what a process of its own is asked
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.peak:
        print(peak(args.peak))
        return None
    found = {part: {row: measure(part, row) for row in rows(part)} for part in args.parts}
    told = summary(found)
    there = write_all(args.output, "solver", told, draw(found), command=[*PROGRAM.split(), *argv])
    print(f"{told}\n\n{there}")
    return told


if __name__ == "__main__":
    main()
