"""Where to cut a row of scores in two."""

from __future__ import annotations

import torch
from torch import Tensor

_CUTS = 256


def midway(low: Tensor, high: Tensor) -> Tensor:
    """Thresholds between scores, as float32 holds them; scores that are neighbours there have none and get ``low``.

    Policies compare scores and thresholds in float32, and so does an exported file. A threshold in float64 could fall
    on a score there.
    """
    middle = ((low + high) / 2).float().to(low.dtype)
    return torch.where((low < middle) & (middle < high), middle, low)


def best_cut(scores: Tensor, gain: Tensor, order: Tensor, everybody: float = 0.0) -> tuple[float, float]:
    """The threshold at which the sum of the gains of who reaches it is largest, and that sum.

    Args:
        scores: ``(samples,)``.
        gain: of each sample that reaches the threshold, ``(samples,)``.
        order: the samples, the highest score first.
        everybody: a threshold that everybody reaches.
    """
    sums = gain[order].cumsum(0)
    ranked = scores[order]
    n = len(order)
    ends = torch.linspace(1, n, min(_CUTS, n)).long() - 1
    below = ranked[(ends + 1).clamp(max=n - 1)]
    cuts = torch.where(ends == n - 1, everybody, midway(below, ranked[ends]))
    free = (ends == n - 1) | (cuts > below)  # a cut between equal scores is none
    ends, cuts = ends[free], cuts[free]
    if len(ends) == 0:
        return 1.0, 0.0
    best = int(sums[ends].max(0).indices)
    return float(cuts[best]), float(sums[ends[best]])
