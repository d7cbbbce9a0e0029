"""MLP-EE."""

import torch

from offramp.heads.mlp import MLP
from offramp.types import Tap

TAP = Tap(6, 768, (14, 14), 1, 1)


def test_hidden_widths_are_arguments():
    head = MLP(TAP, 7, hidden=(384,))
    assert head.classifier[0].out_features == 384
    linear = MLP(TAP, 7, hidden=())
    assert isinstance(linear.classifier, torch.nn.Linear)
    assert linear(torch.randn(2, 197, 768)).shape == (2, 7)
