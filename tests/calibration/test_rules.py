"""Every rule can be calibrated for a goal, and keeps it on the half it was chosen on."""

import math

import pytest
import torch
from helpers import random_table, simple_costs

from offramp import GoalError, UsageError, calibrate, replay
from offramp.calibration import halves
from offramp.calibration.rules import rules
from offramp.policies import load_policy, save_policy
from offramp.policies.expected_error import ExpectedError, fit_errors, looks_at
from offramp.registry import POLICIES
from offramp.tasks import Classification, get_task
from offramp.types import ExitTable

pytestmark = pytest.mark.slow


def test_the_rules_are_the_policies_of_the_table_but_thresholds():
    assert set(rules()) == set(POLICIES) - {"threshold", "forced"} | {"exit-distribution"}


OF_CLASSES = [rule for rule in rules() if rule != "expected-error"]


@pytest.mark.parametrize(
    "rule", [pytest.param(r, marks=pytest.mark.slowest) if r in ("gates", "scheduler") else r for r in OF_CLASSES]
)
def test_a_goal_is_kept_and_expected_is_what_replay_gives(rule, tmp_path):
    table, costs = random_table(3000, 5), simple_costs(5)
    policy = calibrate(table, costs, target_speedup=1.3, rule=rule)
    assert POLICIES.name_of(type(policy)) == ("threshold" if rule == "exit-distribution" else rule)
    save_policy(policy, tmp_path / "p.json")
    _, chosen = halves(table)
    trace = replay(load_policy(tmp_path / "p.json"), chosen)
    spent = torch.tensor(costs.to_exit(policy.heads), dtype=torch.float64)[trace.exit].mean()
    expected = policy.provenance["expected"]
    assert costs.macs.static / float(spent) == pytest.approx(expected["macs_speedup"], rel=1e-6)
    assert expected["macs_speedup"] >= 1.3
    right = Classification().quality(trace.output, chosen.targets).double().mean()
    assert float(right) == pytest.approx(expected["accuracy"])
    with pytest.raises(GoalError, match=f"out of reach for the rule '{rule}'; the nearest is a speed-up of"):
        calibrate(table, costs, target_speedup=100.0, rule=rule)


def test_rules_that_cannot_be():
    with pytest.raises(UsageError, match="did you mean 'vote'"):
        calibrate(random_table(), simple_costs(), max_drop=0.1, rule="votes")
    with pytest.raises(UsageError, match="not for risk"):
        calibrate(random_table(), simple_costs(), risk=0.1, rule="vote")


def counts_table(n=3000, seed=0, off=(0.3, 0.2, 0.12, 0.08, 0.05)):
    """Numbers whose exits are the worse the larger they are, by these shares of them."""
    g = torch.Generator().manual_seed(seed)
    targets = torch.rand(n, generator=g) * 40
    noise = torch.randn(5, n, generator=g) * targets * torch.tensor(off)[:, None]
    return ExitTable((targets + noise)[..., None], targets, (1, 2, 3, 4, 5), ("linear",) * 4 + ("final",), "counting")


def test_expected_errors_are_near_what_they_are_and_let_small_numbers_go_first():
    table, costs = counts_table(), simple_costs(4)
    policy = calibrate(table, costs, max_drop=0.5, rule="expected-error")
    fitted, chosen = halves(table)
    learned = fit_errors(fitted, range(4), get_task("counting"))
    for k, (weights, (own, moved)) in enumerate(zip(learned.weights, looks_at(chosen, range(4)), strict=True)):
        expected = (weights[0] + weights[1] * own + weights[2] * moved).exp()
        error = (chosen.of(k)[:, 0] - chosen.targets).abs()
        for few in (expected < expected.median(), expected >= expected.median()):
            assert float(expected[few].mean()) == pytest.approx(float(error[few].mean()), rel=0.15)
    trace = replay(policy, chosen)
    first = trace.exit == policy.heads[0]
    assert first.any(), "unlike change it speaks at the first exit"
    assert chosen.targets[first].mean() < chosen.targets[~first].mean()
    change = calibrate(table, costs, max_drop=0.5)
    found = [p.provenance["expected"]["macs_speedup"] for p in (policy, change)]
    assert found[0] > found[1]


def test_an_exit_that_takes_the_easy_samples_from_a_better_one_is_not_asked():
    """The first is off by more than all others, and costs half of what the next one costs."""
    table, costs = counts_table(off=(0.8, 0.12, 0.12, 0.12, 0.12)), simple_costs(4)
    policy = calibrate(table, costs, max_drop=0.1, rule="expected-error")
    assert policy.heads
    assert 0 not in policy.heads


def test_exits_that_are_never_wrong_are_expected_to_be_right():
    table = counts_table(off=(0.3, 0.0, 0.0, 0.0, 0.0))
    policy = calibrate(table, simple_costs(4), max_drop=0.0, rule="expected-error")
    assert {*replay(policy, table).exit.tolist()} == {1}


def test_expected_errors_are_for_numbers():
    with pytest.raises(UsageError, match="expected errors are those of numbers, and classification answers classes"):
        calibrate(random_table(), simple_costs(), max_drop=0.1, rule="expected-error")
    for wrong in ({"limit": -1.0}, {"limit": math.inf}, {"weights": ()}, {"weights": ((1.0, 2.0),)}):
        with pytest.raises(UsageError):
            ExpectedError(**{"limit": 1.0, "heads": (0,), "weights": ((0.0, 0.0, 0.0),), **wrong})
    with pytest.raises(UsageError, match="finite"):
        ExpectedError(1.0, (0,), ((math.nan, 0.0, 0.0),))
