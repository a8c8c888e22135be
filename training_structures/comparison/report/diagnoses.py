"""Diagnoses over runs: what modalities bring, their interaction, calibration; tables, numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..diagnoses.calibration import BINS
from ..diagnoses.checks import ERRORS, SCALED
from ..diagnoses.shapley import intershap, shapley
from ..methods import FLOOR
from ..paired import Estimate, estimate
from ..recipe import Score
from .table import Result, number
from .text import csv_text

BROUGHT = (
    "What modalities bring: the Shapley value of each on {score}, its share of what all of them "
    "add to it, fair over all orders in which they may come{flipped}. Absent is a modality as the "
    "fusion knows absence, else with its features at their mean over the training part. "
    "Interaction (InterSHAP, Wenderoth et al., 2024): the share of what moves the outputs that two "
    "modalities do together; 0 % of a model that adds them up, 100 % where none works alone. For "
    "it every fusion meets the means. In brackets are 95 % intervals over the runs, for each "
    "number alone."
)
CALIBRATED = (
    "Calibration: whether a model is as sure as it is right. Too sure by: its mean confidence less "
    "its accuracy. ECE: the mean distance of the two, over {bins} bins of confidence (Guo et al., "
    "2017). Brier: the squared error of the probabilities, summed over the classes. Temperature: "
    "what its logits are to be divided by, fitted on the validation part; above 1 it is too sure, "
    "below 1 not sure enough."
)
BRIEF = (
    "{which} table: what each modality adds to {score} (Shapley values), the share of the outputs "
    "that is interaction (InterSHAP), and the calibration error (ECE). More of it is in results.md."
)
FLOORS = "is a floor, fitted without a network"
WORDS = {"modalities": "what modalities bring and interaction", "calibration": "calibration"}


@dataclass(frozen=True)
class Diagnosed:
    """A method's diagnoses over its runs; what could not be told is empty, or None.

    Attributes:
        method: its name.
        nothing: the score without any modality.
        whole: the score with all of them.
        brought: modality -> by how much it makes the score better, its Shapley value.
        interaction: InterSHAP.
        pairs: "a and b" -> mean absolute interaction of the outputs.
        calibration: "ece", "brier", "surplus" (mean confidence minus accuracy), and where they
            were fitted "temperature", "ece_scaled" and "brier_scaled".
        bins: (bins, 3) samples of all runs, their mean confidence and their accuracy.
    """

    method: str
    nothing: Estimate | None
    whole: Estimate | None
    brought: dict[str, Estimate]
    interaction: Estimate | None
    pairs: dict[str, Estimate]
    calibration: dict[str, Estimate]
    bins: np.ndarray | None


def diagnosed_rows(
    results: Sequence[Result],
    score: Score,
    order: Sequence[str],
    *,
    test_share: float | None = None,
) -> list[Diagnosed]:
    """Returns a row for each method that was diagnosed.

    Args:
        results: of a `Comparison`; those without diagnoses are left out.
        score: what modalities bring something to.
        order: of the methods.
        test_share: see `compare_paired`.
    """
    rows = []
    for method in order:
        runs = [r["diagnoses"] for r in results if r["method"] == method and "diagnoses" in r]
        if runs:
            rows.append(_row(method, runs, score, test_share))
    return rows


def _row(
    method: str, runs: Sequence[Mapping[str, Any]], score: Score, test_share: float | None
) -> Diagnosed:
    by_sets = [run for run in runs if "sets" in run]
    calibrated = [run["calibration"] for run in runs if "calibration" in run]

    def over_runs(values: Sequence[float]) -> Estimate:
        return estimate(values, test_share=test_share)

    values = [_values(run, score) for run in by_sets]
    names = by_sets[0]["sets"][-1]["with"] if by_sets else []
    shares = [brought(each, score) for each in values]
    matrices = [np.array(run["strengths"]) for run in by_sets]
    kept = [name for name in (*ERRORS, *SCALED) if calibrated and name in calibrated[0]]
    return Diagnosed(
        method,
        nothing=over_runs([v[0] for v in values]) if values else None,
        whole=over_runs([v[-1] for v in values]) if values else None,
        brought={m: over_runs([share[i] for share in shares]) for i, m in enumerate(names)},
        interaction=over_runs(list(map(intershap, matrices))) if matrices else None,
        pairs={
            f"{names[i]} and {names[j]}": over_runs([m[i, j] for m in matrices])
            for i in range(len(names))
            for j in range(i + 1, len(names))
        },
        calibration={name: over_runs([each[name] for each in calibrated]) for name in kept},
        bins=pooled([np.array(each["bins"]) for each in calibrated]) if calibrated else None,
    )


def _values(run: Mapping[str, Any], score: Score) -> np.ndarray:
    return np.array([each["scores"][score.name] for each in run["sets"]])


def brought(values: np.ndarray, score: Score) -> np.ndarray:
    """Returns by how much each modality makes the score better: of one of which less is better,
    by how much less there is.

    Args:
        values: (2^M,) the score with every set of modalities.
        score: which it is.
    """
    return shapley(values) * (-1 if score.lower else 1)


def pooled(bins: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the bins of all runs' samples together, see `calibration.reliability`."""
    stacked = np.stack(bins)
    samples = stacked[..., 0].sum(axis=0)
    sums = (stacked[..., :1] * stacked[..., 1:]).sum(axis=0)
    return np.column_stack([samples, sums / np.maximum(samples, 1)[:, None]])


def legend(rows: Sequence[Diagnosed], score: Score) -> list[str]:
    """Returns how to read the tables."""
    flipped = " (positive: it makes it less, which is better)" if score.lower else ""
    said = []
    if any(row.brought for row in rows):
        said.append(BROUGHT.format(score=score.name, flipped=flipped))
    if any(row.calibration for row in rows):
        said.append(CALIBRATED.format(bins=BINS))
    return said


def sentences(rows: Sequence[Diagnosed], score: Score, method: str) -> list[str]:
    """Returns a method's diagnoses in plain words; nothing of one that has none."""
    row = next((row for row in rows if row.method == method), None)
    said, unit = [], " points" if score.percent else ""
    if row is not None and row.brought and row.interaction is not None:
        most = sorted(row.brought.items(), key=lambda item: -item[1].mean)
        parts = [f"{name} {number(value.mean, score, sign=True)}" for name, value in most]
        said.append(
            f"{method} owes its {score.name} to its modalities in these parts: {', '.join(parts)}"
            f"{unit}. {_percent(row.interaction.mean)} % of what moves its outputs is interaction "
            "of two modalities."
        )
    if row is not None and row.calibration:
        surplus = row.calibration["surplus"]
        word = "too sure" if surplus.mean > 0 else "not sure enough"
        certain = math.isnan(surplus.low) or surplus.low <= 0 <= surplus.high
        doubt = ", which may be chance" if certain else ""
        said.append(
            f"{method} is {word} by {_percent(abs(surplus.mean))} points in the mean{doubt}; its "
            f"calibration error (ECE) is {_percent(row.calibration['ece'].mean)} %."
        )
    return said


def not_told(results: Sequence[Result]) -> list[str]:
    """Returns what could not be diagnosed, of which methods, and why: a sentence."""
    if not any("diagnoses" in result for result in results):
        return []
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for result in results:
        for what, why in result.get("diagnoses", {}).get("not", {}).items():
            reasons.setdefault((WORDS[what], why), {})[result["method"]] = None
        if result.get("kind") == FLOOR:
            reasons.setdefault(("anything", FLOORS), {})[result["method"]] = None
    parts = [
        f"{what} of {', '.join(names)}, {'each of ' * (len(names) > 1)}which {why}"
        for (what, why), names in reasons.items()
    ]
    return [f"Not told: {'; '.join(parts)}."] if parts else []


def tables(rows: Sequence[Diagnosed], score: Score) -> list[tuple[str, list[str], list[list[str]]]]:
    """Returns title, heading and lines of the tables, as text."""
    found = []
    if any(row.brought for row in rows):
        found.append((f"What each modality brings to {score.name}", *_brought_cells(rows, score)))
    if any(row.calibration for row in rows):
        found.append(("Calibration", *_calibration_cells(rows)))
    return found


def _brought_cells(rows: Sequence[Diagnosed], score: Score) -> tuple[list[str], list[list[str]]]:
    told = [row for row in rows if row.brought and row.nothing and row.whole and row.interaction]
    names = max((list(row.brought) for row in told), key=len)
    unit = " %" if score.percent else ""
    head = ["method", f"without any{unit}", *(f"{name} [95 %]" for name in names)]
    lines = []
    for row in told:
        assert row.nothing and row.whole and row.interaction
        line = [row.method, number(row.nothing.mean, score)]
        line += [_bracketed(row.brought.get(name), score) for name in names]
        line += [number(row.whole.mean, score), _percent_bracketed(row.interaction)]
        lines.append(line)
    return [*head, f"with all{unit}", "interaction % [95 %]"], lines


def _calibration_cells(rows: Sequence[Diagnosed]) -> tuple[list[str], list[list[str]]]:
    head = ["method", "too sure by, points [95 %]", "ECE % [95 %]", "Brier", "temperature"]
    head += ["ECE % at it", "Brier at it"]
    lines = []
    for row in rows:
        found = row.calibration
        if not found:
            continue
        line = [row.method, _percent_bracketed(found["surplus"], sign=True)]
        line += [_percent_bracketed(found["ece"]), f"{found['brier'].mean:.3f}"]
        if "temperature" in found:
            line += [f"{found['temperature'].mean:.2f}", _percent(found["ece_scaled"].mean)]
            line += [f"{found['brier_scaled'].mean:.3f}"]
        lines.append(line + [""] * (len(head) - len(line)))
    kept = [i for i in range(len(head)) if any(line[i] for line in lines)]
    return [head[i] for i in kept], [[line[i] for i in kept] for line in lines]


def short_cells(rows: Sequence[Diagnosed], score: Score) -> tuple[list[str], list[list[str]]]:
    """Returns a table for a terminal: what modalities bring, interaction, calibration error."""
    names = max((list(row.brought) for row in rows), key=len)
    head = ["method", *(f"from {name}" for name in names), "interaction %", "ECE %"]
    lines = []
    for row in rows:
        line = [row.method]
        for name in names:
            value = row.brought.get(name)
            line.append("" if value is None else number(value.mean, score, sign=True))
        line.append("" if row.interaction is None else _percent(row.interaction.mean))
        line.append(_percent(row.calibration["ece"].mean) if row.calibration else "")
        lines.append(line)
    kept = [i for i in range(len(head)) if any(line[i] for line in lines)]
    return [head[i] for i in kept], [[line[i] for i in kept] for line in lines]


def _bracketed(value: Estimate | None, score: Score) -> str:
    if value is None:
        return ""
    text = number(value.mean, score, sign=True)
    ends = (number(end, score, sign=True) for end in (value.low, value.high))
    return text if math.isnan(value.low) else f"{text} [{', '.join(ends)}]"


def _percent_bracketed(value: Estimate, *, sign: bool = False) -> str:
    text = _percent(value.mean, sign=sign)
    ends = (_percent(end, sign=sign) for end in (value.low, value.high))
    return text if math.isnan(value.low) else f"{text} [{', '.join(ends)}]"


def _percent(share: float, *, sign: bool = False) -> str:
    return f"{100 * share:{'+' if sign else ''}.1f}"


def record(row: Diagnosed) -> dict[str, Any]:
    """Returns a row as what JSON can hold, None for what is not a number."""

    def known(value: Estimate | None) -> dict[str, float | None] | None:
        if value is None:
            return None
        return {k: x if math.isfinite(x) else None for k, x in vars(value).items()}

    def each(values: Mapping[str, Estimate]) -> dict[str, Any]:
        return {name: known(value) for name, value in values.items()}

    told: dict[str, Any] = {"method": row.method}
    if row.brought:
        told |= {"without_any": known(row.nothing), "with_all": known(row.whole)}
        told |= {"brought": each(row.brought), "interaction": known(row.interaction)}
        told["interaction_of_outputs"] = each(row.pairs)
    if row.bins is not None:
        told |= {"calibration": each(row.calibration), "reliability": row.bins.tolist()}
    return told


def as_csv(results: Sequence[Result], scores: Sequence[Score]) -> str:
    """Returns every number of every run's diagnoses as a line of CSV: method, run, kind, of, score,
    value. Of kind "brought" is a Shapley value that is positive where it makes the score better."""
    lines = [
        [result["method"], result["run"], *line]
        for result in results
        if "diagnoses" in result
        for line in _lines(result["diagnoses"], scores)
    ]
    return csv_text(["method", "run", "kind", "of", "score", "value"], lines)


def _lines(found: Mapping[str, Any], scores: Sequence[Score]) -> list[list[Any]]:
    """Returns (kind, of, score, value) of one run."""
    lines: list[list[Any]] = []
    if "sets" in found:
        names = found["sets"][-1]["with"]
        for score in scores:
            values = _values(found, score)
            whose = [", ".join(each["with"]) or "none" for each in found["sets"]]
            lines += [["score with", *pair] for pair in _named(whose, score, values)]
            shares = brought(values, score)
            lines += [["brought", *pair] for pair in _named(names, score, shares)]
        matrix = np.array(found["strengths"])
        lines.append(["interaction", "InterSHAP", "", intershap(matrix)])
        for i, j in zip(*np.triu_indices(len(names)), strict=True):
            of = names[i] if i == j else f"{names[i]} and {names[j]}"
            lines.append(["main effect" if i == j else "interaction", of, "", matrix[i, j]])
    for name, value in found.get("calibration", {}).items():
        if name != "bins":
            lines.append(["calibration", name, "", value])
            continue
        for number_, row in enumerate(value):
            where = f"{number_ / BINS:.3f} to {(number_ + 1) / BINS:.3f}"
            whats = "samples", "confidence", "accuracy"
            lines += [["reliability", where, w, x] for w, x in zip(whats, row, strict=True)]
    return lines


def _named(names: Sequence[str], score: Score, values: np.ndarray) -> list[list[Any]]:
    return [[name, score.name, float(x)] for name, x in zip(names, values, strict=True)]
