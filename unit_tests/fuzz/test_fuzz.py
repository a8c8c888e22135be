"""Damaged files are read as an independent reader reads them, or refused by a clear error."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

if not hasattr(os, "fork"):
    pytest.skip(
        "the fuzzer reads in forks, which this system does not have", allow_module_level=True
    )

from .judge import Fuzzed
from .planted import FAULTS

ROOT = Path(__file__).resolve().parents[2]
NUMBER = 2000


def run(module, *args):
    command = [sys.executable, "-m", f"unit_tests.{module}", *args]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.stdout, found.stderr
    return json.loads(found.stdout)


@pytest.fixture(scope="module")
def fuzzed():
    return run("fuzz", "--number", str(NUMBER), "--json", "--quiet")


@pytest.mark.slow
def test_no_damaged_file_is_misread_or_does_harm(fuzzed):
    found = fuzzed["findings"]
    lines = [
        f"{f['format']} {f['index']} {f['kind']} {f['mutation']}: {f['detail']}" for f in found
    ]
    assert not found, "\n".join([f"{len(found)} findings", *lines[:5]])


@pytest.mark.slow
def test_every_format_is_damaged_and_not_all_of_it_is_refused(fuzzed):
    from .all_formats import FORMATS  # which takes its time

    table = fuzzed["table"]
    assert set(table) == set(FORMATS) and len(FORMATS) >= 20
    for name, counts in table.items():
        assert sum(counts.values()) >= NUMBER // len(FORMATS), name
        assert counts["refused"] + counts.get("warned", 0) > 10, name


@pytest.mark.slow
def test_every_planted_fault_is_seen():
    assert run("fuzz.planted") == {name: kind for name, (kind, _) in FAULTS.items()}


def test_the_same_seed_damages_alike():
    from .all_formats import FORMATS  # which takes its time

    for shape in FORMATS.values():
        one, again = Fuzzed(shape), shape.files()
        assert one.files == again, shape.name
        damaged = [one.mutated(index) for index in range(5)]
        assert damaged == [one.mutated(index) for index in range(5)]
        one.seed = 1
        assert damaged != [one.mutated(index) for index in range(5)]
