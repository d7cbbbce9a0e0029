"""What every head of the table costs at one tap."""

from __future__ import annotations

import torch

from offramp.cost.macs import count_macs
from offramp.heads import build_head
from offramp.registry import HEADS
from offramp.types import Exit, Tap

VIT_B = Tap(after=6, dim=768, grid=(14, 14), prefix=1, summary=1)
"""Where heads are compared: ViT-B/16 at 224 px."""


def head_costs(tap: Tap = VIT_B, num_outputs: int = 100) -> dict[str, tuple[int, float]]:
    """For each head with its default options the number of parameters and the multiply-adds of one sample."""
    costs = {}
    for name in HEADS:
        head = build_head(Exit(tap.after, name), tap, num_outputs).eval()
        macs, _ = count_macs(head, torch.zeros(1, tap.tokens, tap.dim))
        costs[name] = (sum(p.numel() for p in head.parameters()), macs)
    return costs
