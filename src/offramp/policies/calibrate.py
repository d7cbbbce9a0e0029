"""Calibration: from a goal in the user's words to thresholds, in seconds, from two tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from offramp.errors import UsageError
from offramp.policies.threshold import Threshold
from offramp.tasks import Task, get_task
from offramp.types import CostTable, ExitTable

_MAX_CANDIDATES = 400


@dataclass(frozen=True)
class _Choice:
    """A policy of the sweep, its mean quality (higher is better, whatever the metric), its cost and who left where."""

    heads: tuple[int, ...]
    threshold: float
    quality: float
    cost: float
    shares: tuple[float, ...]


def calibrate(
    table: ExitTable,
    costs: CostTable,
    *,
    max_drop: float | None = None,
    target_speedup: float | None = None,
    unit: str = "macs",
    score: str | None = None,
    task: str | Task | None = None,
) -> Threshold:
    """Choose thresholds for a goal, on validation data.

    One threshold is shared by the exits that are used (LGViT's rule); which exits are used is searched as well,
    backwards from all of them: an exit whose head costs more than it saves, or that is wrong when it is sure, goes.
    Thresholds stand midway between two scores of the table, never on one.

    Args:
        table: outputs on validation data.
        costs: what the parts of the model cost.
        max_drop: the cheapest policy whose metric is at most this much worse than the final exit's, in the units of
            the metric: 0.005 is half a point of accuracy.
        target_speedup: the best policy that is at least this many times cheaper than the static backbone.
        unit: what cheap means: ``macs`` or ``seconds``.
        score: the kind of score; the task's usual one if not given.
        task: what an output means, where it is none that the table can name.

    Returns:
        The policy; its ``provenance`` holds goal, data, and the expected metric, speed-up and exit shares.

    Raises:
        UsageError: not exactly one goal; a goal below 0, or below 1 for a speed-up; a table without samples; tables of
            different models; or a speed-up out of reach (the sentence names the largest there is).
    """
    if (max_drop is None) == (target_speedup is None):
        raise UsageError("calibrate takes exactly one goal: max_drop or target_speedup")
    if max_drop is not None and not max_drop >= 0:
        raise UsageError(f"max_drop is {max_drop}; it is a loss of the metric, 0 or more")
    if target_speedup is not None and not target_speedup >= 1:
        raise UsageError(f"target_speedup is {target_speedup}; it is a ratio, 1 or more")
    if len(table) == 0:
        raise UsageError("the exit table holds no samples")
    if table.after[:-1] != costs.after:
        raise UsageError(f"the exit table has exits after {table.after[:-1]}, the cost table after {costs.after}")
    meaning = get_task(table.task if task is None else task)
    kind = meaning.scores[0] if score is None else score
    sign = 1.0 if meaning.higher_is_better else -1.0
    quality = torch.stack([sign * meaning.quality(o, table.targets).double() for o in table.outputs])
    static_quality, static_cost = float(quality[-1].mean()), costs.parts(unit).static

    def best(heads: tuple[int, ...]) -> _Choice | None:
        sweep = _sweep(heads, table, costs.to_exit(heads, unit), quality, meaning, kind)
        if max_drop is not None:
            allowed = static_quality - sweep.quality <= max_drop + 1e-12
            first, second = -sweep.cost, sweep.quality
        else:
            allowed = static_cost / sweep.cost >= (target_speedup or 1.0)
            first, second = sweep.quality, -sweep.cost
        rows = allowed.nonzero()[:, 0]
        if len(rows) == 0:
            return None
        rows = rows[first[rows] == first[rows].max()]
        return sweep.choice(int(rows[second[rows].argmax()]))

    def rank(c: _Choice) -> tuple[float, float]:
        return (-c.cost, c.quality) if max_drop is not None else (c.quality, -c.cost)

    early = len(costs.after)
    chosen = best(tuple(range(early)))
    heads = tuple(range(early))
    while heads:
        fewer = [tuple(k for k in heads if k != gone) for gone in heads]
        found = [c for c in (best(h) for h in fewer) if c is not None]
        challenger = max(found, key=rank, default=None)
        if challenger is None or (chosen is not None and rank(challenger) <= rank(chosen)):
            break
        chosen, heads = challenger, challenger.heads
    if chosen is None:
        fastest = static_cost / min(costs.to_exit((k,), unit)[k] for k in range(early)) if early else 1.0
        raise UsageError(f"a speed-up of {target_speedup} is out of reach: the first exit alone gives {fastest:.2f}")

    policy = Threshold(tuple(chosen.threshold if k in chosen.heads else None for k in range(early)), kind)
    return replace(
        policy,
        provenance={
            "goal": {"max_drop": max_drop} if max_drop is not None else {"target_speedup": target_speedup},
            "unit": unit,
            "samples": len(table),
            "data": dict(table.provenance),
            "expected": _expected(chosen, meaning, sign, static_quality, static_cost, unit),
        },
    )


@dataclass(frozen=True)
class _Sweep:
    """One shared threshold over its whole range, from everybody leaves at once to nobody leaves early."""

    heads: tuple[int, ...]
    thresholds: Tensor
    quality: Tensor
    cost: Tensor
    shares: Tensor

    def choice(self, row: int) -> _Choice:
        return _Choice(
            self.heads,
            float(self.thresholds[row]),
            float(self.quality[row]),
            float(self.cost[row]),
            tuple(self.shares[row].tolist()),
        )


def _sweep(
    heads: tuple[int, ...],
    table: ExitTable,
    cost_to_exit: tuple[float, ...],
    quality: Tensor,
    meaning: Task,
    kind: str,
) -> _Sweep:
    """All thresholds at once: a sample leaves at an exit for thresholds between two running maxima of its scores."""
    final = len(table.outputs) - 1
    previous, columns = None, []
    for k in heads:
        columns.append(meaning.score(kind, table.outputs[k], previous).double())
        previous = table.outputs[k]
    thresholds = _midpoints(torch.stack(columns)) if heads else torch.ones(1, dtype=torch.float64)
    size, samples = len(thresholds), len(table)
    reached = torch.zeros(samples, dtype=torch.long)  # thresholds below this are met at an exit before
    gained = torch.zeros(size, dtype=torch.float64)
    shares = torch.zeros(size, final + 1, dtype=torch.float64)
    for k, scores in zip(heads, columns, strict=True):
        now = torch.searchsorted(thresholds, scores, right=True).maximum(reached)
        shares[:, k] = _between(reached, now, torch.ones(samples, dtype=torch.float64), size) / samples
        gained += _between(reached, now, quality[k], size)
        reached = now
    end = torch.full_like(reached, size)
    shares[:, final] = _between(reached, end, torch.ones(samples, dtype=torch.float64), size) / samples
    gained += _between(reached, end, quality[final], size)
    costs = torch.tensor(cost_to_exit, dtype=torch.float64)
    return _Sweep(heads, thresholds, gained / samples, shares @ costs, shares)


def _between(first: Tensor, last: Tensor, value: Tensor, size: int) -> Tensor:
    """For each of ``size`` places the sum of the values of samples whose ``first <= place < last``."""
    ends = torch.bincount(first, value, size + 1) - torch.bincount(last, value, size + 1)
    return ends.cumsum(0)[:size]


def _midpoints(scores: Tensor) -> Tensor:
    """Thresholds midway between neighbouring scores, thinned evenly by rank, and both ends of the range."""
    values = scores.flatten().unique()
    middle = (values[1:] + values[:-1]) / 2
    if len(middle) > _MAX_CANDIDATES:
        middle = middle[torch.linspace(0, len(middle) - 1, _MAX_CANDIDATES).long()]
    return torch.cat([middle.new_zeros(1), middle, middle.new_ones(1)])


def _expected(
    chosen: _Choice, meaning: Task, sign: float, static_quality: float, static_cost: float, unit: str
) -> dict[str, Any]:
    return {
        meaning.metric: sign * chosen.quality,
        f"static_{meaning.metric}": sign * static_quality,
        f"{unit}_speedup": static_cost / chosen.cost,
        "exit_shares": list(chosen.shares),
    }
