"""The linear exit reads what the backbone's classifier reads."""

import pytest
import torch

from offramp.heads.linear import Linear
from offramp.types import Tap


@pytest.mark.parametrize(
    ("prefix", "summary", "read"), [(1, 1, [0]), (2, 2, [0, 1]), (5, 1, [0]), (0, 0, range(6)), (1, 0, range(1, 7))]
)
def test_reads_the_summary_and_nothing_else(prefix, summary, read):
    tap = Tap(1, 8, (2, 3), prefix, summary)
    head = Linear(tap, 3)
    tokens = torch.randn(2, tap.tokens, 8, requires_grad=True)
    head(tokens).sum().backward()
    touched = tokens.grad.abs().sum((0, 2)).nonzero()[:, 0].tolist()
    assert touched == list(read)


def test_parameters_of_the_published_comparison():
    tap = Tap(6, 768, (14, 14), 1, 1)
    assert sum(p.numel() for p in Linear(tap, 100).parameters()) == 768 * 100 + 100 + 2 * 768
