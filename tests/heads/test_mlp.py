"""MLP-EE."""

import torch

from offramp.heads.mlp import MLP
from offramp.types import Tap

TAP = Tap(6, 768, (14, 14), 1, 1)


def test_parameters_of_the_published_comparison():
    count = sum(p.numel() for p in MLP(TAP, 100, norm=False).parameters())
    assert count == 768 * 3072 + 3072 + 3072 * 768 + 768 + 76_900  # 4.80 M


def test_hidden_widths_are_arguments():
    head = MLP(TAP, 7, hidden=(0.5,))
    assert head.hidden[0].out_features == 384
    assert MLP(TAP, 7, hidden=())(torch.randn(2, 197, 768)).shape == (2, 7)
