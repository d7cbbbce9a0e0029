"""Risk control: bounds against brute force, promises against simulation, the published mistake against both."""

import math

import numpy as np
import pytest
import torch
from helpers import random_table, simple_costs
from scipy.stats import binom

from offramp import calibrate, replay
from offramp.calibration.bounds import betting_bound, p_value
from offramp.calibration.risk import exit_losses, last_passed, samples_needed
from offramp.tasks import Classification


def test_the_betting_bound_is_the_least_mean_that_is_refuted():
    losses = np.random.default_rng(0).binomial(1, 0.1, 300).astype(float)
    bound = betting_bound(losses, 0.05)

    def capital(mean):
        """Written out step by step."""
        total, best, seen, spread = 0.0, -math.inf, 0.0, 0.0
        variance = 0.25
        for t, loss in enumerate(losses, start=1):
            bet = min(math.sqrt(2 * math.log(20) / (len(losses) * variance)), 1.0)
            total += math.log(1 - bet * (loss - mean))
            best = max(best, total)
            seen += loss
            spread += (loss - (0.5 + seen) / (1 + t)) ** 2
            variance = (0.25 + spread) / (1 + t)
        return best

    assert capital(bound + 1e-6) > math.log(20)
    assert capital(bound - 1e-6) <= math.log(20)
    assert losses.mean() < bound < losses.mean() + 0.1


def test_p_values():
    losses = np.array([0.0] * 95 + [1.0] * 5)
    assert p_value(losses, 0.1) == pytest.approx(binom.cdf(5, 100, 0.1))
    halves = losses * 0.5
    bentkus = math.e * binom.cdf(3, 100, 0.1)
    a = 0.025
    hoeffding = math.exp(-100 * (a * math.log(a / 0.1) + (1 - a) * math.log((1 - a) / 0.9)))
    assert p_value(halves, 0.1) == pytest.approx(min(bentkus, hoeffding))
    assert p_value(np.ones(10), 0.5) == 1.0


@pytest.mark.parametrize("method", ["ucb", "ltt", "crc"])
def test_the_number_of_samples_needed_is_exact(method):
    from offramp.calibration.risk import _passes

    for risk in (0.01, 0.05, 0.2):
        n = samples_needed(risk, 0.05, method)
        assert _passes(np.zeros(n), risk, 0.05, method)
        assert not _passes(np.zeros(n - 1), risk, 0.05, method)


def first_failed(grid, losses, risk, delta, method):
    """The mistake of the published code: the first threshold that failed is returned."""
    passed = last_passed(grid, losses, risk, delta, method)
    if passed is None:
        return float(grid[0])
    rows = np.flatnonzero(grid == passed)[0] + 1
    return float(grid[min(rows, len(grid) - 1)])


def violations(method, choose, draws=1000, n=500, risk=0.05, delta=0.1):
    """How often the true risk of the chosen threshold is above what was promised, and the mean of the true risks.

    A sample loses at every threshold below its own uniform number, times two: the true risk at ``t`` is (1 − t) / 2.
    """
    grid = np.linspace(1, 0.8, 6)
    true = []
    for draw in range(draws):
        own = np.random.default_rng((1, draw)).random(n) * 2
        chosen = choose(grid, lambda t, own=own: (own < 1 - t).astype(float), risk, delta, method)
        true.append(0.0 if chosen is None else (1 - chosen) / 2)
    return np.mean(np.array(true) > risk + 1e-12), np.mean(true)


@pytest.mark.parametrize("method", ["ucb", "ltt"])
def test_promises_hold_and_the_published_mistake_breaks_them(method):
    limit = 0.1 + 2 * math.sqrt(0.1 * 0.9 / 1000)
    assert violations(method, last_passed)[0] <= limit
    assert violations(method, first_failed)[0] > limit


def test_conformal_risk_control_holds_on_average():
    assert violations("crc", last_passed, risk=0.05)[1] <= 0.05
    assert violations("crc", first_failed, risk=0.05)[1] > 0.05


@pytest.mark.parametrize("loss", ["disagreement", "gap", "brier"])
def test_losses_of_exits(loss):
    table, task = random_table(), Classification()
    found = exit_losses(table, task, loss)
    assert found.shape == (4, 400)
    assert (found[-1] == 0).all()
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    answers = table.outputs.argmax(2)
    if loss == "disagreement":
        assert torch.equal(found[0], (answers[0] != answers[3]).double())
    if loss == "gap":
        right = answers == table.targets
        assert torch.equal(found[1], (right[3] & ~right[1]).double())


def test_a_policy_with_a_promise_says_so():
    table, costs = random_table(3000), simple_costs()
    policy = calibrate(table, costs, risk=0.1, confidence=0.9, method="ltt", loss="gap")
    promise = policy.provenance["guarantee"]
    assert promise["sentence"] == (
        "With 90 % confidence, a wrong answer where the full model's is right in at most 10 % of cases like those it "
        "was calibrated on."
    )
    assert promise["samples"] == 3000
    answers = replay(policy, table).output.argmax(1)
    lost = (answers != table.targets) & (table.outputs[-1].argmax(1) == table.targets)
    assert float(lost.double().mean()) <= 0.1
    assert "No promise" in calibrate(table, costs, risk=0.1, method="naive").provenance["guarantee"]["sentence"]
