"""The files of a comparison, and what the terminal shows of it."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..files import write_bytes, write_json
from .compare import Comparison
from .headline import headline
from .page import page
from .paired import MIN_RUNS
from .pictures import Shown
from .recipe import Recipe, Score
from .said import summary
from .table import Row, as_csv, cells, make_rows, markdown
from .text import in_markdown, printable
from .verdict import verdict

LONG = "curve", "analysis", "identity"  # of a run, left to its own file
TRACEBACK = "\n\t"  # control characters that an error's text may have


@dataclass(frozen=True)
class Report:
    """A comparison, and how to tell of it.

    Attributes:
        found: of `compare`, with one result at least.
        recipe: what was compared.
        score: which of the recipe's scores it is compared by.
        baseline: the method of the paired tests.
        subject: the method that the comparison is about.
        test_share: see `compare_paired`.
        command: what asked for it, program and arguments, for whoever wants to repeat it.
        made_by: of `store.provenance`.
    """

    found: Comparison
    recipe: Recipe
    score: Score
    baseline: str | None
    subject: str | None
    test_share: float | None
    command: Sequence[str]
    made_by: Mapping[str, Any]

    def write(self, output: Path) -> None:
        """Writes results.md, .csv, .json and .html to a folder."""
        files = {"md": self.markdown(), "csv": as_csv(self.found.results), "html": self.html()}
        for kind, text in files.items():
            write_bytes(output / f"results.{kind}", text.encode(errors="backslashreplace"))
        write_json(output / "results.json", self.content())

    def terminal(self) -> str:
        """Returns what it says, the table of the one score, and the failures."""
        table = markdown(*cells(self.rows, [self.score], self.baseline))
        below = printable(self.legend) + self._notes(printable)
        says = map(printable, self.says)
        return "\n\n".join([*says, table, below, *self.failed]).strip()

    def markdown(self) -> str:
        """Returns what it says, the table of all scores, and the command."""
        table = markdown(*self.table)
        below = [in_markdown(self.legend) + self._notes(in_markdown), f"    {printable(self.line)}"]
        says = map(in_markdown, self.says)
        return "\n\n".join([f"# {in_markdown(self.title)}", *says, table, *below]) + "\n"

    def html(self) -> str:
        """Returns the page, with pictures."""
        shown = self.rows, self.found.results, self.score, self.recipe.select
        made_by = "\n".join(f"{name}: {value}" for name, value in self.made_by.items())
        return page(
            Shown(*shown, self.baseline, self.subject),
            *self.table,
            title=self.title,
            headline=headline(self.rows, self.score, **self.sides),
            verdict=self.says,
            legend=self.legend,
            skipped=self.found.skipped,
            failures=self.found.failures,
            warned=summary(self.found.results),
            repeat=f"{self.line}\n\n{made_by}",
        )

    def content(self) -> dict[str, Any]:
        """Returns everything but what is long, every run with its settings."""
        head, lines = self.table
        return {
            "title": self.title,
            "command": self.line,
            "made_by": self.made_by,
            "settings": self.recipe.shared_settings(),
            "baseline": self.baseline,
            "test_share": self.test_share,
            "table": [dict(zip(head, line, strict=True)) for line in lines],
            "skipped": self.found.skipped,
            "failures": self.found.failures,
            "runs": [
                {key: value for key, value in run.items() if key not in LONG}
                for run in self.found.results
            ],
        }

    @cached_property
    def scores(self) -> list[Score]:
        there = self.found.results[0]["scores"]
        others = [s for s in self.recipe.scores if s != self.score and s.name in there]
        return [self.score, *others]

    @cached_property
    def rows(self) -> list[Row]:
        asked = {"baseline": self.baseline, "test_share": self.test_share}
        return make_rows(self.found.results, self.scores, **asked)

    @cached_property
    def table(self) -> tuple[list[str], list[list[str]]]:
        return cells(self.rows, self.scores, self.baseline)

    @cached_property
    def says(self) -> list[str]:
        return verdict(self.rows, self.score, **self.sides)

    @property
    def sides(self) -> dict[str, str | None]:
        return {"baseline": self.baseline, "subject": self.subject}

    @property
    def title(self) -> str:
        name = self.recipe.name
        return name if self.recipe.part == "test" else f"{name}, validation part"

    @property
    def line(self) -> str:
        program, *arguments = self.command
        return f"{program} {shlex.join(arguments)}".strip()

    def _notes(self, safe: Callable[[str], str]) -> str:
        """Returns lines of what was not compared, and of what the runs warned of."""
        notes = [f"not compared: {n}, it {why}" for n, why in self.found.skipped.items()]
        return "".join(f"\n{safe(note)}" for note in [*notes, *summary(self.found.results)])

    @property
    def failed(self) -> list[str]:
        """The failed runs, method by method, with the traceback of the first of each."""
        methods: dict[str, list] = {}
        for failure in self.found.failures:
            methods.setdefault(failure["method"], []).append(failure)
        return [
            f"{printable(method)} failed in run {', '.join(str(f['run']) for f in group)}; "
            f"the first with:\n{printable(group[0]['error'], keep=TRACEBACK)}"
            for method, group in methods.items()
        ]

    @property
    def legend(self) -> str:
        way = "less" if self.score.lower else "more"
        text = (
            f"Scores are mean ± sd over runs, on the {self.recipe.part} part; {way} "
            f"{self.score.name} is better, and the best mean comes first. Costs are "
            "medians over runs."
        )
        if self.baseline:
            fresh = "resampling (Nadeau and Bengio, 2003) and " if self.recipe.resplit else ""
            text += (
                f" p: paired t-test against {self.baseline}, corrected for {fresh}the number of "
                f"comparisons (Holm, 1979), from {MIN_RUNS} runs on; intervals are for each "
                "comparison alone."
            )
        if any(row.costs["epochs spent"] is not None for row in self.rows):
            text += " epochs spent: on all trials of the search."
        if any(row.costs["converged"] is not None for row in self.rows):
            text += " converged: share of all forward solves in training, rounded down."
        return text
