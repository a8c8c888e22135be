"""What every test shares: one thread, a fixed seed, and float64 for those that ask for it."""

import gc
import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read by the imports

import pytest
import torch

ROOT = Path(__file__).parents[1]
CODE = "deq_fusion.training_structures.comparison.identity.code"

torch.set_num_threads(1)  # on tiny data threads only wait for each other


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # thousands of tests are no garbage, and need not be looked through again
    if CODE in sys.modules:
        read_own_code_once(sys.modules[CODE].Code)


def read_own_code_once(code):
    """Files of this project do not change under its tests: not every comparison reads them anew."""
    read, known = code._read, {}

    def remembered(self, module, name):
        if not module.path.is_relative_to(ROOT):
            return read(self, module, name)
        key = module.path, name
        if key not in known:
            known[key] = read(self, module, name)
        return known[key]

    code._read = remembered
