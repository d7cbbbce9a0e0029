"""Forced exits."""

import pytest

from offramp import UsageError
from offramp.policies.forced import Forced, forced_shares


@pytest.mark.parametrize(
    ("shares", "batch", "counts"),
    [
        ((0.3, 0.2, 0.2, 0.1, 0.2), 10, [3, 2, 2, 1, 2]),
        ((0.3, 0.2, 0.2, 0.1, 0.2), 64, [19, 13, 13, 6, 13]),
        ((0.5, 0.5), 1, [1, 0]),
        ((0.0, 1.0), 3, [0, 3]),
    ],
)
def test_shares_are_met_with_whole_samples(shares, batch, counts):
    policy = forced_shares(shares, batch)
    assert [policy.exits.count(k) for k in range(len(shares))] == counts
    assert policy.heads == tuple(range(len(shares) - 1))


def test_shares_must_be_shares():
    with pytest.raises(UsageError, match=r"sum to 0\.9"):
        forced_shares((0.5, 0.4), 8)


def test_another_batch_is_refused():
    with pytest.raises(UsageError, match="fixed for 2 rows, the batch has 3"):
        Forced((0, 1), 1).init(3)
