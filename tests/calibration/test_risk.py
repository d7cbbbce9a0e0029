"""Risk control: tests against brute force, promises against simulation, the mistakes against both."""

import argparse
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.guarantees.promises import promised, unshuffled
from benchmarks.guarantees.world import COSTS, World
from helpers import random_table, simple_costs
from scipy.stats import binom

from offramp import DataError, GoalError, UsageError, calibrate, replay
from offramp.calibration import columns_of, control
from offramp.calibration.bounds import p_value, refuted
from offramp.calibration.losses import exit_losses, loss_of
from offramp.calibration.order import random_order
from offramp.calibration.risk import METHODS, last_passed, samples_needed
from offramp.tasks import Classification, Counting
from offramp.types import ExitTable

pytestmark = pytest.mark.slow


def test_a_mean_is_refuted_where_betting_against_it_wins():
    losses = np.random.default_rng(0).binomial(1, 0.1, 300).astype(float)

    def capital(mean):
        """Written out step by step; each bet is made before its loss is read."""
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

    means = np.linspace(losses.mean() + 0.001, 0.3, 60)
    assert [refuted(losses, mean, 0.05) for mean in means] == [capital(mean) > math.log(20) for mean in means]
    assert {refuted(losses, mean, 0.05) for mean in means} == {True, False}
    assert not refuted(np.array([0.0] * 900 + [1.0] * 300), 0.2, 0.05), "the mean itself is above"


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
@pytest.mark.parametrize("delta", [0.5, 0.05, 1e-9])
def test_the_number_of_samples_needed_is_exact(method, delta):
    from offramp.calibration.risk import _passes

    for risk in (0.01, 0.05, 0.07, 0.2, 0.7):
        n = samples_needed(risk, delta, method)
        assert _passes(np.zeros(n), risk, delta, method)
        assert n == 1 or not _passes(np.zeros(n - 1), risk, delta, method)
    assert samples_needed(0.001, 0.05, "ucb") == 3067


@pytest.mark.parametrize("method", ["ucb", "ltt", "crc"])
@pytest.mark.parametrize("risk", [4e-6, 1e-9, 1e-12])
def test_a_tiny_risk_takes_no_memory_to_refuse(method, risk):
    least = {"ucb": -math.log(0.05) / risk, "ltt": -math.log(0.05) / risk, "crc": 1 / risk}[method]
    tracemalloc.start()
    needed = samples_needed(risk, 0.05, method)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert least * 0.999 <= needed <= least * 1.03
    assert peak < 2e8
    with pytest.raises(
        GoalError, match=f"400 samples cannot promise a risk of {risk:g} by {method}: at least {needed}"
    ):
        calibrate(random_table(400), simple_costs(), risk=risk, method=method)


SMALL = argparse.Namespace(n=2000, risk=0.05, delta=0.05, seed=3)


@pytest.mark.parametrize("by_class", [False, True], ids=["shuffled", "class by class"])
@pytest.mark.parametrize("method", METHODS)
def test_promises_hold_in_any_order_of_the_samples_and_the_published_mistake_breaks_them(method, by_class):
    kept, broken = promised(World(), method, by_class, 200, SMALL)
    assert kept["returns"] == "last passed"
    if method in ("ucb", "ltt"):
        assert kept["violations"] <= kept["limit"] < broken["violations"]
    if method == "crc":
        assert kept["mean_risk"] <= 0.05 < broken["mean_risk"]
    if method == "naive":
        assert kept["violations"] > kept["limit"]


def test_losses_between_0_and_1_are_promised_too():
    for method in ("ucb", "ltt", "crc"):
        row = promised(World(loss="brier"), method, True, 100, SMALL)[0]
        assert row["mean_risk"] <= 0.05 if method == "crc" else row["violations"] <= row["limit"]


def test_rows_class_by_class_break_a_bound_that_reads_them_as_they_come():
    assert unshuffled(World(), True, 60, SMALL)["violations"] > 0.2
    assert unshuffled(World(), False, 60, SMALL)["violations"] <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 60)


def test_conformal_risk_control_holds_where_losses_fall_again():
    """First all lose a little, then few lose much: without the largest loss so far the mean risk is 8 % too large."""
    n, risk = 100, 5.0001 / 101
    grid = np.linspace(1, 0, 129)
    small = risk * (n + 1) / n - 1 / n
    means = {1.0: 0.0} | dict(zip(grid[1:].tolist(), np.linspace(small - 1e-9, 4 * small, 128).tolist(), strict=True))
    true = []
    for draw in range(2000):
        own = np.random.default_rng(draw).random(n)

        def losses(threshold, own=own):
            mean = means[threshold]
            return np.full(n, mean) if mean < small else (own < mean).astype(float)

        true.append(means[last_passed(grid, losses, risk, 0.05, "crc")])
    assert np.mean(true) <= risk


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", ["disagreement", "gap", "brier"])
def test_the_order_of_the_rows_changes_nothing(method, loss):
    table = World().table(np.random.default_rng(0), 800, True)
    outputs, targets = table.outputs.clone(), table.targets.clone()
    outputs[:, 400:600], targets[400:600] = outputs[:, :200], targets[:200]  # some samples are there twice
    table = replace(table, outputs=outputs, targets=targets)
    found = []
    own = random_order(table, 0)[0]
    for rows in (torch.arange(800), torch.arange(799, -1, -1), torch.randperm(800), own, own.argsort()):
        shuffled = table.take(rows)
        found.append(control(columns_of(shuffled, COSTS), shuffled, Classification(), 0.1, 0.1, method, loss))
    assert all(point.thresholds == found[0][0].thresholds and record == found[0][1] for point, record in found)
    assert found[0][0].thresholds[0] is not None


def test_the_order_is_random_for_each_table_and_each_seed():
    """What stands first is no matter of where it stood, of what it is, or of how often it is there."""
    rows = 200
    few = torch.arange(rows) % 4 == 0
    places, seen = [], set()
    for draw in range(300):
        values = torch.zeros(2, rows, 3)
        values[0, :, 0] = few.float()
        values[1, 0, 2] = draw
        table = ExitTable(values, torch.zeros(rows, dtype=torch.long), (1, 2), ("linear", "final"), "classification")
        order, digest = random_order(table, 0)
        assert sorted(order.tolist()) == list(range(rows))
        places.append(few[order].double())
        seen |= {digest}
    share = torch.stack(places).mean(0)
    assert len(seen) == 300
    assert float((share - 0.25).abs().max()) < 5 * math.sqrt(0.25 * 0.75 / 300)
    orders = {tuple(random_order(table, seed)[0].tolist()) for seed in (-1, 0, 1, 2**70)}
    assert len(orders) == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tables_of_any_dtype(dtype):
    table = random_table(600)
    table = replace(table, outputs=table.outputs.to(dtype), targets=table.targets.to(torch.int32))
    policy = calibrate(table, simple_costs(), risk=0.3, method="ltt")
    assert len(policy.provenance["guarantee"]["digest"]) == 16


class Told(Classification):
    """Classes whose score stands in the last column."""

    def score(self, kind, output, previous):
        return output[:, -1].float()


@pytest.mark.parametrize("method", METHODS)
def test_scores_that_stand_on_a_threshold_are_counted_as_the_policy_will_count_them(method):
    """In float32, 0.9 is less than 0.9, and a comparison with 0.9 in float32 is not one in float64."""
    steps = np.linspace(1, 0, 101).astype(np.float32)
    for own in steps[5:60:7]:
        n = 1000
        outputs = torch.zeros(2, n, 3)
        outputs[0, :, -1] = float(own)
        outputs[0, :, 0], outputs[1, :, 1] = 2.0, 2.0  # whoever leaves is wrong
        outputs[0, : n // 2, -1], outputs[0, : n // 2, 1] = 0.99, 3.0  # but for those who are surer
        table = ExitTable(outputs, torch.ones(n, dtype=torch.long), (1, 2), ("linear", "final"), "classification")
        costs = simple_costs(1)
        point, _ = control(columns_of(table, costs, task=Told()), table, Told(), 0.1, 0.1, method)
        policy = calibrate(table, costs, risk=0.1, confidence=0.9, method=method, task=Told())
        assert policy.thresholds == point.thresholds
        lost = replay(policy, table, Told()).output.argmax(1) != 1
        assert float(lost.double().mean()) <= 0.1


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
    right = answers == table.targets
    if loss == "gap":
        assert torch.equal(found[1], (right[3] & ~right[1]).double())
    if loss == "brier":
        true = torch.nn.functional.one_hot(table.targets, 5)
        scores = ((table.outputs.double().softmax(2) - true) ** 2).sum(2)
        assert torch.allclose(found[2], ((scores[2] - scores[3]) / 2).clamp(min=0), atol=1e-6)
        worst = torch.tensor([[90.0, -90.0]]), torch.tensor([[-90.0, 90.0]]), torch.tensor([1])
        assert float(loss_of("brier", *worst, task)) == 1


def test_what_cannot_be_promised_gets_one_sentence():
    table, costs = random_table(), simple_costs()
    columns = columns_of(table, costs)
    for arguments, sentence in (
        ((0.1, 0.1, "ucbb"), "did you mean 'ucb'"),
        ((0.1, 0.1, "ucb", "gapp"), "did you mean 'gap'"),
        ((0.1, 0.0), "it lies between 0 and 1"),
        ((0.1, 1.0), "it lies between 0 and 1"),
        ((0.1, math.nan), "it lies between 0 and 1"),
        ((1e-13, 0.1), "between 1e-12 and 1"),
        ((1.0, 0.1), "between 1e-12 and 1"),
        ((math.nan, 0.1), "between 1e-12 and 1"),
    ):
        with pytest.raises(UsageError, match=sentence):
            control(columns, table, Classification(), *arguments)
    with pytest.raises(UsageError, match="'gap' is for classes"):
        control(columns, table, Counting(), 0.1, 0.1, loss="gap")
    broken = replace(table, outputs=table.outputs.clone())
    broken.outputs[-1, 7] = math.nan
    with pytest.raises(DataError, match="losses are not finite"):
        control(columns, broken, Classification(), 0.1, 0.1, loss="brier")


@pytest.mark.parametrize("delta", [5e-324, 1e-12, 1 - 1e-12])
def test_confidence_may_be_nearly_0_or_nearly_1(delta):
    table = random_table(3000)
    columns = columns_of(table, simple_costs())
    for method in ("ucb", "ltt"):
        point, record = control(columns, table, Classification(), 0.3, delta, method)
        assert record["delta"] == delta
        assert sum(point.shares) == pytest.approx(1)


def test_a_policy_with_a_promise_says_so():
    table, costs = random_table(3000), simple_costs()
    policy = calibrate(table, costs, risk=0.1, confidence=0.9, method="ltt", loss="gap")
    promise = policy.provenance["guarantee"]
    assert promise["sentence"] == (
        "With 90 % confidence, a wrong answer where the full model's is right in at most 10 % of cases like those it "
        "was calibrated on."
    )
    assert promise["samples"] == 3000
    assert promise["seed"] == 0
    answers = replay(policy, table).output.argmax(1)
    lost = (answers != table.targets) & (table.outputs[-1].argmax(1) == table.targets)
    assert float(lost.double().mean()) <= 0.1
    assert "No promise" in calibrate(table, costs, risk=0.1, method="naive").provenance["guarantee"]["sentence"]
    assert calibrate(table, costs, risk=0.1, seed=7).provenance["guarantee"]["seed"] == 7
    with pytest.raises(UsageError, match="seed belongs to a promise about risk"):
        calibrate(table, costs, max_drop=0.1, seed=0)


NUMBERS = torch.tensor([[[1.0], [9.0], [4.0]], [[2.0], [5.0], [4.5]], [[2.0], [4.0], [8.0]]])


def counted(targets=(2.0, 5.0, 4.0)):
    return ExitTable(NUMBERS, torch.tensor(targets), (1, 2, 3), ("linear", "linear", "final"), "counting")


def test_numbers_are_off_or_moved_by_more_than_was_allowed():
    table, task = counted(), Counting()
    assert exit_losses(table, task, "off-by-3").tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert exit_losses(table, task, "off-by-3.5").tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert exit_losses(table, task, "off-by-4").tolist() == [[0] * 3] * 3, "more than, not as much as"
    assert exit_losses(table, task, "moved-by-3").tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    for loss in ("off-by-3", "moved-by-0"):
        with pytest.raises(UsageError, match="is for numbers, and classification answers classes"):
            loss_of(loss, torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2), Classification())
    with pytest.raises(UsageError, match="asks what is true"):
        loss_of("off-by-1", NUMBERS[0], NUMBERS[2], None, task)


@pytest.mark.parametrize("loss", ["off-by", "off-by-x", "off-by--1", "moved-by-3 ", "of-by-3"])
def test_a_loss_that_is_none_is_named(loss):
    with pytest.raises(UsageError, match="loss of risk control"):
        calibrate(counted(), simple_costs(2), risk=0.2, loss=loss)


def test_a_risk_that_the_full_model_does_not_keep_is_out_of_reach():
    with pytest.raises(GoalError, match=r"itself gives an answer more than 3 away from the truth in 33\.3 %"):
        calibrate(counted(), simple_costs(2), risk=0.2, loss="off-by-3", method="naive")


@pytest.mark.parametrize("method", ["ucb", "ltt", "crc"])
@pytest.mark.parametrize("order", ["random", "sorted"])
def test_off_by_three_is_promised_and_kept(method, order):
    """Frames in the order of their heads, as a video of a filling platform has them."""
    broken = 0
    for seed in range(40):
        g = torch.Generator().manual_seed(seed)
        truth = torch.rand(2000, generator=g) * 30
        said = truth + torch.randn(4, 2000, generator=g) * (1 + truth / 8) * torch.tensor([1.2, 0.8, 0.5, 0.3])[:, None]
        rows = truth[:1000].argsort() if order == "sorted" else torch.arange(1000)
        names = ("linear", "linear", "linear", "final")
        seen = ExitTable(said[:, rows, None], truth[rows], (1, 2, 3, 4), names, "counting")
        policy = calibrate(seen, simple_costs(3), risk=0.15, loss="off-by-3", method=method)
        rest = ExitTable(said[:, 1000:, None], truth[1000:], (1, 2, 3, 4), names, "counting")
        trace = replay(policy, rest)
        broken += float(((trace.output[:, 0] - rest.targets).abs() > 3).double().mean()) > 0.15 + 0.02
    assert broken <= 4 if method != "crc" else broken <= 20
