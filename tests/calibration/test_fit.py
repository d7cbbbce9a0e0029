"""What learned policies learn, and what that is worth on a table where it can be known."""

import numpy as np
import pytest
import torch
from helpers import random_table, simple_costs
from sklearn.isotonic import IsotonicRegression

import offramp
from offramp import UsageError
from offramp.calibration import (
    columns_of,
    fit_cascade,
    fit_ensemble,
    fit_gates,
    fit_maps,
    fit_scheduler,
    fit_temperatures,
    frontier,
    halves,
)
from offramp.calibration.references import at_random, oracle
from offramp.policies.threshold import Threshold
from offramp.search.budget import exit_distribution, quota_thresholds
from offramp.search.frontier import evaluate


@pytest.fixture
def both():
    table, costs = random_table(2000), simple_costs()
    return table, columns_of(table, costs)


def test_a_temperature_is_found_again():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4000, 5, generator=generator) * 2
    targets = torch.stack([torch.multinomial(row.softmax(1), 1, generator=generator)[:, 0] for row in logits])[0]
    table = offramp.ExitTable(
        torch.stack([logits[0] * 3, logits[0] / 2]), targets, (1, 2), ("x", "final"), "classification"
    )
    assert fit_temperatures(table) == pytest.approx((3.0, 0.5), rel=0.1)
    a, b = halves(table)
    assert len(a) == len(b) == 2000
    policy = Threshold((0.9,), temperatures=(3.0, 0.5))
    sure = table.outputs[0].div(3).softmax(1).amax(1) >= 0.9
    assert torch.equal(offramp.replay(policy, table).exit == 0, sure)
    with pytest.raises(UsageError, match="2 temperatures above 0"):
        Threshold((0.9,), temperatures=(1.0,))


def test_the_exit_distribution_meets_its_budget(both):
    _, columns = both
    heads = np.array([*columns.heads, 0.0])
    costs = (np.array(columns.segments) + heads).cumsum()
    shares = np.array(exit_distribution(columns, 25.0))
    assert shares @ costs == pytest.approx(25.0, rel=1e-6)
    assert shares[1:] / shares[:-1] == pytest.approx([shares[1] / shares[0]] * 3)
    thresholds = quota_thresholds(columns.scores, tuple(shares))
    assert evaluate(columns, thresholds).shares == pytest.approx(shares, abs=0.002)
    with pytest.raises(offramp.GoalError, match="exits cost from 12 to 45"):
        exit_distribution(columns, 5.0)


def test_maps_rise_and_say_how_often_an_exit_was_right(both):
    _, columns = both
    for (places, values), scores, quality in zip(fit_maps(columns), columns.scores, columns.quality, strict=False):
        assert list(values) == sorted(values)
        fitted = IsotonicRegression(out_of_bounds="clip").fit(scores, quality).predict(scores)
        assert np.abs(np.interp(scores, places, values) - fitted).mean() < 0.02


def test_an_ensemble_is_at_least_as_likely_as_its_last_member(both):
    table, _ = both
    fitted = fit_ensemble(table, (0, 1, 2))
    task, state = offramp.tasks.Classification(), fitted.init(len(table))
    for k in (0, 1, 2):
        output = table.outputs[k]
        decision = fitted.step(state, offramp.Evidence(k, output, task.score("confidence", output, None), task))
        state = decision.state
        assert task.loss(decision.output, table.targets) <= task.loss(output, table.targets) + 1e-3


def test_a_cascade_is_at_least_as_likely_as_its_exits_and_gradients_stop(both):
    table, _ = both
    fitted, shorter = fit_cascade(table, (0, 1, 2)), fit_cascade(table, (0, 1))
    assert fitted.links[:1] == shorter.links, "what a later exit learns changes nothing before it"
    task, state = offramp.tasks.Classification(), fitted.init(len(table))
    for k in (0, 1, 2):
        output = table.outputs[k]
        decision = fitted.step(state, offramp.Evidence(k, output, task.score("confidence", output, None), task))
        state = decision.state
        gained = task.loss(output, table.targets) - task.loss(decision.output, table.targets)
        assert gained == 0 if k == 0 else gained > 1e-3


def test_a_gate_lets_more_go_at_a_higher_price(both):
    table, columns = both
    shares = []
    for price in (0.3, 1.5, 10.0):
        trace = offramp.replay(fit_gates(table, columns, (0, 1, 2), price), table)
        shares.append(float((trace.exit == 0).double().mean()))
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.95


@pytest.mark.parametrize("heads", [(0, 1, 2), (0, 2)])
def test_the_scheduler_meets_its_budget(both, heads):
    table, columns = both
    policy = fit_scheduler(table, columns, heads, budget=25.0)
    trace = offramp.replay(policy, table)
    spent = torch.tensor(simple_costs().to_exit(heads), dtype=torch.float64)[trace.exit].mean()
    assert float(spent) == pytest.approx(25.0, rel=0.1)
    right = (trace.output.argmax(1) == table.targets).double().mean()
    chance = at_random(columns, tuple((torch.bincount(trace.exit, minlength=4) / len(table)).tolist()))
    assert float(right) > chance.quality


def test_references_are_below_and_above(both):
    _, columns = both
    best = oracle(columns)
    assert all(point.quality <= best.quality for point in frontier(columns))
    for point in frontier(columns):
        assert at_random(columns, point.shares).quality <= point.quality + 0.02
