"""The result of a comparison: its table, its statistics, its best method, its files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .methods import Method
from .paired import Estimate, Paired
from .recipe import Recipe
from .report import report
from .report.choice import choose, chosen
from .report.findings import Findings
from .report.table import difference


class Comparison(Findings):
    """The result of a comparison; printed, and shown by a notebook, as sentences and a table.

    Its attributes are those of `Findings`: `results`, `failures`, `skipped`, `score`, ...
    """

    def to_dataframe(self) -> Any:
        """Returns the table as a DataFrame of pandas: a line for each method, in plain numbers.

        Columns: method, kind, runs; mean, sd, low and high (of its 95 % interval) of the score;
        difference, difference_low, difference_high and p (Holm's) of the test against the
        baseline; parameters, epochs, seconds, solver_steps, converged (in percent); of the other
        scores the means, by name, and of the score without a modality, as `without_<name>`. What
        there is not is NaN.

        Raises:
            ValueError: if every run failed.
        """
        from pandas import DataFrame  # it takes its time

        return DataFrame([report.record(row, self.scores) for row in self._rows])

    def difference(self, first: str, second: str) -> Paired:
        """Returns the score of a method minus another's in the runs that both have, tested.

        The test is corrected for what the runs share (`compare_paired`), and not for how many
        pairs are looked at.

        Raises:
            ValueError: for a method that is not there, or if they have no run in common.
        """
        runs = {name: [r for r in self.results if r["method"] == name] for name in (first, second)}
        for name, group in runs.items():
            if not group:
                there = ", ".join(dict.fromkeys(r["method"] for r in self.results))
                raise ValueError(f"no run of {name!r}; choose from {there}")
        found = difference(runs[first], runs[second], self.score, self.test_share)
        if found is None:
            raise ValueError(f"{first} and {second} must have a run in common, they have none")
        return found

    def best(self) -> "Best":
        """Returns the fusion or single modality that is best on validation data.

        Best is the mean of the score over the runs, and no method that failed in one of them is.
        A floor never is, whatever it scores: it is there to be beaten, and keeps no model.

        Raises:
            ValueError: if there is none.
        """
        name, valid = choose(self)
        method = next(method for method in self.methods if method.name == name)
        row = next(row for row in self._rows if row.method == name)
        results = [r for r in self.results if r["method"] == name]
        return Best(self.recipe, method, row.scores, valid, _chosen(results))

    def chosen(self) -> str:
        """Returns in words what `best` is, its scores, and which floors are within chance of it;
        nothing where nothing can be chosen."""
        return " ".join(chosen(self))

    def write(self, folder: str | Path) -> None:
        """Writes results.md, .csv, .json and .html (with pictures) to a folder.

        Raises:
            ValueError: if every run failed.
            CannotWrite: if they cannot be written.
        """
        report.write(self, Path(folder))

    def __str__(self) -> str:
        return report.terminal(self)

    def _repr_markdown_(self) -> str:
        return report.short_markdown(self)

    def _repr_html_(self) -> str:
        return report.short_html(self)


@dataclass(frozen=True)
class Best:
    """The method of a comparison that is best on validation data.

    Attributes:
        recipe: what was compared.
        method: what is best.
        scores: name -> estimate of the scored part over the runs.
        valid: the mean score on validation data, by which it was chosen.
        chosen: of a search, the `options` of the fusion and the keywords of the `optimizer` that
            most runs chose.
    """

    recipe: Recipe = field(repr=False)
    method: Method = field(repr=False)
    scores: Mapping[str, Estimate]
    valid: float
    chosen: Mapping[str, Mapping[str, Any]]

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def kind(self) -> str:
        return self.method.kind

    def __repr__(self) -> str:
        score, found = next(iter(self.scores.items()))
        reached = f"{score} {found.mean:.4g}, {self.valid:.4g} on validation data"
        return f"Best({self.name!r}, {self.kind}: {reached})"

    def refit(self) -> Any:
        """Returns what the recipe's `refit` makes of the method: a model for use.

        Raises:
            ValueError: if the recipe, or a system's own, has no such thing.
        """
        recipe = self.recipe
        if self.method.system is not None:
            recipe = self.method.system.meet(recipe)
            if recipe.refit is self.recipe.refit:  # which puts fusions into the benchmark's network
                raise ValueError(
                    f"{self.name} is a system, whose recipe has no refit of its own: its `meet` "
                    "may return a recipe with one; for a model for use, compare without it"
                )
        if list(self.method.recipe.modalities) != list(recipe.modalities):
            recipe = recipe.restricted(self.method.recipe.modalities)
        if recipe.refit is None:
            raise ValueError(
                f"the recipe of {recipe.name} has no refit: Recipe(refit=...) is a function (name, "
                "fusion, options) that trains the method anew on all the data, and returns a model "
                "for use, as recipes of one's own data do"
            )
        options = {**recipe.fusion_options.get(self.name, {}), **self.chosen["options"]}
        return recipe.refit(self.name, self.method.fusion, options, **self.chosen["optimizer"])


def _chosen(results: Sequence[Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """Returns the hyperparameters that most runs chose, of equals those that came first."""
    found = [result["hyperparameters"] for result in results]
    most = Counter(map(repr, found)).most_common(1)[0][0]
    return next(each for each in found if repr(each) == most)
