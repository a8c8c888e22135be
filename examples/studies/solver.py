"""What DEQ fusion's solver does before any training: convergence, and memory.

python -m deq_fusion.examples.studies.solver convergence  steps and share converged
python -m deq_fusion.examples.studies.solver memory       peak memory of a training step
"""

import argparse
import itertools
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from deq_fusion.fusions.deq import DEQFusion

FUSIONS = {"deq": "scale_free", "deq_paper": "paper"}  # name -> its equations
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


def _sign(x: Tensor) -> Tensor:
    return torch.randint(2, (len(x), 1)) * 2.0 - 1


def convergence(seed: int = 0) -> None:
    """Prints, for every kind of input, the worst case over modalities and widths."""
    print(f"{BATCH} samples, N in {MODALITIES}, d in {WIDTHS}, tolerance 1e-3, at most 40 steps\n")
    print("| inputs | fusion | most steps | converged | most backward | backward converged |")
    print("|---|---|---|---|---|---|")
    for kind, name in itertools.product(INPUTS, FUSIONS):
        torch.manual_seed(seed)
        records = [_solve(INPUTS[kind], FUSIONS[name], n, d) for n in MODALITIES for d in WIDTHS]
        cells = [kind, name]
        for direction in ("forward", "backward"):
            stats = [s for record in records for s in getattr(record, direction).values()]
            converged = torch.cat([s.converged for s in stats]).double().mean()
            cells += [f"{max(int(s.steps.max()) for s in stats)}", f"{converged:.2%}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def _solve(transform: Callable[[Tensor], Tensor], equations: str, n: int, d: int):
    fusion = DEQFusion([d] * n, d, equations=equations, on_failure="ignore")
    fused = fusion([transform(torch.randn(BATCH, d)).requires_grad_() for _ in range(n)])
    fused.backward(torch.randn_like(fused))
    return fusion.info


def memory(limits: Sequence[int] = (10, 50, 200), repeats: int = 3) -> None:
    """Prints the peak memory of a training step that takes every step of its limit."""
    print("| step limit | peak memory above start (MiB), median | ratio |")
    print("|---|---|---|")
    first = None
    # glibc then gives freed tensors back at once, and the peak is that of what lives
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    for limit in limits:
        command = [sys.executable, "-m", "deq_fusion.examples.studies.solver", "peak", str(limit)]
        peaks = [float(subprocess.check_output(command, env=env)) for _ in range(repeats)]
        peak = sorted(peaks)[repeats // 2]
        first = first or peak
        print(f"| {limit} | {peak:.0f} | {peak / first:.3f} |", flush=True)


def peak(limit: int) -> None:
    """Prints by how many MiB a training step of `limit` steps raises the process's peak."""
    torch.manual_seed(0)
    options = {"tol": 0.0, "max_steps": limit, "on_failure": "ignore"}  # no early end
    fusion = DEQFusion([512] * 3, 512, **options)
    features = [torch.randn(256, 512).requires_grad_() for _ in range(3)]
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fused = fusion(features)
    fused.backward(torch.randn_like(fused))
    if not bool((fusion.info.steps == limit).all()):
        raise RuntimeError("every sample must have taken every step")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / unit)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints what the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("convergence", help="untrained convergence, every kind of input")
    commands.add_parser("memory", help="peak memory for several step limits")
    commands.add_parser("peak", help="peak memory for one step limit").add_argument(
        "limit", type=int
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.command == "peak":
        peak(args.limit)
    else:
        {"convergence": convergence, "memory": memory}[args.command]()


if __name__ == "__main__":
    main()
