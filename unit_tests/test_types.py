"""Types: the plugin has no error, and the rest no more of them than it had.

Whoever makes them fewer lowers `MOST`; `python -m mypy FOLDER` lists them.
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REST = (
    "datasets",
    "eval_scripts",
    "fusions",
    "objective_functions",
    "package/deq_fusion",
    "private_test_scripts",
    "training_structures",
    "unimodals",
    "utils",
)
MOST = 244


def errors(*paths):
    """The lines of mypy's errors in these paths, by default in those of pyproject.toml."""
    command = [sys.executable, "-m", "mypy", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1) and not done.stderr, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if re.search(r":\d+: error: ", line)]


def test_the_plugin_has_no_error():
    assert errors() == []


@pytest.mark.slow
def test_the_rest_has_no_more_errors_than_it_had():
    found = errors(*REST)
    files = Counter(line.partition(":")[0] for line in found)
    assert len(found) <= MOST, "\n".join(f"{n:4} {file}" for file, n in sorted(files.items()))
