"""Every task of the table reads its own outputs."""

import pytest
import torch

from offramp.registry import TASKS
from offramp.testing import check_task


@pytest.mark.parametrize("name", TASKS)
def test_task(name):
    check_task(name)


@pytest.mark.parametrize("name", ["counting", "density"])
@pytest.mark.parametrize("grid", [(4, 4), (9, 5), (2, 2)])
def test_targets_may_be_maps(name, grid):
    check_task(name, torch.rand(6, 1, *grid))
