"""Checks of the result of a run, made before it is stored, and after it is read."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeGuard

from ..files import shown
from .diagnoses.checks import check_diagnoses
from .methods import SYSTEM, Method
from .robustness import check_curves

COUNTS = "parameters", "fusion_parameters", "epochs", "best_epoch"


def check_result(result: Mapping[str, Any], method: Method, run: int) -> None:
    """Raises ValueError unless it is a result of this method's run, of the right types, and its
    scores are in their ranges: finite, and NaN only where a score may be undefined."""
    whose = result.get("method"), result.get("run")
    if whose != (method.name, run) or type(whose[1]) is not int:
        raise ValueError(
            f"it must be of {method.name}, run {run}, but is of {shown(whose[0])}, run "
            f"{shown(whose[1])}"
        )
    known = {score.name: score for score in method.recipe.scores}
    for where, scores in _all_scores(result, method):
        if not isinstance(scores, dict) or not scores:
            raise ValueError(f"{where} must be numbers by name, got {shown(scores)}")
        for name, value in scores.items():
            sound = _is_number(value) and not math.isinf(value)
            if not sound or (name in known and not known[name].accepts(value)):
                bounds = known[name].range if name in known else "a finite number"
                raise ValueError(f"{where}: {shown(name)} must be {bounds}, got {shown(value)}")
    seconds = result.get("seconds")
    if not _is_number(seconds) or not 0 <= seconds < math.inf:
        raise ValueError(f"seconds must be a number of at least 0, got {shown(seconds)}")
    for name in (name for name in (*COUNTS, "epochs_spent") if name in result):
        if type(result[name]) is not int or not 0 <= result[name] < 2**63:
            raise ValueError(f"{name} must be a whole number, got {shown(result[name])}")
    for name in (name for name in result if name.startswith("solver_")):
        if not _is_number(result[name]):
            raise ValueError(f"{shown(name)} must be a number, got {shown(result[name])}")
    if method.fusion is not None:
        _check_training(result)


def check_origin(result: Mapping[str, Any]) -> None:
    """Raises ValueError unless it tells what was asked for, what decided it, and its date."""
    identity = result.get("identity")
    told = {"settings": result.get("settings")}
    for name in ("versions", "given", "files", "data"):
        told[f"identity's {name}"] = identity.get(name) if isinstance(identity, dict) else None
    for name, texts in told.items():
        if not isinstance(texts, dict) or not all(isinstance(x, str) for x in texts.values()):
            raise ValueError(f"{name} must be texts by name, got {shown(texts)}")
    try:
        date.fromisoformat(result.get("date"))
    except (TypeError, ValueError):
        raise ValueError(
            f"date must be a day, as 2026-01-31, got {shown(result.get('date'))}"
        ) from None


def check_alike(results: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Raises ValueError unless all results have the same scores, and all of a method tell the
    same of its solver: what else would a table have in its columns?"""
    names = {id(r): tuple(sorted(r["scores"])) for r in results}
    solver = {id(r): tuple(sorted(k for k in r if k.startswith("solver_"))) for r in results}
    for result in results:
        own = [r for r in results if r["method"] == result["method"]]
        for told, group in ((names, results), (solver, own)):
            usual = Counter(told[id(r)] for r in group).most_common(1)[0][0]
            if told[id(result)] != usual:
                raise ValueError(
                    "all runs must tell the same, and NaN where something is undefined, but "
                    f"{result['method']}, run {result['run']}, has {shown(told[id(result)])} where "
                    f"others have {shown(usual)}; see to the metrics, or delete that run's file "
                    f"in {folder}"
                )


def _all_scores(result: Mapping[str, Any], method: Method) -> list[tuple[str, Any]]:
    """Returns where scores stand, and what stands there."""
    modalities = method.recipe.modalities
    settings = result.get("settings")
    asked = isinstance(settings, dict) and settings.get("drop_modality") == "True"
    expected = set(modalities) if asked and len(modalities) > 1 else set()
    missing = result.get("missing", {})
    if isinstance(missing, dict) and method.kind == SYSTEM:
        expected &= missing.keys()  # it may know no way to do without one
    if not isinstance(missing, dict) or missing.keys() != expected:
        raise ValueError(f"missing must be scores for each of {sorted(expected)}")
    whole = result.get("scores")
    named = [scores for scores in missing.values() if isinstance(scores, dict)]
    if isinstance(whole, dict) and any(scores.keys() != whole.keys() for scores in named):
        raise ValueError("missing must have the same scores for each modality")
    without = [(f"scores without {shown(name)}", scores) for name, scores in missing.items()]
    more = [*_robust_scores(result, method), *_diagnosed_scores(result, method)]
    return [("scores", whole), *without, *more]


def _diagnosed_scores(result: Mapping[str, Any], method: Method) -> list[tuple[str, Any]]:
    """Returns where scores with sets of modalities stand, and what stands there."""
    settings = result.get("settings")
    asked = isinstance(settings, dict) and "diagnose" in settings
    if asked != ("diagnoses" in result):
        raise ValueError("diagnoses must be there where they were asked for, and only there")
    if not asked:
        return []
    found = check_diagnoses(result["diagnoses"], method.recipe.modalities)
    whole = result.get("scores")
    names = whole.keys() if isinstance(whole, dict) else None
    if any(not isinstance(scores, dict) or scores.keys() != names for _, scores in found):
        raise ValueError("diagnoses must have the same scores with every set of modalities")
    return found


def _robust_scores(result: Mapping[str, Any], method: Method) -> list[tuple[str, Any]]:
    """Returns where scores of robustness stand, level by level, and what stands there."""
    settings = result.get("settings")
    asked = isinstance(settings, dict) and "robustness" in settings
    if asked != ("robustness" in result):
        raise ValueError("robustness must be there where it was asked for, and only there")
    if not asked:
        return []
    found, whole = result["robustness"], result.get("scores")
    levels, curves = check_curves(found, method.recipe.modalities)
    if isinstance(whole, dict) and any(curve.keys() != whole.keys() for curve in curves.values()):
        raise ValueError("robustness must have the same scores at every level as there are clean")
    return [
        (f"scores of {where} at {level}", {name: curve[name][i] for name in curve})
        for where, curve in curves.items()
        for i, level in enumerate(levels)
    ]


def _check_training(result: Mapping[str, Any]) -> None:
    absent = [name for name in COUNTS if name not in result]
    if absent:
        raise ValueError(f"it must tell {', '.join(absent)}")
    curve = result.get("curve")
    if not isinstance(curve, list) or len(curve) != result["epochs"]:
        raise ValueError(f"curve must have a record for each of {result['epochs']} epochs")
    if not all(isinstance(e, dict) and all(map(_is_number, e.values())) for e in curve):
        raise ValueError("curve must have numbers by name for each epoch")
    if not 1 <= result["best_epoch"] <= result["epochs"]:
        raise ValueError(f"best_epoch must be one of them, got {result['best_epoch']}")


def _is_number(value: Any) -> TypeGuard[float]:
    """Says whether a float can hold it: Python's own integers have no end."""
    return type(value) is float or (type(value) is int and value.bit_length() < 64)
