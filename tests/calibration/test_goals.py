"""A goal that calibration accepts holds when the policy is replayed, on whatever table; or it says that it cannot."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import random_table, simple_costs

from offramp import CostTable, ExitTable, GoalError, UsageError, calibrate, replay
from offramp.calibration import halves
from offramp.calibration.losses import LOSSES
from offramp.calibration.risk import METHODS
from offramp.calibration.rules import rules
from offramp.tasks import get_task
from offramp.types import PartCosts

pytestmark = pytest.mark.slow

SHAPES = ("plain", "coarse", "doubled", "equal", "neighbours")
"""``coarse``: many scores are equal; ``neighbours``: scores that no float32 lies between."""
SCORES = {"classification": get_task("classification").scores, "counting": ("change",)}


def drawn(generator: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (1,), generator=generator))


def a_table(task: str, shape: str, g: torch.Generator, samples: int, exits: int) -> ExitTable:
    """Random answers that get better from exit to exit, or do not."""
    if task == "counting":
        targets = torch.randint(0, 20, (samples,), generator=g).float()
        outputs = torch.stack([targets + torch.randn(samples, generator=g) * (exits + 1 - k) for k in range(exits + 1)])
        outputs = outputs[..., None] + drawn(g, 0, 1) * 1000
        targets = targets + 1000 * (outputs.mean() > 500)
    else:
        classes = drawn(g, 2, 5)
        targets = torch.randint(classes, (samples,), generator=g)
        right = torch.nn.functional.one_hot(targets, classes) * 2.0
        outputs = torch.stack([torch.randn(samples, classes, generator=g) + right for _ in range(exits + 1)])
    if shape == "coarse":
        outputs = outputs.round()
    if shape == "doubled":
        outputs, targets = outputs.repeat(1, 2, 1), targets.repeat(2)
    if shape == "equal":
        outputs = outputs[:1].expand_as(outputs).clone()
    if shape == "neighbours":
        steps = torch.randperm(samples, generator=g).float() * 2**-23
        if task == "counting":  # the exit before answers the same but for a few millionths
            outputs[1:] = outputs[:1] + 2**-10 + steps[:, None] * 2**10 * torch.arange(1, exits + 1)[:, None, None]
        else:
            outputs = outputs.sign() * (1 + steps[:, None])
    return ExitTable(outputs, targets, tuple(range(1, exits + 2)), ("x",) * exits + ("final",), task)


def a_cost_table(g: torch.Generator, exits: int) -> CostTable:
    """Heads are free, cheap, dear, or dearer than the whole backbone; seconds have long tails."""

    def parts(scale: float) -> PartCosts:
        steps = (torch.rand(exits + 1, generator=g).double() + 0.1) * scale
        heads = torch.rand(exits, generator=g).double() * scale * (0.0, 0.1, 1.0, 20.0)[drawn(g, 0, 3)]
        return PartCosts(0.1 * scale, tuple(steps.tolist()), tuple(heads.tolist()), 0.1 * scale)

    seconds = parts(1e-3)
    tails = iter((1 + torch.rand(2 * exits + 3, generator=g).double()).tolist())
    p95 = PartCosts(
        seconds.stem * next(tails),
        tuple(s * next(tails) for s in seconds.steps),
        tuple(s * next(tails) for s in seconds.heads),
        seconds.final * next(tails),
    )
    return CostTable(tuple(range(1, exits + 1)), parts(1e9), seconds, p95=p95)


def a_goal(g: torch.Generator, task: str, costs: CostTable, unit: str) -> dict[str, float]:
    tight = float(torch.rand(1, generator=g))
    limit = costs.in_unit("p95" if unit == "seconds" else unit).static
    return (
        {"max_drop": 0.0},
        {"max_drop": tight / 10 if task == "classification" else tight},
        {"target_speedup": 1.0 + 2 * tight**2},
        {"max_cost": limit * (0.3 + tight)},
    )[drawn(g, 0, 3)]


def assert_kept(policy, goal: dict[str, float], table: ExitTable, costs: CostTable, unit: str) -> None:
    """By this file's own arithmetic, on what replay says."""
    task, trace, n = get_task(table.task), replay(policy, table), len(table)
    to_exit = costs.to_exit(policy.heads, unit)
    if "max_cost" in goal:
        to_exit = costs.to_exit(policy.heads, "p95" if unit == "seconds" else unit)
        assert max(to_exit[k] for k in trace.exit.tolist()) <= goal["max_cost"] * (1 + 1e-9)
    elif "target_speedup" in goal:
        mean = math.fsum(to_exit[k] for k in trace.exit.tolist()) / n
        assert costs.in_unit(unit).static / mean >= goal["target_speedup"] * (1 - 1e-9)
    else:
        sign = 1 if task.higher_is_better else -1
        gained = (task.quality(o, table.targets).double().tolist() for o in (trace.output, table.outputs[-1]))
        dynamic, static = (sign * math.fsum(values) / n for values in gained)
        assert static - dynamic <= goal["max_drop"] + 1e-9 * max(1.0, abs(static))


def cases(task: str, shape: str, count: int, at_least: int = 1):
    for seed in range(count):
        g = torch.Generator().manual_seed(seed)
        exits = drawn(g, 0, 5)
        table = a_table(task, shape, g, at_least if seed % 10 == 0 else drawn(g, at_least, 60), exits)
        costs, unit = a_cost_table(g, exits), ("macs", "seconds")[drawn(g, 0, 1)]
        yield g, table, costs, unit


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("task", SCORES)
def test_thresholds_keep_their_goal_when_they_are_replayed(task, shape):
    kept = 0
    for g, table, costs, unit in cases(task, shape, 60):
        goal, score = a_goal(g, task, costs, unit), SCORES[task][drawn(g, 0, len(SCORES[task]) - 1)]
        options = {"shared": bool(drawn(g, 0, 1)), "score": score, "unit": unit}
        if task == "classification" and drawn(g, 0, 1):
            options["temperatures"] = (1.7,) * len(table.outputs)
        try:
            policy = calibrate(table, costs, **goal, **options)
        except GoalError:
            assert "max_drop" not in goal, "who never leaves early loses nothing"
            continue
        kept += 1
        assert_kept(policy, goal, table, costs, unit)
        expected, trace = policy.provenance["expected"], replay(policy, table)
        spent = torch.tensor(costs.to_exit(policy.heads, unit), dtype=torch.float64)[trace.exit].mean()
        assert expected[f"{unit}_speedup"] == pytest.approx(costs.in_unit(unit).static / float(spent), rel=1e-9)
        assert not options["shared"] or len({policy.thresholds[k] for k in policy.heads}) <= 1
    assert kept > 30


@pytest.mark.slowest
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", SCORES)
def test_a_risk_is_no_larger_on_its_own_samples(task, method):
    meaning, early = get_task(task), 0
    for shape in SHAPES:
        for g, table, costs, _ in cases(task, shape, 20, at_least=40):
            loss = "disagreement" if task == "counting" else LOSSES[drawn(g, 0, 1)]
            risk = 0.1 + 0.4 * float(torch.rand(1, generator=g))
            try:
                policy = calibrate(table, costs, risk=risk, confidence=0.6, method=method, loss=loss)
            except GoalError:
                continue
            trace, final = replay(policy, table), table.outputs[-1]
            lost = meaning.answer(trace.output) != meaning.answer(final)
            if loss == "gap":
                lost = meaning.quality(trace.output, table.targets) < meaning.quality(final, table.targets)
            assert float(lost.double().mean()) <= risk + 1e-9
            early += int((trace.exit < len(table.outputs) - 1).any())
    assert early > 20


def test_a_threshold_of_the_grid_that_float32_puts_on_a_score():
    """0.7 is a little more than the float32 next to it, and all samples score that."""
    apart = torch.tensor(1 / 0.7 - 1)
    scores = 1 / (1 + torch.full((100,), float(apart)))
    assert (scores >= 0.7).all(), "compared in float32"
    assert not (scores.double() >= 0.7).any()
    outputs = torch.stack([torch.zeros(100), torch.full((100,), float(apart)), torch.ones(100)])[..., None]
    table = ExitTable(outputs, torch.ones(100), (1, 2, 3), ("x", "x", "final"), "counting")
    costs = CostTable((1, 2), PartCosts(1.0, (1.0,) * 3, (0.1,) * 2, 1.0))
    policy = calibrate(table, costs, risk=0.1, method="naive")
    assert (replay(policy, table).exit == 2).all(), "whoever leaves early answers something else"


@pytest.mark.slowest
@pytest.mark.parametrize("rule", rules())
@pytest.mark.parametrize("task", SCORES)
def test_every_rule_keeps_its_goal_on_its_half_and_on_the_table(task, rule):
    count = {"scheduler": 1, "gates": 2, "ensemble": 2, "cascade": 2, "exit-distribution": 2}.get(rule, 5)
    kept = tried = 0
    for shape in SHAPES[1:3] if rule == "scheduler" else SHAPES:
        for g, table, costs, unit in cases(task, shape, count + 1, at_least=2):
            tight = float(torch.rand(1, generator=g))
            goal = ({"max_drop": tight / 5}, {"target_speedup": 1 + tight / 3})[drawn(g, 0, 1)]
            tried += 1
            try:
                policy = calibrate(table, costs, **goal, rule=rule, unit=unit)
            except GoalError:
                continue
            except UsageError:
                classes = task == "classification"
                if rule not in (["expected-error"] if classes else ["reliability", "gates", "scheduler"]):
                    raise
                kept += 1  # these read numbers, those read classes, and say so
                continue
            kept += 1
            assert_kept(policy, goal, table, costs, unit)
            assert_kept(policy, goal, halves(table)[1], costs, unit)
    assert kept > tried / 10


def test_what_a_goal_was_judged_on_is_said():
    table, costs = random_table(), simple_costs()
    assert calibrate(table, costs, max_drop=0.1).provenance["judged_on"] == ["table"]
    both = ["the half of the table that it was chosen on", "table"]
    assert calibrate(table, costs, max_drop=0.1, rule="vote").provenance["judged_on"] == both


def test_a_score_that_compares_is_searched_with_the_exits_that_are_on():
    """Exit 1 says when exit 2 is right, and is of no other use: switched off, nobody would leave at exit 2."""
    targets = torch.arange(200.0)
    wrong = (targets >= 100).float()
    outputs = torch.stack([targets + 100, targets + 30 * wrong, targets + 10 * wrong, targets])[..., None]
    table = ExitTable(outputs, targets, (1, 2, 3, 4), ("x", "x", "x", "final"), "counting")
    costs = CostTable((1, 2, 3), PartCosts(0.0, (10.0,) * 4, (0.1,) * 3, 0.0))
    policy = calibrate(table, costs, target_speedup=1.1)
    assert policy.heads == (1, 2)
    assert policy.provenance["expected"]["mae"] == 0
    assert_kept(policy, {"target_speedup": 1.1}, table, costs, "macs")


def test_a_rule_needs_two_samples_and_an_exit():
    with pytest.raises(UsageError, match="needs two halves of a table"):
        calibrate(random_table(1), simple_costs(), max_drop=0.1, rule="gates")
    with pytest.raises(GoalError, match="nothing to choose from with 0 early exits"):
        calibrate(random_table(10, exits=0), simple_costs(0), max_drop=0.1, rule="ensemble")
    assert calibrate(random_table(1), simple_costs(), max_drop=0.0).provenance["samples"] == 1
    assert calibrate(random_table(10, exits=0), simple_costs(0), max_drop=0.0).thresholds == ()
