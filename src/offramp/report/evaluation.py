"""What a model with a policy is worth on a data set, from its tables."""

from __future__ import annotations

from typing import Any

import torch

from offramp.policies import Policy, policy_to_json, replay, spent
from offramp.report.intervals import bootstrap_interval
from offramp.report.quality import exit_quality
from offramp.tasks import Task
from offramp.types import CostTable, ExitTable


def evaluate_table(table: ExitTable, costs: CostTable, policy: Policy, task: Task) -> dict[str, Any]:
    """The static backbone beside the dynamic model, with 95 % bootstrap intervals over samples.

    Args:
        table: every exit's output on the data.
        costs: what the parts cost.
        policy: who leaves where.
        task: what an output means.

    Returns:
        JSON values. ``speedup.layers`` is depth ÷ mean number of blocks that ran, ``speedup.macs`` counts stem, heads
        and router; ``dynamic.change`` is the difference of the metric to the static backbone's on the same samples.
    """
    trace = replay(policy, table, task)
    static = task.quality(table.of(-1), table.targets).double()
    dynamic = task.quality(trace.output, table.targets).double()
    cost, depth = spent(policy, trace, costs.in_chain()), spent(policy, trace, costs.chain.blocks)
    full, deepest = costs.macs.static, float(table.after[-1])
    shares = torch.bincount(trace.exit, minlength=len(table.outputs)).double() / len(table)
    everything = tuple(range(len(costs.after)))
    trust = exit_quality(table, task)
    return {
        "samples": len(table),
        "static": {
            "metric": task.metric,
            "value": float(static.mean()),
            "interval": bootstrap_interval(static.numpy()),
        },
        "dynamic": {
            "metric": task.metric,
            "value": float(dynamic.mean()),
            "interval": bootstrap_interval(dynamic.numpy()),
            "change": float((dynamic - static).mean()),
            "change_interval": bootstrap_interval((dynamic - static).numpy()),
            "speedup": {"layers": deepest / float(depth.mean()), "macs": full / float(cost.mean()), "measured": None},
            "speedup_intervals": {
                "layers": bootstrap_interval(depth.numpy(), lambda mean: deepest / mean),
                "macs": bootstrap_interval(cost.numpy(), lambda mean: full / mean),
            },
            "exit_shares": shares.tolist(),
        },
        "exits": [
            {
                "after": after,
                **({"path": table.paths[k]} if table.paths else {}),
                "head": head,
                "value": float(task.quality(table.of(k), table.targets).double().mean()),
                "macs": macs,
                **trusted,
            }
            for k, (after, head, macs, trusted) in enumerate(
                zip(table.after, table.heads, costs.to_exit(everything), trust, strict=True)
            )
        ],
        "policy": policy_to_json(policy),
    }
