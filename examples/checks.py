"""Checks of the arguments that several recipes have."""

from math import inf
from pathlib import Path


def own_split(data_dir: str | Path | None, official: bool, what: str) -> Path:
    """Returns the folder of data whose own split is the only one.

    Args:
        data_dir: as a recipe was given it.
        official: likewise.
        what: what the folder holds, for the message.

    Raises:
        ValueError: without a folder, or if an official split is asked for.
    """
    if data_dir is None:
        raise ValueError(f"data_dir (--data-dir) must name the folder of {what}")
    if official:
        raise ValueError("the data's own split is the only one: leave out official (--official)")
    return Path(data_dir)


def check_positive(**settings: float | None) -> None:
    """Raises ValueError for a setting that is given and not positive and finite."""
    for name, value in settings.items():
        if value is not None and not 0 < value < inf:
            raise ValueError(
                f"{name} must be positive and finite, or left out for its default, got {value}"
            )
