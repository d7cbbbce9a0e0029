"""What a policy is worth on the samples that chose it, with intervals."""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
from torch import Tensor

from offramp.policies import Policy, spent
from offramp.tasks import Task
from offramp.types import CostTable, ExitTable, Trace

_NORMAL_95 = 1.959964


def expected(policy: Policy, trace: Trace, table: ExitTable, costs: CostTable, task: Task, unit: str) -> dict[str, Any]:
    """Metric, speed-up and exit shares of a policy on a table, as JSON values.

    ``intervals`` are 95 % intervals of the mean over samples like these (normal approximation), for the metric, its
    ``change`` against the final exit, and the speed-up. A policy that was chosen on the same samples looks a little
    better here than it will elsewhere; the intervals do not know that.

    Args:
        policy: the policy.
        trace: what it did on the table: ``replay(policy, table, task)``.
        table: every exit's output.
        costs: what the parts cost.
        task: what an output means.
        unit: what cost means, ``macs`` or ``seconds``.
    """
    static = task.quality(table.of(-1), table.targets).double()
    dynamic = task.quality(trace.output, table.targets).double()
    cost = spent(policy, trace, costs.in_chain(unit))
    whole = costs.in_unit(unit).static
    return {
        task.metric: float(dynamic.mean()),
        f"static_{task.metric}": float(static.mean()),
        f"{unit}_speedup": whole / float(cost.mean()),
        "exit_shares": _shares(trace.exit, len(table.outputs)),
        **({"entry_shares": _shares(trace.entry, costs.chain.num_paths)} if costs.chain.num_paths > 1 else {}),
        "intervals": {
            task.metric: _interval(dynamic),
            "change": _interval(dynamic - static),
            f"{unit}_speedup": [whole / bound for bound in reversed(_interval(cost))],
        },
    }


def _shares(places: Tensor, number: int) -> list[float]:
    shares: list[float] = (torch.bincount(places, minlength=number) / len(places)).tolist()
    return shares


def _interval(values: Tensor) -> list[float]:
    mean, n = float(values.mean()), len(values)
    reach = _NORMAL_95 * float(values.std()) / sqrt(n) if n > 1 else 0.0
    return [max(mean - reach, float(values.min())), min(mean + reach, float(values.max()))]
