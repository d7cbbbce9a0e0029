"""Other rules than thresholds, for a goal: what they learn is learned on one half, their number chosen on the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from offramp.calibration.columns import columns_of
from offramp.calibration.fit import fit_ensemble, fit_gates, fit_maps, fit_scheduler
from offramp.calibration.search import Columns, frontier
from offramp.calibration.temperature import halves
from offramp.errors import GoalError, UsageError
from offramp.policies import Policy, replay
from offramp.policies.ensemble import Ensemble
from offramp.policies.patience import Patience, PatientConfident
from offramp.policies.reliability import Reliability
from offramp.policies.vote import Vote
from offramp.registry import unknown
from offramp.tasks import Task
from offramp.types import CostTable, Evidence, ExitTable, Trace

_LEVELS = 40


def calibrate_rule(
    rule: str, table: ExitTable, costs: CostTable, task: Task, goal: str, value: float, unit: str, score: str
) -> Policy:
    """The best policy of a rule for ``max_drop`` or ``target_speedup``; see ``offramp.calibrate``.

    Raises:
        UsageError: an unknown rule.
        GoalError: no policy of this rule reaches the goal; the sentence names the nearest.
    """
    if rule not in RULES:
        raise UsageError(unknown("rule to calibrate", rule, ("threshold", *RULES)))
    fitted, chosen = halves(table)
    best: tuple[tuple[float, float], Policy, dict[str, Any]] | None = None
    nearest = -np.inf
    static = float(_quality(task, chosen, None).mean())
    parts = costs.parts(unit)
    for policy in RULES[rule](fitted, chosen, costs, task, unit, score):
        trace = replay(policy, chosen, task)
        quality = float(_quality(task, chosen, trace).mean())
        spent = torch.tensor(costs.to_exit(policy.heads, unit), dtype=torch.float64)[trace.exit].mean()
        speedup = parts.static / float(spent)
        if goal == "max_drop":
            allowed, rank, near = static - quality <= value + 1e-12, (speedup, quality), quality - static
        else:
            allowed, rank, near = speedup >= value, (quality, speedup), speedup
        nearest = max(nearest, near)
        if allowed and (best is None or rank > best[0]):
            shares = (torch.bincount(trace.exit, minlength=len(table.outputs)) / len(chosen)).tolist()
            sign = 1.0 if task.higher_is_better else -1.0
            expected = {
                task.metric: sign * quality,
                f"static_{task.metric}": sign * static,
                f"{unit}_speedup": speedup,
                "exit_shares": shares,
            }
            best = (rank, policy, expected)
    if best is None:
        reached = f"a drop of {-nearest:.4g}" if goal == "max_drop" else f"a speed-up of {nearest:.2f}"
        raise GoalError(f"{goal} {value:g} is out of reach for the rule {rule!r}; the nearest is {reached}")
    about = {
        "goal": {goal: value},
        "rule": rule,
        "unit": unit,
        "samples": len(chosen),
        "samples_to_fit": len(fitted),
        "data": dict(table.provenance),
        "expected": best[2],
    }
    return replace(best[1], provenance=about)  # type: ignore[type-var]


def _quality(task: Task, table: ExitTable, trace: Trace | None) -> torch.Tensor:
    sign = 1.0 if task.higher_is_better else -1.0
    return sign * task.quality(table.outputs[-1] if trace is None else trace.output, table.targets).double()


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
    heads = tuple(range(len(costs.after)))
    start = replace(fit_ensemble(fitted, heads, task), score=score)
    for point in frontier(ensemble_columns(start, chosen, columns_of(chosen, costs, unit, score, task=task), task), 60):
        thresholds = tuple(1.0 if t is None else t for t in point.thresholds)
        yield replace(start, thresholds=thresholds)


def ensemble_columns(policy: Ensemble, table: ExitTable, columns: Columns, task: Task) -> Columns:
    """What the search reads, for an ensemble: its scores and the quality of its answers, all heads running."""
    sign = 1.0 if task.higher_is_better else -1.0
    state, scores, quality = policy.init(len(table)), [], []
    for k in policy.heads:
        output = table.outputs[k]
        decision = policy.step(state, Evidence(k, output, columns.scores[k], task))
        state, together = decision.state, output if decision.output is None else decision.output
        scores.append(task.score(policy.score, together, None).double())
        quality.append(sign * task.quality(together, table.targets).double())
    return replace(columns, scores=torch.stack(scores), quality=torch.stack([*quality, columns.quality[-1]]))


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
    for budget in np.linspace(to_exit[0] * 1.02, columns.static, 14):
        yield replace(fit_scheduler(fitted, columns, heads, float(budget), task), score=score)


RULES: dict[str, Callable[..., Iterable[Policy]]] = {
    "patience": _patience,
    "patient-confident": _patient_confident,
    "vote": _vote,
    "ensemble": _ensemble,
    "reliability": _reliability,
    "gates": _gates,
    "scheduler": _scheduler,
}
"""From the two halves of a table to the policies of a rule that are worth trying."""
