"""Other rules than thresholds, for a goal: what they learn is learned on one half, their number chosen on the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from offramp.calibration.budget import exit_distribution, quota_thresholds
from offramp.calibration.columns import columns_of
from offramp.calibration.fit import fit_cascade, fit_ensemble, fit_gates, fit_maps, fit_scheduler
from offramp.calibration.goals import Goal
from offramp.calibration.search import Columns, frontier
from offramp.calibration.temperature import halves
from offramp.errors import GoalError, UsageError
from offramp.policies import Policy
from offramp.policies.cascade import Cascade
from offramp.policies.ensemble import Ensemble
from offramp.policies.patience import Patience, PatientConfident
from offramp.policies.reliability import Reliability
from offramp.policies.threshold import Threshold
from offramp.policies.vote import Vote
from offramp.tasks import Task
from offramp.types import CostTable, Evidence, ExitTable

_LEVELS = 40


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
    tried = RULES[rule](fitted, chosen, costs, task, goal.unit, score) if costs.after else ()
    for policy in tried:
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


def _patience(
    fitted: ExitTable, chosen: ExitTable, costs: CostTable, task: Task, unit: str, score: str
) -> Iterable[Policy]:
    everything = tuple(range(len(costs.after)))
    tolerances = (0.0,) if task.name == "classification" else (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
    for heads in {everything, everything[::2], everything[1::2]}:
        for tolerance in tolerances:
            for patience in range(1, len(heads)):
                yield Patience(patience, heads, tolerance, score)


def _patient_confident(
    fitted: ExitTable, chosen: ExitTable, costs: CostTable, task: Task, unit: str, score: str
) -> Iterable[Policy]:
    heads = tuple(range(len(costs.after)))
    scores = columns_of(chosen, costs, unit, score, task=task).scores
    for threshold in np.unique(np.quantile(scores.numpy(), np.linspace(0.02, 0.98, _LEVELS))):
        for patience in range(1, len(heads) + 1):
            yield PatientConfident(patience, float(threshold), heads, score)


def _vote(
    fitted: ExitTable, chosen: ExitTable, costs: CostTable, task: Task, unit: str, score: str
) -> Iterable[Policy]:
    heads = tuple(range(len(costs.after)))
    for votes in range(1, len(heads) + 1):
        yield Vote(votes, heads, 0.0 if task.name == "classification" else 0.5, score)


def _ensemble(
    fitted: ExitTable, chosen: ExitTable, costs: CostTable, task: Task, unit: str, score: str
) -> Iterable[Policy]:
    start = replace(fit_ensemble(fitted, tuple(range(len(costs.after))), task), score=score)
    yield from _with_thresholds(start, chosen, columns_of(chosen, costs, unit, score, task=task), task)


def _cascade(
    fitted: ExitTable, chosen: ExitTable, costs: CostTable, task: Task, unit: str, score: str
) -> Iterable[Policy]:
    start = replace(fit_cascade(fitted, tuple(range(len(costs.after))), task), score=score)
    yield from _with_thresholds(start, chosen, columns_of(chosen, costs, unit, score, task=task), task)


def _with_thresholds(start: Ensemble | Cascade, chosen: ExitTable, columns: Columns, task: Task) -> Iterable[Policy]:
    for point in frontier(answered(start, chosen, columns, task), 60):
        yield replace(start, thresholds=tuple(1.0 if t is None else t for t in point.thresholds))


def answered(policy: Ensemble | Cascade, table: ExitTable, columns: Columns, task: Task) -> Columns:
    """What the search reads where a policy answers for itself: scores and quality of these answers, all heads on."""
    sign = 1.0 if task.higher_is_better else -1.0
    state, previous, scores, quality = policy.init(len(table)), None, [], []
    for k in policy.heads:
        output = table.outputs[k]
        decision = policy.step(state, Evidence(k, output, columns.scores[k], task))
        state, together = decision.state, output if decision.output is None else decision.output
        scores.append(task.score(policy.score, together, previous).double())
        previous = together if isinstance(policy, Cascade) else None
        quality.append(sign * task.quality(together, table.targets).double())
    return replace(columns, scores=torch.stack(scores), quality=torch.stack([*quality, columns.quality[-1]]))


def _exit_distribution(
    fitted: ExitTable, chosen: ExitTable, costs: CostTable, task: Task, unit: str, score: str
) -> Iterable[Policy]:
    columns = columns_of(fitted, costs, unit, score, task=task)
    to_exit = costs.to_exit(tuple(range(len(costs.after))), unit)
    for budget in np.linspace(to_exit[0], to_exit[-1], 4 * _LEVELS + 2)[1:-1]:
        yield Threshold(quota_thresholds(columns.scores, exit_distribution(columns, float(budget))), score)


def _reliability(
    fitted: ExitTable, chosen: ExitTable, costs: CostTable, task: Task, unit: str, score: str
) -> Iterable[Policy]:
    heads = tuple(range(len(costs.after)))
    maps = fit_maps(columns_of(fitted, costs, unit, score, task=task))
    for level in (*np.linspace(0.3, 0.9, 25), *np.linspace(0.9, 1.0, 41)):
        yield Reliability(float(level), heads, maps, score)


def _gates(
    fitted: ExitTable, chosen: ExitTable, costs: CostTable, task: Task, unit: str, score: str
) -> Iterable[Policy]:
    columns = columns_of(fitted, costs, unit, score, task=task)
    for price in np.geomspace(0.001, 10, 25):
        yield replace(fit_gates(fitted, columns, tuple(range(len(costs.after))), float(price), task), score=score)


def _scheduler(
    fitted: ExitTable, chosen: ExitTable, costs: CostTable, task: Task, unit: str, score: str
) -> Iterable[Policy]:
    heads = tuple(range(len(costs.after)))
    columns = columns_of(fitted, costs, unit, score, task=task)
    to_exit = costs.to_exit(heads, unit)
    budgets = np.linspace(to_exit[0] * 1.02, columns.static, 14)
    for budget in budgets[(to_exit[0] <= budgets) & (budgets <= to_exit[-1])]:
        yield replace(fit_scheduler(fitted, columns, heads, float(budget), task), score=score)


RULES: dict[str, Callable[..., Iterable[Policy]]] = {
    "patience": _patience,
    "patient-confident": _patient_confident,
    "vote": _vote,
    "ensemble": _ensemble,
    "cascade": _cascade,
    "exit-distribution": _exit_distribution,
    "reliability": _reliability,
    "gates": _gates,
    "scheduler": _scheduler,
}
"""From the two halves of a table to the policies of a rule that are worth trying."""

NO_SCORE = frozenset({"patience", "vote", "gates", "scheduler"})
"""Rules that leave by something else than a score of one's choice."""
