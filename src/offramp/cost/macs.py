"""Multiply-adds, by torch's own counter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_macs(function: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """The multiply-adds of one call, and what it returned.

    Counts matrix products, convolutions and attention; norms, activations and softmax are not counted (they are below
    one per cent in a ViT).
    """
    # attention as plain products: the counter of torch 2.11 does not know the fused one of processors
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        result = function(*args)
    return counter.get_total_flops() / 2, result
