"""Reports of a comparison: on a terminal, in a notebook, as a table of numbers, and in files."""

import math
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from ...files import write_bytes, write_json
from ..methods import BASELINE, SYSTEM
from ..paired import MIN_RUNS
from ..recipe import Score
from ..run_warnings import summary
from . import diagnoses, robustness
from .advice import advice
from .budget import stopped
from .choice import chosen
from .findings import Findings
from .page import ABOUT, page
from .pictures import Shown
from .table import COSTS, Row, as_csv, cells, fitted, markdown, short_cells
from .text import in_markdown, printable
from .verdict import headline, verdict
from .worth import resolution, smallest, worth

LONG = "curve", "analysis", "identity", "robustness", "diagnoses"  # of a run, left to its own file
TRACEBACK = "\n\t"  # control characters that an error's text may have
WIDEST = 100  # columns of a line of prose
LAST = 6  # lines of a traceback that a terminal shows


def write(found: Findings, folder: Path) -> None:
    """Writes results.md, .csv, .json and .html to a folder, and robustness.csv and diagnoses.csv if
    there is something to write to them."""
    files = {"md": _markdown(found), "csv": as_csv(found.results), "html": _page(found)}
    folder.mkdir(parents=True, exist_ok=True)
    for kind, text in files.items():
        write_bytes(folder / f"results.{kind}", text.encode(errors="backslashreplace"))
    if found.robustness():
        text = robustness.as_csv(found.results)
        write_bytes(folder / "robustness.csv", text.encode(errors="backslashreplace"))
    if found.diagnoses():
        text = diagnoses.as_csv(found.results, found.scores)
        write_bytes(folder / "diagnoses.csv", text.encode(errors="backslashreplace"))
    write_json(folder / "results.json", _content(found))


def terminal(found: Findings, width: int | None = None) -> str:
    """Returns what it says, the table of the one score, and the failures, no wider than that.

    Args:
        found: the comparison.
        width: columns; None: those of the terminal.
    """
    width = width or shutil.get_terminal_size().columns
    parts = []
    if found.results:
        rows = found.table()
        parts += [_wrapped(sentence, width) for sentence in _says(found)]
        parts.append(fitted(*short_cells(rows, found.score, found.baseline), width))
        notes = [_legend(found, costs=False), *_notes(found)]
        if robust := found.robustness():
            parts.append(fitted(*robustness.short_cells(robust, found.score), width))
            notes.insert(1, robustness.BRIEF.format(baseline=found.baseline or "a baseline"))
        if diagnosed := found.diagnoses():
            parts.append(fitted(*diagnoses.short_cells(diagnosed, found.score), width))
            which = "Third" if robust else "Second"
            brief = diagnoses.BRIEF.format(which=which, score=found.score.name)
            notes[1:1] = [brief, *diagnoses.not_told(found.results)]
        parts.append("\n".join(_wrapped(note, width) for note in notes))
    else:
        parts.append(f"No run of {len(found.failures)} has finished.")
    return "\n\n".join([*parts, *_failed(found)]).strip()


def short_markdown(found: Findings) -> str:
    """Returns what it says and the table of the one score."""
    if not found.results:
        return in_markdown(repr(found))
    table = markdown(*short_cells(found.table(), found.score, found.baseline))
    return "\n\n".join([*map(in_markdown, _says(found)), table]) + "\n"


def short_html(found: Findings) -> str:
    """Returns the same as HTML, for a notebook."""
    if not found.results:
        return f"<p>{escape(printable(repr(found)))}</p>"

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(printable(c))}</{tag}>" for c in cells) + "</tr>"

    head, lines = short_cells(found.table(), found.score, found.baseline)
    body = "".join(line(cells, "td") for cells in lines)
    table = f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"
    says = "".join(f"<p>{escape(printable(sentence))}</p>" for sentence in _says(found))
    return f"{says}{table}"


def record(row: Row, scores: Sequence[Score]) -> dict[str, Any]:
    """Returns a row as numbers by name, see `Comparison.to_dataframe`."""
    first, *others = scores
    main, test = row.scores[first.name], row.test
    nan = math.nan
    p = nan if test is None or test.p is None else test.p
    tested = (nan, nan, nan) if test is None else (test.difference, test.low, test.high)
    names = "difference", "difference_low", "difference_high"
    costs = {heading.replace(" ", "_"): row.costs[heading] for heading in COSTS}
    return {
        **{"method": row.method, "kind": row.kind, "runs": row.runs},
        **{"mean": main.mean, "sd": main.sd, "low": main.low, "high": main.high},
        **dict(zip(names, tested, strict=True)),
        "p": p,
        **{name: nan if cost is None else float(cost) for name, cost in costs.items()},
        **{score.name: row.scores[score.name].mean for score in others},
        **{f"without_{name}": without.mean for name, without in row.missing.items()},
    }


def _markdown(found: Findings) -> str:
    """Returns what it says, the table of all scores, and the command."""
    table = markdown(*cells(found.table(), found.scores, found.baseline))
    notes = "".join(f"\n{in_markdown(note)}" for note in _notes(found))
    below = [in_markdown(_legend(found)) + notes]
    below += [*_robust(found), *_diagnosed(found), *_about(found)]
    below.append(f"    {printable(found.asked)}")
    says = map(in_markdown, _says(found))
    return "\n\n".join([f"# {in_markdown(_title(found))}", *says, table, *below]) + "\n"


def _robust(found: Findings) -> list[str]:
    """Returns a section on robustness, if that was asked for: a table for each curve."""
    rows = found.robustness()
    if not rows:
        return []
    parts = ["## Robustness", *map(in_markdown, _how_robust(found))]
    for title, head, lines in robustness.tables(rows, found.score, found.baseline):
        parts += [f"### {in_markdown(title)}", markdown(head, lines)]
    return parts


def _how_robust(found: Findings) -> list[str]:
    rows = found.robustness()
    return [robustness.legend(rows, found.score, found.baseline)] if rows else []


def _diagnosed(found: Findings) -> list[str]:
    """Returns a section on diagnoses, if those were asked for."""
    rows = found.diagnoses()
    if not rows:
        return []
    parts = ["## Diagnoses", *map(in_markdown, _how_diagnosed(found))]
    for title, head, lines in diagnoses.tables(rows, found.score):
        parts += [f"### {in_markdown(title)}", markdown(head, lines)]
    return parts


def _how_diagnosed(found: Findings) -> list[str]:
    """Returns what the diagnoses say of the subject, or else of the best, and how to read them."""
    rows = found.diagnoses()
    if not rows:
        return []
    fused = [row.method for row in rows if row.brought] or [rows[0].method]
    whose = found.subject if found.subject in fused else fused[0]
    says = diagnoses.sentences(rows, found.score, whose)
    return [*says, *diagnoses.legend(rows, found.score), *diagnoses.not_told(found.results)]


def _about(found: Findings) -> list[str]:
    """Returns a section on the data, if there is something to say."""
    lines = [f"- {in_markdown(sentence)}" for sentence in found.recipe.about]
    return [f"## {ABOUT}", "\n".join(lines)] if lines else []


def _page(found: Findings) -> str:
    """Returns the page, with pictures."""
    rows = found.table()
    shown = rows, found.results, found.score, found.recipe.select
    robust = found.robustness()
    made_by = "\n".join(f"{k}: {v}" for k, v in found.made_by.items() if v is not None)
    return page(
        Shown(*shown, found.baseline, found.subject, robust, found.diagnoses()),
        *cells(rows, found.scores, found.baseline),
        title=_title(found),
        headline=headline(rows, found.score, **_sides(found)),
        verdict=_says(found),
        legend=_legend(found),
        skipped=found.skipped,
        failures=found.failures,
        warned=[*_no_baseline(found), *summary(found.results)],
        about=found.recipe.about,
        robust=robustness.tables(robust, found.score, found.baseline),
        how_robust=_how_robust(found),
        sections=found.sections,
        diagnosed=diagnoses.tables(found.diagnoses(), found.score),
        how_diagnosed=_how_diagnosed(found),
        repeat=f"{found.asked}\n\n{made_by}",
    )


def _content(found: Findings) -> dict[str, Any]:
    """Returns everything but what is long, every run with its settings."""
    head, lines = cells(found.table(), found.scores, found.baseline)
    robust, diagnosed = found.robustness(), found.diagnoses()
    return {
        "title": _title(found),
        "command": found.asked,
        "made_by": found.made_by,
        "settings": found.recipe.shared_settings(),
        "about": list(found.recipe.about),
        "scores": [asdict(score) for score in found.scores] if found.results else [],
        "baseline": found.baseline,
        "test_share": found.test_share,
        "table": [dict(zip(head, line, strict=True)) for line in lines],
        "rows": [_known(record(row, found.scores)) for row in found.table()],  # the same in numbers
        "smallest_difference": smallest(found),
        **({"robustness": list(map(robustness.record, robust))} if robust else {}),
        **({"diagnoses": list(map(diagnoses.record, diagnosed))} if diagnosed else {}),
        "skipped": found.skipped,
        "failures": found.failures,
        "runs": [
            {key: value for key, value in run.items() if key not in LONG} for run in found.results
        ],
    }


def _known(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Returns them as JSON can hold them: None for what is not a number."""
    odd = {name for name, x in numbers.items() if isinstance(x, float) and not math.isfinite(x)}
    return {name: None if name in odd else x for name, x in numbers.items()}


def _says(found: Findings) -> list[str]:
    """Returns the verdict, and what it is worth."""
    said = [*verdict(found.table(), found.score, **_sides(found)), *chosen(found)]
    said += [*worth(found), *resolution(found), *advice(found)]
    return [*said, *_stopped(found)]


def _stopped(found: Findings) -> list[str]:
    return stopped(found.methods, found.results, found.score, found.doubled)


def _sides(found: Findings) -> dict[str, str | None]:
    return {"baseline": found.baseline, "subject": found.subject}


def _title(found: Findings) -> str:
    name = found.recipe.name
    return name if found.recipe.part == "test" else f"{name}, validation part"


def _notes(found: Findings) -> list[str]:
    """Returns what was not compared, and what the runs warned of."""
    reasons: dict[str, list[str]] = {}
    for name, why in found.skipped.items():
        reasons.setdefault(why, []).append(name)
    groups = [f"{', '.join(names)} ({why})" for why, names in reasons.items()]
    skipped = [f"Not compared: {'; '.join(groups)}."] if groups else []
    return [
        *skipped,
        *_no_baseline(found),
        *_not_hidden(found),
        *summary(found.results),
    ]


def _no_baseline(found: Findings) -> list[str]:
    """Returns why nothing is tested, where no method is what the others are tested against."""
    names = list(dict.fromkeys(result["method"] for result in found.results))
    if found.baseline is not None or len(names) < 2:
        return []
    return [
        f"No baseline, and so no test: {BASELINE}, the usual one, is not among the methods. Name "
        f'one of them: --baseline METHOD (in Python baseline="METHOD"), from {MIN_RUNS} runs on.'
    ]


def _not_hidden(found: Findings) -> list[str]:
    """Returns the systems that were not scored without some modality, if that was asked for."""
    if not any("missing" in result for result in found.results):
        return []
    modalities = found.recipe.modalities
    absent = {
        row.method: [name for name in modalities if name not in row.missing]
        for row in found.table()
        if row.kind == SYSTEM
    }
    told = [f"{method} without {', '.join(names)}" for method, names in absent.items() if names]
    return [f"Not scored, for the system knows no way: {'; '.join(told)}."] if told else []


def _failed(found: Findings) -> list[str]:
    """Returns the failed runs, method by method, with how the traceback of the first ends."""
    methods: dict[str, list[Mapping[str, Any]]] = {}
    for failure in found.failures:
        methods.setdefault(failure["method"], []).append(failure)
    told = []
    for method, group in methods.items():
        runs = ", ".join(str(failure["run"]) for failure in group)
        lines = printable(group[0]["error"], keep=TRACEBACK).rstrip().splitlines()
        end = "\n".join(lines[-LAST:])
        whole = "; the whole traceback is in results.html" if len(lines) > LAST else ""
        told.append(f"{printable(method)} failed in run {runs}; the first with{whole}:\n{end}")
    return told


def _legend(found: Findings, *, costs: bool = True) -> str:
    score, rows = found.score, found.table()
    way = "less" if score.lower else "more"
    text = (
        f"Scores are mean ± sd over runs, on the {found.recipe.part} part; {way} {score.name} is "
        "better, and the best mean comes first. Costs are medians over runs."
    )
    tested = [row.test for row in rows if row.test is not None]
    if tested:
        fresh = "resampling (Nadeau and Bengio, 2003) and " if found.recipe.resplit else ""
        also = ", corrected for resampling" if found.recipe.resplit else ""
        text += f" Intervals are for each comparison alone{also}."
        if any(test.p is not None for test in tested):
            text += (
                f" p: paired t-test against {found.baseline}, corrected for {fresh}the number of "
                f"comparisons (Holm, 1979), from {MIN_RUNS} runs on."
            )
    if any(row.kind == SYSTEM for row in rows):
        text += " A system has a network and a training of its own; all else is the same."
    if costs:
        text += " parameters: of the whole network."
    if costs and any(row.costs["solver steps"] is not None for row in rows):
        text += " solver steps: of a forward solve in training, the mean."
    if costs and any(row.costs["epochs spent"] is not None for row in rows):
        text += " epochs spent: on all trials of the search."
    if costs and any(row.costs["converged"] is not None for row in rows):
        text += " converged: share of all forward solves in training, rounded down."
    return text


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(printable(text), min(width, WIDEST), break_on_hyphens=False)
