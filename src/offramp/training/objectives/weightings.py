"""Weightings: how much the loss of each exit counts; the weights sum to 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

Weighting = Callable[[Sequence[int]], list[float]]
"""From the block that each exit reads, the final exit (the depth) last, to a weight for each."""


def uniform(after: Sequence[int]) -> list[float]:
    """Every exit counts the same."""
    return _normalised([1.0] * len(after))


def depth(after: Sequence[int]) -> list[float]:
    """An exit counts as much as the blocks it has seen (the weights of LGViT's stage 1, 2308.00255)."""
    return _normalised([float(block) for block in after])


def final_doubled(after: Sequence[int]) -> list[float]:
    """The final exit counts twice as much as any other (2106.15183)."""
    return _normalised([*([1.0] * (len(after) - 1)), 2.0])


def _normalised(weights: list[float]) -> list[float]:
    return [w / sum(weights) for w in weights]


def weighted(losses: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum of the losses of all exits."""
    return sum((w * loss for w, loss in zip(weights, losses, strict=True)), start=losses[0].new_zeros(()))
