"""Calibration: from a goal in the user's words to a policy, in seconds, from two tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from offramp.calibration.candidates import candidates, within
from offramp.calibration.conditions import check_seconds, conditions_here
from offramp.calibration.goals import Goal
from offramp.calibration.risk import control
from offramp.calibration.rules import calibrate_rule, policy_of
from offramp.errors import GoalError, UsageError
from offramp.policies import Policy, Routed
from offramp.policies.threshold import Threshold
from offramp.search.columns import TableColumns
from offramp.search.frontier import rounded_up
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
    confidence: float | None = None,
    method: str | None = None,
    loss: str | None = None,
    seed: int | None = None,
    unit: str = "macs",
    score: str | None = None,
    temperatures: tuple[float, ...] = (),
    shared: bool = False,
    rule: str = "threshold",
    task: str | Task | None = None,
    elsewhere: bool = False,
    bias: tuple[float, ...] = (),
) -> Policy:
    """Choose a policy for exactly one goal, on validation data.

    Each exit has its own threshold, found by a search over prices of cost (``calibration.search``); an exit whose
    head costs more than it saves, or that is wrong when it is sure, is switched off. Thresholds stand midway between
    two scores of the table, never on one. Where the table has several paths their exits are one chain, the cheapest
    path first; where a router spoke, its bias is chosen together with the thresholds, for ``max_drop`` and
    ``target_speedup``, if that is better than to begin at the cheapest path.

    Before a policy is returned it is replayed on the table, and the goal is judged by that replay; one that fails is
    dropped and the next best is taken. ``risk`` is judged twice: by its bound, and its share on the table itself must
    not be larger.

    Args:
        table: outputs on validation data.
        costs: what the parts of the model cost. Seconds must have been measured where the policy will run: in the
            runtime and precision of the exit table, on this machine, and in PyTorch with as many threads as now.
        max_drop: the cheapest policy whose metric is at most this much worse than the final exit's, in the units of
            the metric: 0.005 is half a point of accuracy.
        target_speedup: the best policy whose mean cost is this many times below the static backbone's.
        max_cost: the best policy with which no sample ever costs more, in ``unit``. In seconds that is the 95th
            percentile of the exit that costs most: one run in twenty took longer when it was measured.
        risk: the cheapest policy that is wrong because of leaving early in at most this share of cases, promised with
            ``confidence``; see ``calibration.risk.control``. One threshold for all exits.
        confidence: how sure the promise about ``risk`` is, 0.95 if not given.
        method: how ``risk`` is bounded: ``ucb``, which is taken if none is given, ``ltt``, ``crc`` or ``naive``.
        loss: what ``risk`` is a share of: ``disagreement`` with the final exit, which is taken if none is given,
            ``gap`` in being right, or ``brier``.
        seed: of the random order in which ``ucb`` reads the samples, 0 if not given.
        unit: what cost means: ``macs`` or ``seconds``.
        score: the kind of score; the task's usual one if not given.
        temperatures: of each exit's outputs, the final exit last, as ``calibration.fit_temperatures`` gives them; for
            the rule ``threshold``.
        shared: one threshold for all exits that are on, as LGViT has it, in place of one each; for the rule
            ``threshold``.
        rule: for ``max_drop`` and ``target_speedup``, another rule than ``threshold``: ``patience``,
            ``patient-confident``, ``vote``, ``ensemble``, ``cascade``, ``exit-distribution``, ``reliability``,
            ``gates`` or ``scheduler``. What it learns is learned on one half of the table, its own number is chosen on
            the other; the goal is judged on that other half and on the whole table.
        task: what an output means, where it is none that the table can name.
        elsewhere: seconds may be those of another machine or another number of threads, for a policy that will run
            there.
        bias: for ``risk``, with which the router says where samples enter, a number for each path; fixed by other means
            than this table, or the promise is void. Everybody enters at the cheapest path if not given.

    Returns:
        The policy; its ``provenance`` holds goal, data, on what it was judged, and the expected metric, speed-up and
        exit shares with their intervals (``calibration.expected``).

    Raises:
        UsageError: not exactly one goal, or one out of its range; an option that this goal or rule does not read; a
            table without samples; tables of different models; seconds that were measured in other conditions.
        GoalError: a goal out of reach; the sentence names the nearest that can be reached.
        DataError: scores that are not finite.
    """
    goals = {"max_drop": max_drop, "target_speedup": target_speedup, "max_cost": max_cost, "risk": risk}
    asked = {name: value for name, value in goals.items() if value is not None}
    if len(asked) != 1:
        raise UsageError(f"calibrate takes exactly one goal of {', '.join(goals)}")
    ((name, value),) = asked.items()
    goal = Goal(name, value, unit, loss or "disagreement")
    promise = {"confidence": confidence, "method": method, "loss": loss, "seed": seed, "bias": bias or None}
    _check_options(name, promise, rule, temperatures, shared, score)
    if unit == "seconds":
        wanted = conditions_here(table, costs)
        check_seconds(costs, {key: wanted[key] for key in wanted if key not in ("host", "threads") or not elsewhere})
    meaning = get_task(table.task if task is None else task)
    columns = TableColumns(table, costs, goal.limit_unit if name == "max_cost" else unit, score, temperatures, meaning)
    about: dict[str, Any] = {"goal": {name: value}, "unit": unit, "samples": len(table), "data": dict(table.provenance)}
    if unit == "seconds":
        about["measured"] = dict(costs.conditions)
    if rule != "threshold":
        policy, learned = calibrate_rule(rule, table, costs, meaning, goal, columns.kind)
        return replace(policy, provenance={**about, **learned})  # type: ignore[type-var]
    if name == "risk":
        sure = 0.95 if confidence is None else confidence
        point, about["guarantee"] = control(
            columns.on(), table, meaning, value, 1 - sure, method or "ucb", goal.loss, seed or 0, bias
        )
        about["goal"]["confidence"] = sure
        points = [point]
    else:
        points = within(columns.on(), goal) if name == "max_cost" else candidates(columns.smoothed(), goal, shared)
    for point in points:
        thresholds = tuple(None if t is None else rounded_up(t) for t in point.thresholds)
        chosen = Threshold(thresholds, columns.kind, tuple(temperatures))
        kept, found = goal.judge(_entering(chosen, point.bias), table, costs, meaning)
        if kept:
            known = replace(chosen, provenance={**about, "judged_on": ["table"], "expected": found})
            return _entering(known, point.bias)
    raise GoalError(f"{name} {value:g} is out of reach: replayed on the table, no policy that was found keeps it")


def _entering(policy: Policy, bias: tuple[float, ...]) -> Policy:
    return Routed(policy, bias) if bias else policy


def _check_options(
    goal: str, promise: Mapping[str, Any], rule: str, temperatures: Any, shared: bool, score: str | None
) -> None:
    """Raise ``UsageError`` for what was given and would not be read."""
    for option, given in promise.items():
        if given is not None and goal != "risk":
            raise UsageError(f"{option} belongs to a promise about risk, and the goal is {goal}")
    if rule == "threshold":
        return
    reads_score = policy_of(rule).reads_score
    if goal not in ("max_drop", "target_speedup"):
        raise UsageError(f"the rule {rule!r} is calibrated for max_drop or target_speedup, not for {goal}")
    for option, given in {"temperatures": bool(temperatures), "shared": shared}.items():
        if given:
            raise UsageError(f"{option} belongs to the rule 'threshold'; the rule {rule!r} does not read it")
    if score is not None and not reads_score:
        raise UsageError(f"the rule {rule!r} reads no score of its exits: leave score out")
