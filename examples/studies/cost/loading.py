"""How fast the adapters read, each beside a naive reader that takes one row at a time.

python -m deq_fusion.examples.studies.cost.loading                   everything, real sizes
python -m deq_fusion.examples.studies.cost.loading --sets imdb brca  some of the sets
python -m deq_fusion.examples.studies.cost.loading --scale 0.1     a tenth of the samples

Writes files of random content into a temporary folder, a set at a time, and removes them. They
are read as they lie in the system's cache, by one thread: what is measured is the code and not
the disk. Both readers take turns, after a turn that does not count; the table, printed and saved,
has the median of each. The naive reader checks, splits and scales nothing. MM-IMDB and VQA-v2 are
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
from typing import TYPE_CHECKING, NamedTuple

from deq_fusion.examples.studies.cost.loading_files import BYTES
from deq_fusion.examples.studies.cost.loading_sets import RATE, SETS, Case
from deq_fusion.examples.studies.cost.timing import threads
from deq_fusion.examples.studies.drawing import COLOURS, make_figure
from deq_fusion.examples.studies.output import Summary, write_all
from deq_fusion.examples.studies.tables import Cell, Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROGRAM = "python -m deq_fusion.examples.studies.cost.loading"


class Result(NamedTuple):
    """A case measured: its first four entries, and `ours` and `naive` in its unit."""

    set: str
    what: str
    unit: str
    target: float
    samples: int
    ours: float
    naive: float

    def to_row(self) -> list[Cell]:
        """Returns the line of the table; a ratio above 1 is in favour of ours."""
        rated = self.unit == RATE
        ratio = self.ours / self.naive if rated else self.naive / self.ours
        met = self.ours >= self.target if rated else self.ours < self.target
        target = f"{'>=' if rated else '<'} {self.target:,} {self.unit}"
        target = f"{target}: {'met' if met else 'missed'}"
        pair = [self.ours, self.naive]
        cells = [*pair, None, None] if rated else [None, None, *pair]
        return [self.set, self.what, *cells, ratio, target]


COLUMNS = (
    *(Column("set"), Column("what"), Column("samples/s", ",.0f")),
    *(Column("samples/s, row by row", ",.0f"), Column("s", ".3f"), Column("s, row by row", ".3f")),
    *(Column("ratio", ".1f"), Column("target")),
)


def summary(found: Sequence[Result]) -> Summary:
    """Returns the table of what was read."""
    title = "Reading by the adapters, and by naive readers that take one row at a time"
    return Summary([Table("loading", COLUMNS, [result.to_row() for result in found], 2, title)])


def draw(found: Sequence[Result]) -> "dict[str, Figure]":
    """Returns how many times as fast as the naive reader the adapters are, in every case."""
    figure, (axes,) = make_figure(1, 0.9 + 0.3 * len(found))
    ratios = [r.ours / r.naive if r.unit == RATE else r.naive / r.ours for r in found]
    axes.barh(range(len(found)), ratios, 0.6, color=COLOURS[0])
    axes.axvline(1, color="black", linewidth=0.8)
    names = [f"{result.set}: {result.what}" for result in found]
    axes.set_yticks(range(len(found)), names, fontsize=6)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_title("speed of reading", fontsize=9, loc="left")
    axes.set_xlabel("times that of a reader of one row at a time", fontsize=8)
    return {"loading": figure}


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


def main(argv: Sequence[str] | None = None) -> Summary:
    """Measures what the arguments ask for, prints and saves it; returns what was found."""
    argv = sys.argv[1:] if argv is None else list(argv)
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
    found = [result for name in args.sets for result in measure_set(name, folder, **options)]
    told, command = summary(found), [*PROGRAM.split(), *argv]
    print(f"{told}\n\n{write_all(args.output, 'loading', told, draw(found), command=command)}")
    return told


def _parser() -> argparse.ArgumentParser:
    gigabytes = f"{1.1 * BYTES / 1e9:.1f} GB"
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=__doc__,
        epilog=f"At full scale it needs {gigabytes} of disk, and as much memory to hold that.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--sets", nargs="+", choices=SETS, default=list(SETS), help="which (default: all)")
    add("--folder", type=Path, help="where the temporary files go (default: the system's place)")
    add("--output", type=Path, default=Path("results/cost-loading"), help="folder of the table")
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
