"""Thresholds for policies that answer otherwise than their heads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from offramp.search import Columns, Seen, frontier
from offramp.tasks import direction
from offramp.types import Evidence

if TYPE_CHECKING:
    from offramp.policies._policy import Policy

_PRICES = 60


def searched(policy: Policy, seen: Seen) -> Iterable[tuple[float, ...]]:
    """Thresholds for a policy's own answers, from the frontier on the half of the table that it is chosen on.

    Args:
        policy: which answers at each of its exits, whatever its thresholds.
        seen: the table.
    """
    for point in frontier(_answered(policy, seen), _PRICES):
        yield tuple(1.0 if t is None else t for t in point.thresholds)


def _answered(policy: Policy, seen: Seen) -> Columns:
    """What the search reads: scores and quality of these answers, all heads on."""
    table, task, columns = seen.chosen, seen.task, seen.columns(seen.chosen)
    way = direction(task)
    state, previous, scores, quality = policy.init(len(table)), None, [], []
    for k in policy.heads:
        output = table.of(k)
        decision = policy.step(state, Evidence(k, output, columns.scores[k], task))
        state, together = decision.state, output if decision.output is None else decision.output
        scores.append(task.score(policy.score, together, previous).double())
        previous = together
        quality.append(way * task.quality(together, table.targets).double())
    return replace(columns, scores=torch.stack(scores), quality=torch.stack([*quality, columns.quality[-1]]))
