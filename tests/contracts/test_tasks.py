"""Every task of the table reads its own outputs."""

import pytest

from offramp.registry import TASKS
from offramp.testing import check_task


@pytest.mark.parametrize("name", TASKS)
def test_task(name):
    check_task(name)
