"""Other rules than thresholds, for a goal: what they learn is learned on one half, their number chosen on the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from offramp.calibration.goals import Goal
from offramp.calibration.temperature import halves
from offramp.errors import GoalError, UsageError
from offramp.policies import Policy
from offramp.policies.threshold import Threshold
from offramp.registry import POLICIES, unknown
from offramp.search import Seen
from offramp.tasks import Task
from offramp.types import CostTable, ExitTable


def rules() -> tuple[str, ...]:
    """The rules that ``calibrate_rule`` knows: every policy of the table, and thresholds by exit distribution."""
    return (*(name for name in POLICIES if name not in ("threshold", "forced")), "exit-distribution")


def policy_of(rule: str) -> type[Policy]:
    """The kind of policy of a rule. Raises ``UsageError`` for an unknown one."""
    if rule not in rules():
        raise UsageError(unknown("rule to calibrate", rule, ("threshold", *rules())))
    kind: type[Policy] = Threshold if rule == "exit-distribution" else POLICIES.resolve(rule)
    return kind


def calibrate_rule(
    rule: str, table: ExitTable, costs: CostTable, task: Task, goal: Goal, score: str
) -> tuple[Policy, dict[str, Any]]:
    """The best policy of a rule for ``max_drop`` or ``target_speedup``, and how it came about; see ``calibrate``.

    Raises:
        UsageError: a table that is too small to be cut in two.
        GoalError: no policy of this rule reaches the goal; the sentence names the nearest.
    """
    if len(table) < 2:
        raise UsageError(f"the rule {rule!r} needs two halves of a table, to learn and to choose on; it has 1 sample")
    fitted, chosen = halves(table)
    found: list[tuple[tuple[float, float], Policy, dict[str, Any]]] = []
    nearest = -np.inf
    seen = Seen(fitted, chosen, costs, task, goal.unit, score)
    for policy in policy_of(rule).candidates(seen) if costs.after else ():
        kept, worth = goal.judge(policy, chosen, costs, task)
        reached = goal.reached(worth, task)
        if kept:
            kept, whole = goal.judge(policy, table, costs, task)
            reached = min(reached, goal.reached(whole, task))
        nearest = max(nearest, reached)
        if kept:
            found.append((goal.rank(worth, task), policy, worth))
    if not np.isfinite(nearest):
        raise GoalError(f"the rule {rule!r} has nothing to choose from with {len(costs.after)} early exits")
    if not found:
        best = f"a drop of {-nearest:.4g}" if goal.name == "max_drop" else f"a speed-up of {nearest:.2f}"
        raise GoalError(f"{goal.name} {goal.value:g} is out of reach for the rule {rule!r}; the nearest is {best}")
    _, policy, worth = max(found, key=lambda f: f[0])
    judged_on = ["the half of the table that it was chosen on", "table"]
    samples = {"samples": len(chosen), "samples_to_fit": len(fitted)}
    return policy, {"rule": rule, **samples, "judged_on": judged_on, "expected": worth}
