"""The findings of a comparison, from which its reports are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from ..methods import Method
from ..paired import Paired
from ..recipe import Recipe, Score
from .diagnoses import Diagnosed, diagnosed_rows
from .robustness import Robust, robust_rows
from .table import Row, make_rows


class Section(NamedTuple):
    """A table with a heading, and a text above it."""

    heading: str
    text: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]


@dataclass(frozen=True, repr=False)
class Findings:
    """All that the runs of a comparison gave, and the table of it; see `comparison.Comparison`.

    Attributes:
        recipe: what was compared.
        methods: all of them.
        results: of every method in every run that did not fail, method by method; the keys of
            each are `kind` and those listed at `single_run.run_fusion`.
        skipped: fusion -> why it cannot take the recipe.
        failures: runs that raised: `method`, `kind`, `run` and `error`, the traceback.
        reused: sentences on the stored runs that were used again, and on those that were not.
        score: which of the recipe's scores it is compared by.
        baseline: the method of the paired tests; None: there is none.
        subject: the method that the comparison is about; None: there is none.
        test_share: see `compare_paired`.
        asked: what asked for it, as text for whoever wants to repeat it.
        made_by: versions and machine, see `store.provenance`.
        sections: more tables for the page.
        doubled: what twice the epochs bring to methods that the bound on them may have stopped, see
            `doubling.doubled`; None: that was not tried.
    """

    recipe: Recipe = field(compare=False)
    methods: Sequence[Method] = field(compare=False)
    results: list[dict[str, Any]]
    skipped: dict[str, str]
    failures: list[dict[str, Any]]
    reused: list[str] = field(compare=False)
    score: Score
    baseline: str | None
    subject: str | None
    test_share: float | None
    asked: str = field(compare=False)
    made_by: Mapping[str, Any] = field(compare=False)
    sections: Sequence[Section] = field(default=(), compare=False)
    doubled: Mapping[str, Paired] | None = None

    def table(self) -> list[Row]:
        """Returns a row for each method, the best first.

        Raises:
            ValueError: if every run failed.
        """
        return list(self._rows)

    @cached_property
    def _rows(self) -> list[Row]:
        if not self.results:
            last = self.failures[-1]["error"]
            raise ValueError(f"every run failed, the last with:\n{last}")
        return make_rows(
            self.results, self.scores, baseline=self.baseline, test_share=self.test_share
        )

    def robustness(self) -> list[Robust]:
        """Returns a row for each curve and method, if robustness was asked for: curve by curve, the
        best relative robustness first."""
        return list(self._robust_rows)

    @cached_property
    def _robust_rows(self) -> list[Robust]:
        shared: dict[str, Any] = {"baseline": self.baseline, "test_share": self.test_share}
        return robust_rows(self.results, self.score, self.recipe.modalities, **shared)

    def diagnoses(self) -> list[Diagnosed]:
        """Returns a row for each method that was diagnosed, if that was asked for, in the order of
        the table: what each modality brings, interaction, calibration."""
        return list(self._diagnosed_rows)

    @cached_property
    def _diagnosed_rows(self) -> list[Diagnosed]:
        if not any("diagnoses" in result for result in self.results):
            return []
        order = [row.method for row in self.table()]
        return diagnosed_rows(self.results, self.score, order, test_share=self.test_share)

    @property
    def scores(self) -> list[Score]:
        """Those of the recipe's scores that there are, the one it is compared by first."""
        there = self.results[0]["scores"] if self.results else ()
        others = [s for s in self.recipe.scores if s != self.score and s.name in there]
        return [self.score, *others]

    def __repr__(self) -> str:
        runs = len(self.results) + len(self.failures)
        failed = f", {len(self.failures)} of them failed" if self.failures else ""
        what = f"{len(self.methods)} methods on {self.recipe.name}"
        return f"<Comparison of {what}: {runs} runs{failed}>"
