"""Every weighting of the table."""

import pytest

from offramp.registry import WEIGHTINGS


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("after", [(12,), (6, 12), (4, 5, 6, 7, 8, 9, 10, 11, 12)])
def test_weights_are_positive_and_sum_to_one(name, after):
    weights = WEIGHTINGS.resolve(name)(after)
    assert len(weights) == len(after)
    assert min(weights) > 0
    assert sum(weights) == pytest.approx(1)
