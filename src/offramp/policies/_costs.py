"""What leaving costs, where only some of the heads run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from offramp.policies._policy import Policy
from offramp.policies.routed import Routed
from offramp.search import Columns
from offramp.types import ChainCosts, Trace


def spent(policy: Policy, trace: Trace, costs: ChainCosts) -> Tensor:
    """What each sample of a trace cost, float64 ``(samples,)``, the router included where the policy asks it."""
    routed = isinstance(policy, Routed)
    to_exit = [costs.to_exit(policy.heads, entry, routed) for entry in range(costs.chain.num_paths)]
    return torch.tensor(to_exit, dtype=torch.float64)[trace.entry.cpu(), trace.exit.cpu()]


def cost_to_exit(columns: Columns, heads: Sequence[int]) -> list[float]:
    """The cost of leaving at each exit that is asked, the final exit last."""
    costs = columns.costs.to_exit(heads)
    return [costs[k] for k in (*heads, len(columns.heads))]


def only(columns: Columns, heads: Sequence[int]) -> Columns:
    """The columns of a model that has only some of the early exits."""
    rows = [*heads, len(columns.quality) - 1]
    return replace(
        columns, scores=columns.scores[list(heads)], quality=columns.quality[rows], costs=columns.costs.only(heads)
    )
