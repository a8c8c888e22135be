"""How fast the adapters read, each beside a naive reader that takes one row at a time.

python -m deq_fusion.examples.studies.cost.loading                   everything, real sizes
python -m deq_fusion.examples.studies.cost.loading --sets imdb brca  some of the sets
python -m deq_fusion.examples.studies.cost.loading --scale 0.1     a tenth of the samples

Writes files of random content into a temporary folder, a set at a time, and removes them. They
are read as they lie in the system's cache, by one thread: what is measured is the code and not
the disk. Both readers take turns, after a turn that does not count; the table, in Markdown, has
the median of each. The naive reader checks, splits and scales nothing. MM-IMDB and VQA-v2 are
read in shuffled batches, in samples (questions) a second; BRCA and CMU-MOSI are loaded from their
files, in seconds. VQA-v2 has 10,000 images, a twelfth of the real ones.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .loading_files import BYTES
from .loading_sets import RATE, SETS, Case
from .timing import threads


class Result(NamedTuple):
    """A case measured: its first four entries, and `ours` and `naive` in its unit."""

    set: str
    what: str
    unit: str
    target: float
    samples: int
    ours: float
    naive: float

    def to_row(self) -> str:
        """Returns the line of the table; a ratio above 1 is in favour of ours."""
        rated = self.unit == RATE
        ratio = self.ours / self.naive if rated else self.naive / self.ours
        met = self.ours >= self.target if rated else self.ours < self.target
        ours, naive = (
            f"{x:,.0f} {self.unit}" if rated else f"{x:.3f} {self.unit}"
            for x in (self.ours, self.naive)
        )
        target = f"{'>=' if rated else '<'} {self.target:,} {self.unit}"
        target = f"{target}: {'met' if met else 'missed'}"
        return f"| {' | '.join((self.set, self.what, ours, naive, f'{ratio:.1f}', target))} |"


HEAD = "| set | what | ours | naive, row by row | ratio | target |\n|---|---|---|---|---|---|"


def measure(case: Case, *, repeats: int) -> Result:
    """Returns the medians of readings in turn, after one of each that does not count.

    Raises:
        RuntimeError: if the two readers read unequally many samples.
    """
    readings = [(case.ours(), case.naive()) for _ in range(repeats + 1)][1:]
    counts = {samples for pair in readings for samples, _ in pair}
    if len(counts) > 1:
        raise RuntimeError(f"both readers of {case.what} must read equally many, got {counts}")
    samples = counts.pop()
    times = (statistics.median(pair[k][1] for pair in readings) for k in range(2))
    ours, naive = (samples / taken if case.unit == RATE else taken for taken in times)
    return Result(*case[:4], samples, ours, naive)


def measure_set(
    name: str, folder: Path | None, *, scale: float, rows: int, repeats: int
) -> Iterator[Result]:
    """Yields the results of one of `SETS`, whose files are removed in the end."""
    with tempfile.TemporaryDirectory(dir=folder) as place, threads(1):
        _say(f"{name}: writing files")
        for case in SETS[name](Path(place), scale, rows):
            _say(f"{name}: reading {case.what}")
            yield measure(case, repeats=repeats)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures what the arguments ask for and prints the table."""
    parser = _parser()
    args = parser.parse_args(argv)
    for name in ("scale", "rows", "repeats"):
        if getattr(args, name) <= 0:
            parser.error(f"--{name} must be positive, got {getattr(args, name)}")
    folder, needed = args.folder or Path(tempfile.gettempdir()), 1.1 * BYTES * args.scale
    if not folder.is_dir():
        parser.error(f"--folder must be there, but {folder} is not; make it first")
    if shutil.disk_usage(folder).free < needed:
        parser.error(
            f"{folder} must have {needed / 1e9:.1f} GB free; name another --folder, or a smaller "
            "--scale"
        )
    options = {"scale": args.scale, "rows": args.rows, "repeats": args.repeats}
    rows = [r.to_row() for name in args.sets for r in measure_set(name, folder, **options)]
    print("\n".join([HEAD, *rows]))


def _parser() -> argparse.ArgumentParser:
    gigabytes = f"{1.1 * BYTES / 1e9:.1f} GB"
    parser = argparse.ArgumentParser(
        prog="python -m deq_fusion.examples.studies.cost.loading",
        description=__doc__,
        epilog=f"At full scale it needs {gigabytes} of disk, and as much memory to hold that.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--sets", nargs="+", choices=SETS, default=list(SETS), help="which (default: all)")
    add("--folder", type=Path, help="where the temporary files go (default: the system's place)")
    add("--scale", type=float, default=1.0, help="share of the samples (default: %(default)s)")
    add(
        "--rows",
        type=int,
        default=5120,
        help="films of MM-IMDB in a reading; questions of VQA-v2, a quarter (default: %(default)s)",
    )
    add("--repeats", type=int, default=3, help="readings that count (default: %(default)s)")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
