"""What deep equilibrium fusion costs: one command, one run.

python -m deq_fusion.examples.studies.cost                       everything (under eight minutes)
python -m deq_fusion.examples.studies.cost --parts cases --shapes 128,2,512
python -m deq_fusion.examples.studies.cost --device cuda         the same on a GPU

Prints Markdown, and writes it after every group of measurements. Methods: DEQ fusion with the exact
and the one-step gradient, the same map solved jointly by torchdeq (if it is installed), unrolled
with as many steps and backpropagated, and concatenation followed by a linear map.
"""

import argparse
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from deq_fusion.examples.studies.cost.measure import PARTS, SHAPES
from deq_fusion.examples.studies.cost.summary import to_markdown
from deq_fusion.examples.studies.cost.timing import Settings, threads
from deq_fusion.training_structures.files import save_atomically


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints and saves what the arguments ask for."""
    args = _parse(argv)
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler's own words
    settings = Settings(args.seconds, args.most, args.device)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    groups, machine = [], _machine(args.device, args.threads)
    with threads(args.threads):
        for part in args.parts:
            options = {"shapes": args.shapes} if part == "cases" else {}
            for group in PARTS[part](settings, **options):
                groups.append(group)
                text = to_markdown(groups, machine)
                save_atomically(args.output, lambda file, text=text: file.write(text.encode()))
    print(f"\n{text}\nin {args.output}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m deq_fusion.examples.studies.cost",
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
    add("--output", type=Path, default=Path("results/bench.md"), help="file (default: %(default)s)")
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


def _machine(device: str, count: int) -> str:
    name = torch.cuda.get_device_name(device) if device != "cpu" else platform.machine()
    flag = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return (
        f"{name}, {count} of {os.cpu_count()} cores{', bfloat16 products' if flag else ''}, "
        f"torch {torch.__version__}, Python {platform.python_version()}."
    )


if __name__ == "__main__":
    main()
