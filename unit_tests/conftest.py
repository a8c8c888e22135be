"""What every test shares: one thread, a fixed seed, and float64 for those that ask for it."""

import pytest
import torch

torch.set_num_threads(1)  # on tiny tensors threads only wait for each other


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
