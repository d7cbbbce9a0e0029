"""What all tests stand on."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny tensors: more threads only wait for each other."""
    torch.set_num_threads(1)
