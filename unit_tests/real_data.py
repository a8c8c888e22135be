"""The real data sets, for the tests that read some: they lie in no repository."""

import os
from pathlib import Path

import pytest

VARIABLE = "DEQ_FUSION_DATA"


def real(name: str) -> Path:
    """The file or folder `name` below DEQ_FUSION_DATA; where there is none, the test is skipped."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"needs real data: set {VARIABLE} to the folder that holds {name}")
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"needs real data: {VARIABLE} must name a folder with {name}, got {folder}")
    return path
