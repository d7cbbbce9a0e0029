"""Every objective of the table: it learns, and what it says is frozen does not move by one bit."""

import pytest

from offramp.registry import OBJECTIVES
from offramp.testing import check_objective

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective(name, tmp_path):
    check_objective(name, tmp_path)
