"""Thresholds that fall with load stay inside what was promised."""

import math

import numpy as np
import pytest
import torch
from helpers import random_table, simple_costs

from offramp import GoalError, UsageError, calibrate
from offramp.calibration.losses import exit_losses
from offramp.calibration.risk import losses_at
from offramp.policies.threshold import Threshold
from offramp.search import columns_of
from offramp.serving import ladder
from offramp.tasks import Classification

pytestmark = pytest.mark.slow

RISK, DELTA = 0.2, 0.1


@pytest.mark.parametrize("method", ["ucb", pytest.param("ltt", marks=pytest.mark.slowest)])
def test_whatever_the_load_does_the_risk_is_what_was_promised(method):
    """A thousand draws; each is judged by the worst step of its ladder, on everybody it was drawn from."""
    everybody, costs = random_table(20_000), simple_costs()
    scores = columns_of(everybody, costs).scores
    losses = exit_losses(everybody, Classification(), "disagreement", torch.zeros(len(everybody)))
    tested = np.linspace(1, 0, 129)
    risks = {t: float(losses_at(scores, losses, t).mean()) for t in tested.tolist()}
    rng, broken, steps, draws = np.random.default_rng(0), 0, [], 1000
    for draw in range(draws):
        some = everybody.take(torch.from_numpy(rng.choice(len(everybody), 300, replace=False)))
        try:
            policy = calibrate(some, costs, risk=RISK, confidence=1 - DELTA, method=method, seed=draw)
        except GoalError:
            continue
        if policy.thresholds[0] is None:
            continue
        found = ladder(policy, 1.0)
        steps.append(len(found))
        broken += max(risks[p.thresholds[0]] for p in found) > RISK
    assert np.mean(steps) > 3, "there is something to climb"
    assert broken / draws <= DELTA + 2 * math.sqrt(DELTA * (1 - DELTA) / draws)


def test_steps_fall_from_the_strictest_to_the_promised_on_the_grid_that_was_tested():
    policy = calibrate(random_table(3000), simple_costs(), risk=0.2)
    lowest = policy.thresholds[0]
    for strictest, levels in ((1.0, 8), (lowest + 0.1, 4), (lowest, 8), (1.0, 1), (1.0, 500)):
        found = ladder(policy, strictest, levels)
        thresholds = [step.thresholds[0] for step in found]
        assert len(found) <= levels
        assert thresholds == sorted({*thresholds}, reverse=True)
        assert all(threshold * 128 == round(threshold * 128) for threshold in thresholds)
        assert thresholds[-1] == lowest
        assert levels == 1 or strictest <= thresholds[0] < strictest + 1 / 128
        assert all({*step.thresholds} == {step.thresholds[0]} and step.heads == policy.heads for step in found)


def test_without_a_promise_there_is_no_ladder():
    table, costs = random_table(3000), simple_costs()
    promised = calibrate(table, costs, risk=0.2)
    for policy in (
        calibrate(table, costs, max_drop=0.05),
        calibrate(table, costs, risk=0.2, method="crc"),
        calibrate(table, costs, risk=0.2, method="naive"),
        calibrate(table, costs, max_drop=0.05, rule="vote"),
    ):
        with pytest.raises(UsageError, match="a ladder needs thresholds with a promise by ucb or ltt"):
            ladder(policy, 1.0)
    with pytest.raises(UsageError, match="one threshold for all exits"):
        ladder(Threshold((0.5, 0.6, 0.7), provenance=promised.provenance), 1.0)
    for strictest in (promised.thresholds[0] - 0.01, 1.01, math.nan):
        with pytest.raises(UsageError, match="a ladder goes from"):
            ladder(promised, strictest)
