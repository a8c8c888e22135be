"""The files of a comparison, and what the terminal shows of it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoint import save_atomically
from .compare import Comparison
from .page import page
from .paired import MIN_RUNS
from .pictures import Shown
from .recipe import Recipe, Score
from .store import provenance, write_json
from .table import Row, as_csv, cells, make_rows, markdown
from .verdict import verdict


def write(
    found: Comparison,
    recipe: Recipe,
    output: Path,
    *,
    score: Score,
    baseline: str | None,
    subject: str | None,
    test_share: float | None,
    made_with: Mapping[str, Any],
    command: Sequence[str],
) -> str:
    """Writes results.md, .csv, .json and .html; returns what the terminal shows.

    Args:
        found: of `compare`.
        recipe: what was compared.
        output: folder of the files.
        score: which of the recipe's scores is compared.
        baseline: the method of the paired tests.
        subject: the method that the comparison is about.
        test_share: see `compare_paired`.
        made_with: `threads` and `device`.
        command: what asked for it, for whoever wants to repeat it.

    Raises:
        ValueError: if the runs do not have that score.
    """
    there = found.results[0]["scores"]
    if score.name not in there:
        raise ValueError(f"this set has no {score.name}; choose a metric from {', '.join(there)}")
    scores = [score, *(s for s in recipe.scores if s != score and s.name in there)]
    rows = make_rows(found.results, scores, baseline=baseline, test_share=test_share)
    says = verdict(rows, score, baseline=baseline, subject=subject)
    title = recipe.name if recipe.part == "test" else f"{recipe.name}, validation part"
    legend = _legend(recipe, rows, score, baseline)
    head, lines = cells(rows, scores, baseline)
    skipped = "".join(f"\nnot compared: {n}, it {reason}" for n, reason in found.skipped.items())
    made_by = provenance(**made_with)
    program, *argv = command
    command = f"{program} {shlex.join(argv)}".strip()
    repeat = f"{command}\n\n" + "\n".join(f"{name}: {value}" for name, value in made_by.items())
    shown = Shown(rows, found.results, score, recipe.select, baseline, subject)
    full = markdown(head, lines)
    text = "\n\n".join([*says, full, legend + skipped, f"    {command}"])
    content = {
        "results.md": f"# {title}\n\n{text}\n",
        "results.csv": as_csv(found.results),
        "results.html": page(
            shown,
            head,
            lines,
            title=title,
            verdict=says,
            legend=legend,
            skipped=found.skipped,
            failures=found.failures,
            repeat=repeat,
        ),
    }
    for name, what in content.items():
        save_atomically(output / name, lambda file, what=what: file.write(what.encode()))
    write_json(
        output / "results.json",
        {
            "title": title,
            "command": command,
            "made_by": made_by,
            "settings": recipe.shared_settings(),
            "baseline": baseline,
            "test_share": test_share,
            "table": [dict(zip(head, line, strict=True)) for line in lines],
            "skipped": found.skipped,
            "failures": found.failures,
            "runs": found.results,
        },
    )
    short = markdown(*cells(rows, [score], baseline))
    return "\n\n".join([*says, short, legend + skipped, _failed(found)]).strip()


def _failed(found: Comparison) -> str:
    """Returns the failed runs, method by method, with the traceback of the first of each."""
    methods: dict[str, list] = {}
    for failure in found.failures:
        methods.setdefault(failure["method"], []).append(failure)
    return "\n\n".join(
        f"{method} failed in {len(group)} runs ({', '.join(str(f['run']) for f in group)}); "
        f"the first with:\n{group[0]['error']}"
        for method, group in methods.items()
    )


def _legend(recipe: Recipe, rows: Sequence[Row], score: Score, baseline: str | None) -> str:
    resampling = "resampling (Nadeau and Bengio, 2003) and " if recipe.resplit else ""
    way = "less" if score.lower else "more"
    text = (
        f"Scores are mean ± sd over runs, on the {recipe.part} part; {way} {score.name} is better, "
        "and the best mean comes first. Costs are those of one run."
    )
    if baseline:
        text += (
            f" p: paired t-test against {baseline}, corrected for {resampling}the number of "
            f"comparisons (Holm, 1979), from {MIN_RUNS} runs on; intervals are for each "
            "comparison alone."
        )
    if any(row.costs["converged"] is not None for row in rows):
        text += " converged: share of all forward solves in training, rounded down."
    return text
