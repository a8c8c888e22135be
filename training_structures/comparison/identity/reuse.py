"""Stored runs that are used again, and those that are made again, with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from ..methods import Method
from .identities import Identities


@dataclass
class Reuse:
    """Compares stored runs with those that would be made today.

    Attributes:
        identities: digests the data of runs.
        known: method -> what decides its runs, of `Identities.of`.
        aside: files that were renamed, because they are damaged, or of an earlier version.
        changed: in words, why runs are made again -> their methods, one for each run.
        dates: when the runs were made that are used again.
    """

    identities: Identities
    known: Mapping[str, Mapping[str, Any]]
    aside: list[Path] = field(default_factory=list)
    changed: dict[str, list[str]] = field(default_factory=dict)
    dates: list[date] = field(default_factory=list)

    def why_not(self, method: Method, run: int, was: Mapping[str, Any]) -> str | None:
        """Returns in words why a stored run of this identity is not used; None if it is.

        Its data are loaded to tell, unless its code has changed.
        """
        reason = difference(was, self.known[method.name])
        if reason is None:
            reason = data_difference(was["data"], self.identities.data(method.recipe, run))
        return reason

    def told(self, total: int) -> list[str]:
        """Returns a sentence on the runs that are used again, and one for each reason not to."""
        lines = []
        if self.dates:
            lines.append(f"{len(self.dates)} of {total} runs reused, of {_days(self.dates)}")
        for reason, methods in self.changed.items():
            names = ", ".join(dict.fromkeys(methods))
            plural = "s" if len(methods) > 1 else ""
            lines.append(f"{len(methods)} run{plural} made again ({names}): {reason}")
        return lines


def difference(was: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Returns in words why a stored run is not that of today's code; None if it is.

    One that was analysed may be used where no analysis is wanted, and so may one whose robustness
    was measured, or that was diagnosed.
    """
    for name, version in now["versions"].items():
        if was["versions"].get(name) != version:
            return f"{name} was {was['versions'].get(name)} and is {version}"
    before, after = dict(was["given"]), now["given"]
    for more in ("analyse", "robustness", "noise", "diagnose"):
        if more not in after:
            before.pop(more, None)
    changed = [name for name in {**after, **before} if before.get(name) != after.get(name)]
    if not changed:
        return None
    there = set(was["files"].values())
    files = [file for file, digest in now["files"].items() if digest not in there]
    if files:
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        return f"code of {', '.join(files[:3])}{more} changed"
    return f"{', '.join(changed)} changed"


def data_difference(was: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """Returns in words which data have changed; None if none have."""
    changed = [part for part in now if was.get(part) != now[part]]
    return f"{' and '.join(changed)} data changed" if changed else None


def _days(dates: list[date]) -> str:
    first, last = min(dates), max(dates)
    shown = [f"{day.day} {day:%B}" for day in (first, last)]
    if first.year != date.today().year:
        shown = [f"{text} {day.year}" for text, day in zip(shown, (first, last), strict=True)]
    return shown[0] if first == last else f"{shown[0]} to {shown[1]}"
