"""Does a method win, over several sets? Paired tests against others, from finished comparisons.

python -m deq_fusion.examples.studies.across rosmap=results/rosmap digits=results/digits \\
    --methods deq --against concat,weighted_sum,late,simbamm,gmu

Each SET=FOLDER is a folder of deq-fusion compare. Nothing is trained. All tests are one family:
their p-values are corrected for all sets, methods and opponents together (Holm, 1979), and for
resampling where runs are fresh splits (Nadeau and Bengio, 2003). A method is non-inferior where the
95 % interval of its difference lies above minus the margin, inferior where it lies below that, and
undecided else; then it says how many runs would decide it if mean and spread stayed. Differences
are in points where the score is in percent, else in percent of the opponent's mean, and above zero
where the method is better. The output folder gets

  across.md        the tests, the tally, and tables.json
  across.png       the differences, set by set; .svg of it
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from deq_fusion.examples.studies.drawing import make_figure
from deq_fusion.examples.studies.output import Summary, write_all
from deq_fusion.examples.studies.tables import Bounded, Cell, Column, Table
from deq_fusion.training_structures.comparison.paired import Paired, compare_paired, holm
from deq_fusion.training_structures.comparison.program.arguments import words
from deq_fusion.training_structures.comparison.program.terminal import on_terminal
from deq_fusion.training_structures.comparison.recipe import Score
from deq_fusion.training_structures.comparison.report.table import LEVEL
from deq_fusion.training_structures.files import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROGRAM = "python -m deq_fusion.examples.studies.across"
MARGIN = 2.0  # points
MOST = 10_000  # runs that are looked at
WIN, TIE, LOSS = "win", "tie", "loss"
NON_INFERIOR, INFERIOR, UNDECIDED = "non-inferior", "inferior", "undecided"


@dataclass(frozen=True)
class Scored:
    """The scores of a comparison, on one set.

    Attributes:
        score: the one that is compared.
        test_share: see `compare_paired`.
        values: method -> run -> score.
    """

    score: Score
    test_share: float | None
    values: Mapping[str, Mapping[int, float]]


@dataclass(frozen=True)
class Match:
    """A method against another one on a set; shares, above zero where the method is better.

    Attributes:
        where: set, method, opponent.
        runs: that both have.
        test: the difference; `p` corrected for all tests of the study.
        sd: of the difference between runs.
        test_share: see `compare_paired`.
    """

    where: tuple[str, str, str]
    runs: int
    test: Paired
    sd: float
    test_share: float | None

    @property
    def outcome(self) -> str:
        """One of `WIN`, `TIE` and `LOSS`; empty of too few runs for a test."""
        if self.test.p is None:
            return ""
        if self.test.p >= LEVEL:
            return TIE
        return WIN if self.test.difference > 0 else LOSS

    def inferiority(self, margin: float) -> str:
        """One of `NON_INFERIOR`, `INFERIOR` and `UNDECIDED`."""
        if self.test.low > -margin:
            return NON_INFERIOR
        return INFERIOR if self.test.high < -margin else UNDECIDED

    def runs_needed(self, margin: float) -> int | None:
        """Runs from which on the interval would not hold -margin, if mean and spread stayed; None
        if no number would do, as fresh splits of one set share their samples."""
        away = abs(self.test.difference + margin)
        n = np.arange(2, MOST + 1)
        half = stats.t.ppf(0.975, n - 1) * self.sd * np.sqrt(1 / n + (self.test_share or 0))
        enough = n[half < away]
        return int(enough[0]) if len(enough) else None


@on_terminal()
def main(argv: Sequence[str] | None = None) -> Summary:
    """Carries out the study that the arguments ask for; returns what it found."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = _parser()
    args = parser.parse_args(argv)
    if len(dict(args.sets)) < len(args.sets):
        parser.error(f"every set must have a name of its own, got {[n for n, _ in args.sets]}")
    try:
        found = {name: read(folder) for name, folder in args.sets}
        played = matches(found, args.methods, args.against)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    told = summary(played, args.margin / 100)
    picture = {"across": draw(told.tables[0], args.margin / 100)}
    there = write_all(args.output, "across", told, picture, command=[*PROGRAM.split(), *argv])
    print(f"{told}\n\n{there}")
    return told


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, formatter_class=raw)
    parser.add_argument("sets", nargs="+", type=_set, metavar="SET=FOLDER")
    names = {"type": partial(_names, "METHOD"), "metavar": "A,B"}
    parser.add_argument("--methods", default=["deq"], help="to judge (default: deq)", **names)
    parser.add_argument(
        "--against", default=["concat"], help="their opponents (default: concat)", **names
    )
    parser.add_argument(
        "--margin", type=float, default=MARGIN, help="of non-inferiority, points (default: 2)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("results", "across"), help="(default: results/across)"
    )
    return parser


def _set(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"must be SET=FOLDER, got {text!r}")
    return name, Path(folder)


def _names(what: str, text: str) -> list[str]:
    found = list(dict.fromkeys(words(text)))
    if not found:
        raise argparse.ArgumentTypeError(f"must be {what},{what}, got {text!r}")
    return found


def read(folder: Path) -> Scored:
    """Reads a comparison's results.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if they are damaged, or some runs have failed.
    """
    content = read_json(folder / "results.json")
    if content["failures"]:
        raise ValueError(f"{len(content['failures'])} runs of {folder} failed; run it again")
    score = Score(**content["scores"][0])
    values: dict[str, dict[int, float]] = {}
    for run in content["runs"]:
        values.setdefault(run["method"], {})[run["run"]] = run["scores"][score.name]
    return Scored(score, content["test_share"], values)


def matches(
    found: Mapping[str, Scored], methods: Sequence[str], against: Sequence[str]
) -> list[Match]:
    """Returns every method against every opponent on every set; p-values are of one family.

    Raises:
        ValueError: if a set lacks one, or two have no run in common.
    """
    for name, scored in found.items():
        lacking = [m for m in (*methods, *against) if m not in scored.values]
        if lacking:
            raise ValueError(
                f"{name} must have {', '.join(lacking)}, it has {', '.join(scored.values)}; "
                "add what is missing to its comparison (--fusions), and run it again"
            )
    pairs = [(a, b) for a, b in product(methods, against) if a != b]
    played = [_match(name, scored, *pair) for name, scored in found.items() for pair in pairs]
    adjusted = holm([each.test.p for each in played])
    return [
        replace(each, test=replace(each.test, p=p))
        for each, p in zip(played, adjusted, strict=True)
    ]


def _match(name: str, found: Scored, method: str, opponent: str) -> Match:
    own, other = found.values[method], found.values[opponent]
    runs = sorted(own.keys() & other.keys())
    if not runs:
        raise ValueError(f"{method} and {opponent} must have runs in common on {name}")
    unit = 1.0 if found.score.percent else fmean(other[run] for run in runs)
    sign = -1 if found.score.lower else 1
    first, second = ([sign * each[run] / unit for run in runs] for each in (own, other))
    test = compare_paired(first, second, test_share=found.test_share)
    sd = float(np.std(np.subtract(first, second), ddof=1)) if len(runs) > 1 else math.nan
    return Match((name, method, opponent), len(runs), test, sd, found.test_share)


def summary(played: Sequence[Match], margin: float) -> Summary:
    """Returns the tests, and how often they were won."""
    return Summary([_tests(played, margin), _tally(played, margin)])


def _tests(played: Sequence[Match], margin: float) -> Table:
    columns = [Column("set"), Column("method"), Column("against"), Column("runs", ".0f")]
    columns += [Column("difference", "+.1%"), Column("p", "p"), Column("outcome")]
    columns += [Column("by the margin"), Column("runs needed", ",.0f", "to decide")]
    lines: list[list[Cell]] = []
    for each in played:
        test, judged = each.test, each.inferiority(margin)
        line = [*each.where, each.runs, Bounded(test.difference, test.low, test.high), test.p]
        needed = each.runs_needed(margin) if judged == UNDECIDED else None
        lines.append([*line, each.outcome, judged, needed])
    title = f"Set by set: paired tests, and a margin of {100 * margin:g} points"
    return Table("across", columns, lines, 3, title).filled()


def _tally(played: Sequence[Match], margin: float) -> Table:
    outcomes, judged = (WIN, TIE, LOSS), (NON_INFERIOR, UNDECIDED, INFERIOR)
    columns = [Column("method"), Column("against"), Column("sets", ".0f")]
    columns += [Column(name, ".0f") for name in (*outcomes, *judged)]
    columns += [Column("mean difference", "+.1%")]
    lines: list[list[Cell]] = []
    for pair in dict.fromkeys(each.where[1:] for each in played):
        own = [each for each in played if each.where[1:] == pair]
        line: list[Cell] = [*pair, len(own)]
        line += [sum(each.outcome == name for each in own) for name in outcomes]
        line += [sum(each.inferiority(margin) == name for each in own) for name in judged]
        lines.append([*line, fmean(each.test.difference for each in own)])
    return Table("tally", columns, lines, 2, "Over all sets")


def draw(tests: Table, margin: float) -> "Figure":
    """Returns the differences of the table `across` with their intervals, set by set, a panel for
    each method and opponent; the grey band is the margin."""
    names = [column.name for column in tests.columns]
    rows = [dict(zip(names, row, strict=True)) for row in tests.rows]
    pairs = list(dict.fromkeys((row["method"], row["against"]) for row in rows))
    sets = list(dict.fromkeys(str(row["set"]) for row in rows))
    figure, panels = make_figure(len(pairs), 0.6 + 0.2 * len(sets), sharex=True)
    for axes, pair in zip(panels, pairs, strict=True):
        axes.axvspan(-100 * margin, 0, color="0.92", zorder=0)
        axes.axvline(0, color="black", linewidth=0.8)
        for row in rows:
            if (row["method"], row["against"]) == pair:
                told = row.get("outcome") in (WIN, LOSS)
                _point(axes, sets.index(str(row["set"])), row["difference"], told=told)
        axes.set_yticks(range(len(sets)), sets, fontsize=7)
        axes.set_ylim(len(sets) - 0.5, -0.5)
        axes.set_title(f"{pair[0]} minus {pair[1]}", fontsize=9, loc="left")
    key = "points (above 0: better), with 95 % intervals\ndiamond: beyond chance; band: the margin"
    panels[-1].set_xlabel(key, fontsize=8)
    return figure


def _point(axes: Any, at: int, difference: Any, *, told: bool) -> None:
    ink = {"color": "#d55e00" if told else "#0072b2", "linewidth": 1.5}
    if difference.low is not None:
        axes.plot([100 * difference.low, 100 * difference.high], [at, at], **ink)
    axes.plot(100 * difference.value, at, marker="D" if told else "o", markersize=4, **ink)


if __name__ == "__main__":
    main()
