"""The summary of all sets: scores, what they are of what can be reached, and tests."""

from collections.abc import Mapping
from statistics import fmean

from deq_fusion.examples.studies.output import Summary
from deq_fusion.examples.studies.score_tables import difference, difference_column, spread
from deq_fusion.examples.studies.tables import Column, Table
from deq_fusion.training_structures.comparison import Comparison
from deq_fusion.training_structures.comparison.methods import FLOOR
from deq_fusion.training_structures.comparison.report.table import Row

Found = Mapping[tuple[int, str], Comparison]  # (samples to learn from, set) -> its comparison
CEILING = "bayes"
COIN = 0.5
COSTS = {"epochs": ".0f", "seconds": ".1f"}


def reached(found: Found) -> dict[tuple[int, str], dict[str, float]]:
    """Returns what methods reach of what can be reached, set by set: 0 is a coin, 1 the best
    possible rule; of sets where a coin is the best rule nothing.

    Returns:
        (samples, set) -> method -> share, below 0 of one that is worse than a coin.
    """
    means = {
        key: {row.method: row.scores[comparison.score.name].mean for row in comparison.table()}
        for key, comparison in found.items()
    }
    return {key: shares for key, mean in means.items() if (shares := of_reachable(mean))}


def of_reachable(means: Mapping[str, float]) -> dict[str, float]:
    """Returns method -> what it reaches on a set, see `reached`, of method -> accuracy."""
    best = means.get(CEILING, COIN) - COIN
    return {m: (value - COIN) / best for m, value in means.items()} if best > 0.01 else {}


def in_order(found: Found) -> list[str]:
    """Returns the methods, floors first, then by what they reach over all sets, best first."""
    rows = [row for comparison in found.values() for row in comparison.table()]
    floors = list(dict.fromkeys(row.method for row in rows if row.kind == FLOOR))
    shares = reached(found)
    mean = {
        name: fmean([each[name] for each in shares.values() if name in each] or [0.0])
        for name in dict.fromkeys(row.method for row in rows)
    }
    fusions = sorted((name for name in mean if name not in floors), key=lambda name: -mean[name])
    return [*sorted(floors), *fusions]


def summary(found: Found) -> Summary:
    """Returns a table of all scores, and one of all tests."""
    return Summary([scores(found), tests(found)])


def scores(found: Found) -> Table:
    """Returns the accuracies: a row a method, a column a set."""
    sizes, sets = _keys(found)
    columns = [Column("samples", ",.0f"), Column("method"), *(Column(s, ".1%") for s in sets)]
    lines = []
    for samples in sizes:
        rows = {s: _rows(found.get((samples, s))) for s in sets}
        for method in in_order({k: c for k, c in found.items() if k[0] == samples}):
            cells = [rows[s].get(method) for s in sets]
            name = next(iter(found.values())).score.name
            lines.append([samples, method, *(r and spread(r.scores[name]) for r in cells)])
    title = "Accuracy on sets of known structure: mean and sd over the runs"
    return Table("structures", columns, lines, 2, title)


def tests(found: Found) -> Table:
    """Returns how every method differs from the baseline on every set, and what it reaches."""
    shares = reached(found)
    baseline = next(iter(found.values())).baseline
    columns = [Column("samples", ",.0f"), Column("set"), Column("method"), Column("runs", ".0f")]
    columns += [Column("accuracy", ".1%"), Column("reached", ".1%", "of what can be")]
    score = next(iter(found.values())).score
    columns += [difference_column(score, f"minus {baseline}"), Column("p", "p")]
    columns += [Column(name, form) for name, form in COSTS.items()]
    lines = []
    for (samples, name), comparison in found.items():
        for row in comparison.table():
            line = [samples, name, row.method, row.runs, spread(row.scores[score.name])]
            line += [shares.get((samples, name), {}).get(row.method)]
            line += [difference(row.test), row.test and row.test.p]
            lines.append([*line, *(row.costs.get(cost) for cost in COSTS)])
    title = f"Every set by itself, against {baseline}: paired tests over the runs"
    return Table("structures_tests", columns, lines, 3, title).filled()


def _keys(found: Found) -> tuple[list[int], list[str]]:
    sizes = list(dict.fromkeys(samples for samples, _ in found))
    return sizes, list(dict.fromkeys(name for _, name in found))


def _rows(comparison: Comparison | None) -> dict[str, Row]:
    return {} if comparison is None else {row.method: row for row in comparison.table()}
