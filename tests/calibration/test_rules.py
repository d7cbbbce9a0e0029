"""Every rule can be calibrated for a goal, and keeps it on the half it was chosen on."""

import pytest
import torch
from helpers import random_table, simple_costs

from offramp import GoalError, UsageError, calibrate, replay
from offramp.calibration import halves
from offramp.calibration.rules import rules
from offramp.policies import load_policy, save_policy
from offramp.registry import POLICIES
from offramp.tasks import Classification

pytestmark = pytest.mark.slow


def test_the_rules_are_the_policies_of_the_table_but_thresholds():
    assert set(rules()) == set(POLICIES) - {"threshold", "forced"} | {"exit-distribution"}


@pytest.mark.parametrize(
    "rule", [pytest.param(r, marks=pytest.mark.slowest) if r in ("gates", "scheduler") else r for r in rules()]
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
