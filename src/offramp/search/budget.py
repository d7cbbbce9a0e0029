"""Budgeted batch: so many leave at each exit that the mean cost meets a budget (MSDNet, 1703.09844)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from offramp.errors import GoalError
from offramp.search.columns import Columns
from offramp.search.cuts import midway


def exit_distribution(columns: Columns, budget: float) -> tuple[float, ...]:
    """The share of samples for each exit, the final exit last, proportional to q^k, whose mean cost is the budget.

    The paper sweeps q; here it is found by bisection, mean cost rising with q. All heads run.

    Args:
        columns: what calibration reads.
        budget: mean cost of a sample, in the unit of the columns.

    Raises:
        GoalError: a budget below the first exit's cost, or above that of the final exit with all heads before it.
    """
    costs = np.cumsum([s + h for s, h in zip(columns.segments, (*columns.heads, 0.0), strict=True)])
    low, high = -20.0, 20.0  # of log q

    def shares(log_q: float) -> np.ndarray:
        logs = np.arange(len(costs)) * log_q
        powers = np.exp(logs - logs.max())
        return powers / powers.sum()

    if not costs[0] <= budget <= costs[-1]:
        raise GoalError(f"a mean cost of {budget:g} is out of reach: exits cost from {costs[0]:g} to {costs[-1]:g}")
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if shares(middle) @ costs < budget else (low, middle)
    return tuple(shares((low + high) / 2).tolist())


def quota_thresholds(scores: Tensor, shares: tuple[float, ...]) -> tuple[float | None, ...]:
    """Thresholds at which each exit lets its share go: among who is still inside, the surest.

    Args:
        scores: of each early exit, ``(exits, samples)``.
        shares: of all samples, for each exit, the final exit last.
    """
    samples = scores.shape[1]
    inside = torch.ones(samples, dtype=torch.bool)
    thresholds: list[float | None] = []
    for row, share in zip(scores, shares, strict=False):
        ranked = row[inside].sort(descending=True).values
        count = min(round(share * samples), len(ranked))
        if count == 0:
            thresholds.append(None)
            continue
        threshold = 0.0 if count == len(ranked) else float(midway(ranked[count], ranked[count - 1]))
        thresholds.append(threshold)
        inside &= row < threshold
    return tuple(thresholds)
