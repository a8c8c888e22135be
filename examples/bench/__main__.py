"""What deep equilibrium fusion costs: one command, one run.

python -m examples.bench                       everything (under ten minutes), to results/bench
python -m examples.bench --parts cases --shapes 128,2,512
python -m examples.bench --device cuda         the same on a GPU

Writes bench.md, bench.csv and bench.png. Methods: DEQ fusion with the exact and two approximate
gradients, its plain engine, its evaluations without a solver around them (bare), the same map
solved jointly by torchdeq, unrolled with as many steps and backpropagated, a plain prototype
(prototype.py), and concatenation followed by a linear map.
"""

import argparse
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from examples.bench.parts import PARTS, SHAPES, Settings
from examples.bench.report import draw, to_csv, to_markdown
from training_structures.files import save_atomically


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints and saves what the arguments ask for."""
    args = _parse(argv)
    settings = Settings(args.seconds, args.most, args.device, args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    rows, machine = [], _machine(args.device)
    for part in args.parts:
        options = [args.shapes] if part == "cases" else []
        for row in PARTS[part](settings, *options):
            rows.append(row)
            _write(args.output / "bench.csv", to_csv(rows))  # nothing is lost
    text = to_markdown(rows, machine)
    _write(args.output / "bench.md", text)
    print(f"\n{text}\nin {args.output}: bench.md, bench.csv", end="")
    if {"cases", "sweeps"} <= set(args.parts):
        draw(rows, args.output / "bench.png")
        print(", bench.png", end="")
    print()


def _write(path: Path, text: str) -> None:
    save_atomically(path, lambda file: file.write(text.encode()))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--parts", type=_parts, default=list(PARTS), help=f"of {','.join(PARTS)} (default: all)")
    add("--shapes", type=_shape, nargs="+", default=SHAPES, help="batch,modalities,width ...")
    add("--seconds", type=float, default=6.0, help="time for one group of repeats (default: 6)")
    add("--most", type=int, default=15, help="most repeats (default: 15)")
    add("--device", default="cpu", help="where to measure (default: cpu)")
    add("--threads", type=int, nargs="+", help="numbers of threads (default: one, and all)")
    add("--output", type=Path, default=Path("results/bench"), help="folder (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.threads is None:
        alone = args.device != "cpu" or os.cpu_count() == 1
        args.threads = [1] if alone else [1, torch.get_num_threads()]
    return args


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


def _machine(device: str) -> str:
    name = torch.cuda.get_device_name(device) if device != "cpu" else platform.machine()
    flag = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return (
        f"{name}, {os.cpu_count()} cores{', bfloat16 products' if flag else ''}, "
        f"torch {torch.__version__}, Python {platform.python_version()}."
    )


if __name__ == "__main__":
    main()
