"""Checks of stored diagnoses: their form, whatever the numbers are."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...files import shown
from .calibration import BINS

MADE = {"modalities": ("sets", "strengths"), "calibration": ("calibration",)}
ERRORS = "ece", "brier", "surplus"
SCALED = "temperature", "ece_scaled", "brier_scaled"


def check_diagnoses(found: Any, modalities: Sequence[str]) -> list[tuple[str, Mapping[str, float]]]:
    """Returns where scores with sets of modalities stand, and the scores, of what a file has as the
    result of `looking.diagnosed`.

    Raises:
        ValueError: unless it has the form of such a result.
    """
    reasons = found.get("not") if isinstance(found, dict) else None
    if not isinstance(reasons, dict) or not all(isinstance(x, str) for x in reasons.values()):
        raise ValueError(f"diagnoses must say why some are not made, got {shown(reasons)}")
    expected = {"not"} | {key for name, keys in MADE.items() if name not in reasons for key in keys}
    if found.keys() != expected or reasons.keys() - MADE.keys():
        raise ValueError(f"diagnoses must be {sorted(expected)}, got {shown(sorted(found))}")
    if "calibration" in found:
        _check_calibration(found["calibration"])
    if "sets" not in found:
        return []
    _check_matrix(found["strengths"], len(modalities), len(modalities), "strengths")
    return list(_scores(found["sets"], modalities))


def _scores(sets: Any, modalities: Sequence[str]) -> Iterator[tuple[str, Mapping[str, float]]]:
    count = len(modalities)
    expected = [
        [modalities[i] for i in range(count) if chosen >> i & 1] for chosen in range(2**count)
    ]
    listed = isinstance(sets, list) and all(isinstance(each, dict) for each in sets)
    if not listed or [each.get("with") for each in sets] != expected:
        raise ValueError(f"diagnoses must have scores for each of {2**count} sets of modalities")
    for each in sets:
        yield f"scores with {shown(each['with'])}", each.get("scores")


def _check_calibration(found: Any) -> None:
    kept = found if isinstance(found, dict) else {}
    if kept.keys() not in ({"bins", *ERRORS}, {"bins", *ERRORS, *SCALED}):
        raise ValueError(f"calibration must have bins and {', '.join(ERRORS)}, got {shown(found)}")
    _check_matrix(kept["bins"], BINS, 3, "bins")
    for name in kept.keys() - {"bins"}:
        if not _finite(kept[name]):
            raise ValueError(f"{name} must be a finite number, got {shown(kept[name])}")


def _check_matrix(found: Any, lines: int, columns: int, name: str) -> None:
    rows = found if isinstance(found, list) and len(found) == lines else [None]
    if not all(isinstance(r, list) and len(r) == columns and all(map(_finite, r)) for r in rows):
        raise ValueError(f"{name} must be {lines} lists of {columns} finite numbers")


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
