"""Calibration: from a goal in the user's words to a policy, in seconds, from two tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from offramp.calibration.columns import columns_of
from offramp.calibration.expected import expected
from offramp.calibration.risk import control
from offramp.calibration.rules import calibrate_rule
from offramp.calibration.search import Columns, Point, between, evaluate, frontier
from offramp.calibration.shared import best_shared, some_sets, sweep
from offramp.errors import GoalError, UsageError
from offramp.policies import Policy
from offramp.policies.threshold import Threshold
from offramp.tasks import Task, get_task
from offramp.types import CostTable, ExitTable


def calibrate(
    table: ExitTable,
    costs: CostTable,
    *,
    max_drop: float | None = None,
    target_speedup: float | None = None,
    max_cost: float | None = None,
    risk: float | None = None,
    confidence: float = 0.95,
    method: str = "ucb",
    loss: str = "disagreement",
    unit: str = "macs",
    score: str | None = None,
    temperatures: tuple[float, ...] = (),
    shared: bool = False,
    rule: str = "threshold",
    task: str | Task | None = None,
) -> Policy:
    """Choose thresholds for exactly one goal, on validation data.

    Each exit has a threshold of its own, found by a search over prices of cost (``calibration.search``); an exit whose
    head costs more than it saves, or that is wrong when it is sure, is switched off. Thresholds stand midway between
    two scores of the table, never on one.

    Args:
        table: outputs on validation data.
        costs: what the parts of the model cost.
        max_drop: the cheapest policy whose metric is at most this much worse than the final exit's, in the units of
            the metric: 0.005 is half a point of accuracy.
        target_speedup: the best policy whose mean cost is this many times below the static backbone's.
        max_cost: the best policy with which no sample ever costs more, in ``unit``.
        risk: the cheapest policy that is wrong because of leaving early in at most this share of cases, promised with
            ``confidence``; see ``calibration.risk.control``. One threshold for all exits.
        confidence: how sure the promise about ``risk`` is.
        method: how ``risk`` is bounded: ``ucb``, ``ltt``, ``crc`` or ``naive``.
        loss: what ``risk`` is a share of: ``disagreement`` with the final exit, or ``gap`` in being right.
        unit: what cost means: ``macs`` or ``seconds``.
        score: the kind of score; the task's usual one if not given.
        temperatures: of each exit's outputs, the final exit last, as ``calibration.fit_temperatures`` gives them.
        shared: one threshold for all exits that are on, as LGViT has it, in place of one each.
        rule: for ``max_drop`` and ``target_speedup``, another rule than ``threshold``: ``patience``,
            ``patient-confident``, ``vote``, ``ensemble``, ``reliability``, ``gates`` or ``scheduler``. What it learns
            is learned on one half of the table, its own number is chosen on the other.
        task: what an output means, where it is none that the table can name.

    Returns:
        The policy; its ``provenance`` holds goal, data, and the expected metric, speed-up and exit shares with their
        intervals (``calibration.expected``).

    Raises:
        UsageError: not exactly one goal, or one out of its range; a table without samples; tables of different models.
        GoalError: a goal out of reach; the sentence names the nearest that can be reached.
        DataError: scores that are not finite.
    """
    goals = {"max_drop": max_drop, "target_speedup": target_speedup, "max_cost": max_cost, "risk": risk}
    asked = {name: value for name, value in goals.items() if value is not None}
    if len(asked) != 1:
        raise UsageError(f"calibrate takes exactly one goal of {', '.join(goals)}")
    ((goal, value),) = asked.items()
    _check(goal, value)
    meaning = get_task(table.task if task is None else task)
    kind = meaning.scores[0] if score is None else score
    if rule != "threshold":
        if goal not in ("max_drop", "target_speedup"):
            raise UsageError(f"the rule {rule!r} is calibrated for max_drop or target_speedup, not for {goal}")
        return calibrate_rule(rule, table, costs, meaning, goal, value, unit, kind)
    columns = columns_of(table, costs, unit, kind, temperatures, meaning)
    record: dict[str, Any] = {"goal": {goal: value}}
    if goal == "risk":
        point, record["guarantee"] = control(columns, table, meaning, value, 1 - confidence, method, loss)
        record["goal"]["confidence"] = confidence
    elif goal == "max_cost":
        point = _within(columns, value, unit)
    else:
        point = _shared_point(columns, goal, value) if shared else _point(columns, goal, value)
    policy = Threshold(point.thresholds, kind, temperatures)
    about = {"unit": unit, "samples": len(table), "data": dict(table.provenance)}
    return replace(policy, provenance={**record, **about, "expected": expected(policy, table, costs, meaning, unit)})


def _check(goal: str, value: float) -> None:
    ranges: Mapping[str, tuple[bool, str]] = {
        "max_drop": (value >= 0, "it is a loss of the metric, 0 or more"),
        "target_speedup": (value >= 1, "it is a ratio, 1 or more"),
        "max_cost": (value > 0, "it is a cost, above 0"),
        "risk": (0 < value < 1, "it is a share of cases, between 0 and 1"),
    }
    allowed, reason = ranges[goal]
    if not allowed:
        raise UsageError(f"{goal} is {value}; {reason}")


def _allowed(columns: Columns, goal: str, value: float, quality: Tensor, cost: Tensor) -> Tensor:
    if goal == "max_drop":
        return float(columns.quality[-1].mean()) - quality <= value + 1e-12
    return columns.static / cost >= value


def _better(goal: str, a: Point, b: Point) -> bool:
    if goal == "max_drop":
        return (-a.cost, a.quality) > (-b.cost, b.quality)
    return (a.quality, -a.cost) > (b.quality, -b.cost)


def _point(columns: Columns, goal: str, value: float) -> Point:
    """The best of the frontier, of what lies between it and its neighbour, and of shared thresholds."""
    points = frontier(columns)
    best = _best(columns, goal, value, points)
    if best is not None:
        place = points.index(best)
        # with a largest drop the neighbour that is cheaper is not allowed, with a speed-up the dearer one
        other = place - 1 if goal == "max_drop" else place + 1
        if 0 <= other < len(points):
            cheap, dear = sorted((points[other], best), key=lambda p: p.cost)
            points += between(columns, cheap, dear)
    for heads in some_sets(points):
        swept = sweep(columns, heads)
        row = _row(columns, goal, value, swept.quality, swept.cost)
        points += [] if row is None else [swept.point(row)]
    best = _best(columns, goal, value, points)
    if best is None:
        raise _out_of_reach(columns, value)
    return best


def _best(columns: Columns, goal: str, value: float, points: list[Point]) -> Point | None:
    best = None
    for point in points:
        allowed = _allowed(columns, goal, value, torch.tensor(point.quality), torch.tensor(point.cost))
        if allowed and (best is None or _better(goal, point, best)):
            best = point
    return best


def _row(columns: Columns, goal: str, value: float, quality: Tensor, cost: Tensor) -> int | None:
    """The best row of quality and cost ``(t,)``; None where no row is allowed."""
    rows = _allowed(columns, goal, value, quality, cost).nonzero()[:, 0]
    if len(rows) == 0:
        return None
    first, second = (-cost, quality) if goal == "max_drop" else (quality, -cost)
    rows = rows[first[rows] == first[rows].max()]
    return int(rows[second[rows].argmax()])


def _shared_point(columns: Columns, goal: str, value: float) -> Point:
    found = best_shared(columns, lambda q, c: _row(columns, goal, value, q, c), lambda a, b: _better(goal, a, b))
    if found is None:
        raise _out_of_reach(columns, value)
    return found


def _within(columns: Columns, limit: float, unit: str) -> Point:
    """The most accurate exit that fits into a limit, alone: whoever comes so far leaves there."""
    spent, points = 0.0, []
    for k, (segment, head) in enumerate(zip(columns.segments, columns.heads, strict=False)):
        spent += segment
        if spent + head <= limit:
            points.append(evaluate(columns, tuple(0.0 if j == k else None for j in range(len(columns.heads)))))
    if columns.static <= limit:
        points.append(evaluate(columns, (None,) * len(columns.heads)))
    if not points:
        first = columns.segments[0] + (columns.heads[0] if columns.heads else 0.0)
        raise GoalError(f"no exit costs at most {limit:g} {unit}: the first alone costs {first:g}")
    return max(points, key=lambda p: (p.quality, -p.cost))


def _out_of_reach(columns: Columns, value: float) -> GoalError:
    spent, costs = 0.0, []
    for segment, head in zip(columns.segments, columns.heads, strict=False):
        spent += segment
        costs.append(spent + head)
    fastest = columns.static / min(costs) if costs else 1.0
    return GoalError(f"a speed-up of {value:g} is out of reach: the first exit alone gives {fastest:.2f}")
