"""The monitor: a fair game while the promise holds, an alarm when it does not, and nothing forgotten in between."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from benchmarks.guarantees.watching import STREAMS, delay, false_alarms
from helpers import random_table, simple_costs

from offramp import ArtifactError, DataError, UsageError, calibrate, replay
from offramp.calibration import Monitor, monitor
from offramp.calibration.losses import exit_losses
from offramp.policies import policy_from_json, policy_to_json
from offramp.policies.forced import Forced
from offramp.policies.threshold import Threshold
from offramp.tasks import Classification

pytestmark = pytest.mark.slow


def stepwise(losses, risk, level):
    """The test written out answer by answer: the wealth after each, and the number of the alarm."""
    stakes = [0.5**k for k in range(1, 60) if 0.5**k > risk / 16]
    capital, left, wealth = [0.0] * len(stakes), 1.0, []
    for t, loss in enumerate(losses, start=1):
        now = 1 / (1 + math.log(1 + t))
        capital = [(c + left - now) * (1 + s * (loss / risk - 1)) for c, s in zip(capital, stakes, strict=True)]
        left = now
        wealth.append(sum(capital) / len(capital) + left)
        if wealth[-1] >= 1 / level:
            return wealth, t
    return wealth, None


@pytest.mark.parametrize("risk", [0.003, 0.05, 0.4, 0.9])
@pytest.mark.parametrize("share", [0.5, 1.0, 1.1])
def test_it_is_what_it_says_it_is(risk, share):
    losses = np.random.default_rng(3).random(6000) < risk * share
    wealth, at = stepwise(losses, risk, 0.01)
    watch = Monitor(risk, 0.01)
    for number, loss in enumerate(losses[:300].astype(float)):
        watch = watch.update([loss])
        assert watch.wealth == pytest.approx(wealth[min(number, len(wealth) - 1)])
    watch = watch.update(losses[300:])
    assert watch.at == at
    assert watch.wealth == pytest.approx(wealth[-1])
    assert watch.peak == pytest.approx(max(1, *wealth))
    assert watch.mean == losses.mean()


@pytest.mark.parametrize("level", [1e-9, 0.2])
@pytest.mark.parametrize(
    ("steps", "choices"),
    [
        (11, lambda past: {0.0: 0.75, 1.0: 0.25}),
        (7, lambda past: {0.0: 0.6, 0.5: 0.3, 1.0: 0.1}),
        (9, lambda past: {0.25: 1.0} if past[-1:] == (0.0,) else {0.0: 0.5, 0.5: 0.5}),
        (9, lambda past: {0.0: 0.75, 1.0: 0.25} if sum(past) > 1 else {0.0: 0.375, 0.4: 0.625}),
    ],
    ids=["0 and 1", "three values", "after a 0", "worse luck, larger stakes"],
)
def test_the_game_is_fair_at_the_promised_risk(steps, choices, level):
    """Every way that a stream can go: the mean wealth, alarms included, stays 1, which is all that Ville asks."""
    fair = itertools.accumulate(range(steps), lambda ways, _: spread(ways, choices), initial=[((), 1.0)])
    for ways in itertools.islice(fair, 1, None):
        assert sum(chance for _, chance in ways) == pytest.approx(1)
        mean = sum(chance * Monitor(0.25, level).update(list(past)).wealth for past, chance in ways)
        assert mean == pytest.approx(1, abs=1e-11)


def spread(ways, choices):
    return [((*past, loss), chance * p) for past, chance in ways for loss, p in choices(past).items()]


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("risk", [0.02, 0.3])
def test_false_alarms_are_as_rare_as_promised(kind, risk):
    row = false_alarms(kind, risk, streams=1000, length=1000, level=0.05, seed=1)
    assert row["streams"] == 1000
    assert row["false_alarms"] <= row["limit"]
    assert row["false_alarms"] > 0, "a test that never rejects at the boundary bets too little to notice a shift"


@pytest.mark.parametrize(
    ("quiet", "factor", "answers"), [(0, 2, 250), (0, 4, 60), (1000, 2, 700), (100_000, 2, 1100), (100_000, 4, 200)]
)
def test_a_shift_is_noticed_however_long_the_promise_held(quiet, factor, answers):
    row = delay(0.05, factor, quiet, streams=20, level=0.05, seed=2)
    assert row["never"] == 0
    assert row["median_delay"] <= answers
    assert row["false_alarms"] <= 0.2


@pytest.mark.parametrize("mean", [0.0, 0.01, 0.05])
def test_a_promise_that_is_kept_with_room_is_left_alone(mean):
    watch = Monitor(0.1).update((np.random.default_rng(0).random(300_000) < mean).astype(float))
    assert not watch.alarm
    assert 0 < watch.wealth < 1.1
    assert 0 <= watch.confidence < 0.8


def test_one_by_one_and_all_at_once_are_the_same():
    losses = np.random.default_rng(5).beta(0.1, 1, 5000)
    whole = Monitor(0.085, 0.01).update(losses)
    for size in (3, 97, 4096, 4500):
        parts = Monitor(0.085, 0.01)
        for part in np.split(losses, range(size, len(losses), size)):
            parts = parts.update(part)
        assert parts.at == whole.at
        assert parts.samples == whole.samples == 5000
        assert parts.wealth == pytest.approx(whole.wealth)
        assert parts.peak == pytest.approx(whole.peak)
        assert parts.mean == pytest.approx(whole.mean)


def test_a_monitor_is_a_value_and_an_alarm_stays():
    fresh = Monitor(0.1)
    bad = fresh.update(np.ones(50))
    assert (fresh.samples, fresh.mean, fresh.wealth, fresh.confidence) == (0, None, 1.0, 0.0)
    assert bad.alarm
    assert bad.update([]) == bad
    assert 0.95 <= bad.confidence < 1
    better = bad.update(np.zeros(100_000))
    assert (better.alarm, better.at, better.wealth, better.peak) == (True, bad.at, bad.wealth, bad.peak)
    assert better.mean == 50 / 100_050
    assert better.sentence.startswith(f"Alarm at answer {bad.at} of 100,050: with 95 % confidence, another answer than")
    assert Monitor(0.1, 0.001).update([1.0]).sentence.startswith("No alarm after 1 answer: another")


@pytest.mark.parametrize(("risk", "level"), [(1e-12, 1e-12), (1e-6, 0.05), (0.999, 0.999)])
@pytest.mark.parametrize("loss", [0.0, 1.0, 0.5])
def test_numbers_stay_finite_at_the_ends(risk, level, loss):
    watch = Monitor(risk, level).update(np.full(20_000, loss))
    assert watch.alarm == (loss > risk)
    assert math.isfinite(watch.wealth)
    assert watch.wealth > 0
    assert Monitor.from_json(json.loads(json.dumps(watch.to_json(), allow_nan=False))) == watch


@pytest.mark.parametrize("samples", [0, 1, 500])
@pytest.mark.parametrize("mean", [0.02, 0.9])
def test_a_state_goes_through_json_to_the_last_bit(samples, mean):
    losses = (np.random.default_rng(1).random(2000) < mean).astype(float)
    watch = Monitor(0.02, 0.01, "gap", "0123").update(losses[:samples])
    again = Monitor.from_json(json.loads(json.dumps(watch.to_json())))
    assert again == watch
    assert again.update(losses[samples:]) == watch.update(losses[samples:])


ODD = {
    "no name": {"monitor": None},
    "newer": {"monitor": 2},
    "another field": {"extra": 1},
    "risk": {"risk": 1.5},
    "risk nan": {"risk": math.nan},
    "level": {"level": 0},
    "text": {"risk": "0.1"},
    "loss": {"loss": "hellinger"},
    "samples": {"samples": -1},
    "a half": {"samples": 10.5},
    "more than is": {"samples": 10**30},
    "total": {"total": 11.0},
    "infinite": {"peak": math.inf},
    "capital": {"capital": [-1.0] * 7},
    "stakes": {"capital": [1.0]},
    "nothing seen": {"samples": 0, "total": 0.0},
    "peak": {"peak": 0.5},
    "alarm without": {"at": 3},
    "without alarm": {"peak": 50.0},
    "alarm later": {"peak": 50.0, "at": 11},
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD.keys())
def test_a_damaged_state_is_refused(change):
    good = Monitor(0.1).update([0.0] * 10).to_json()
    assert len(good["capital"]) == 7
    assert Monitor.from_json(good).samples == 10
    with pytest.raises(ArtifactError, match="this is no monitor"):
        Monitor.from_json({**good, **change})
    with pytest.raises(ArtifactError, match="'peak' is missing"):
        Monitor.from_json({k: v for k, v in good.items() if k != "peak"})


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        ([0.0, math.nan], "loss 1 is nan"),
        ([1.5], "loss 0 is 1.5"),
        ([0.0, 0.0, -0.01], "loss 2 is -0.01"),
        ([math.inf], "loss 0 is inf"),
        ([[0.0], [1.0]], "the shape \\(2, 1\\)"),
        (0.5, "the shape \\(\\)"),
    ],
)
def test_losses_that_are_none(losses, sentence):
    with pytest.raises(DataError, match=sentence):
        Monitor(0.1).update(losses)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.int8])
def test_losses_of_any_dtype(dtype):
    losses = torch.tensor([0, 1, 0, 0], dtype=dtype)
    assert Monitor(0.1).update(losses) == Monitor(0.1).update([0.0, 1.0, 0.0, 0.0])


@pytest.mark.parametrize("loss", ["disagreement", "gap", "brier", "error"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_answers_are_what_calibration_would_make_of_them(loss, dtype):
    table, costs = random_table(300), simple_costs()
    outputs = table.outputs.to(dtype)
    trace = replay(calibrate(table, costs, target_speedup=1.8), table)
    answered = outputs.gather(0, trace.exit[None, :, None].expand(1, -1, 5))[0]
    wanted = (
        (answered.argmax(1) != table.targets).double()
        if loss == "error"
        else exit_losses(type(table)(outputs, *list(vars(table).values())[1:]), Classification(), loss).gather(
            0, trace.exit[None]
        )[0]
    )
    full = None if loss == "error" else outputs[-1]
    targets = None if loss == "disagreement" else table.targets
    watch = Monitor(0.2, loss=loss)
    for rows in torch.arange(300).split(64):
        watch = watch.see(
            answered[rows], None if full is None else full[rows], None if targets is None else targets[rows]
        )
    assert watch.samples == 300
    assert 0 < float(wanted.mean()) < 1
    assert watch.mean == pytest.approx(float(wanted.mean()))
    assert watch.at == Monitor(0.2, loss=loss).update(wanted).at


def test_answers_that_cannot_be_compared():
    output, targets = torch.eye(4), torch.arange(4)
    with pytest.raises(UsageError, match="asks what the full model says"):
        Monitor(0.1).see(output, targets=targets)
    with pytest.raises(UsageError, match="asks what is true"):
        Monitor(0.1, loss="gap").see(output, output)
    with pytest.raises(UsageError, match="asks what is true"):
        Monitor(0.1, loss="error").see(output)
    with pytest.raises(UsageError, match="is for classes"):
        Monitor(0.1, loss="gap").see(output[:, :1], output[:, :1], targets, task="counting")
    with pytest.raises(UsageError, match="of classes"):
        Monitor(0.1, loss="error").see(output[:, :1], targets=targets, task="counting")
    with pytest.raises(DataError, match="4 answers and 1 full"):
        Monitor(0.1).see(output, output[:1])
    with pytest.raises(DataError, match="4 answers and 3 targets"):
        Monitor(0.1, loss="error").see(output, targets=targets[:3])
    with pytest.raises(DataError, match="no numbers"):
        Monitor(0.1).see(output, torch.full((4, 4), math.nan))
    assert Monitor(0.1).see(output[:, :1], output[:, 1:2], task="counting").mean == 0.5
    numbers = torch.tensor([[1.0], [2.0], [9.0], [4.0]])
    assert Monitor(0.1, loss="off-by-3").see(numbers, targets=torch.ones(4), task="counting").mean == 0.25
    assert Monitor(0.1, loss="moved-by-3").see(numbers, numbers + 4, task="counting").mean == 1
    with pytest.raises(UsageError, match="asks what is true"):
        Monitor(0.1, loss="off-by-3").see(numbers, numbers, task="counting")
    with pytest.raises(UsageError, match="asks what the full model says"):
        Monitor(0.1, loss="moved-by-3").see(numbers, targets=torch.ones(4), task="counting")


def test_the_promise_of_a_policy_is_what_is_watched():
    table, costs = random_table(3000), simple_costs()
    policy = calibrate(table, costs, risk=0.2, confidence=0.9, method="ltt", loss="gap")
    watch = monitor(policy_from_json(json.loads(json.dumps(policy_to_json(policy)))), level=0.01)
    assert watch == Monitor(0.2, 0.01, "gap", policy.provenance["guarantee"]["digest"])
    assert monitor(policy, risk=0.1) == Monitor(0.1, 0.05, "gap", watch.digest)
    assert monitor(policy, risk=0.3, loss="error") == Monitor(0.3, 0.05, "error", watch.digest)
    trace = replay(policy, table)
    assert not watch.see(trace.output, table.outputs[-1], table.targets).alarm


def test_what_promises_nothing_is_not_watched_unless_a_limit_is_given():
    table, costs = random_table(3000), simple_costs()
    for policy, sentence in (
        (Threshold((0.5,)), "promises nothing"),
        (Forced((0, 1), 2), "promises nothing"),
        (calibrate(table, costs, max_drop=0.1), "promises nothing"),
        (calibrate(table, costs, risk=0.2, method="naive"), "promises nothing"),
        (calibrate(table, costs, risk=0.2, method="crc"), "mean over calibration sets"),
    ):
        with pytest.raises(UsageError, match=sentence):
            monitor(policy)
        assert monitor(policy, risk=0.25).risk == 0.25
        with pytest.raises(UsageError, match="give risk too"):
            monitor(policy, loss="error")
    with pytest.raises(UsageError, match="did you mean 'error'"):
        monitor(Threshold((0.5,)), risk=0.1, loss="eror")
    for level in (0, 1, -0.5, math.nan):
        with pytest.raises(UsageError, match="level is"):
            monitor(Threshold((0.5,)), risk=0.1, level=level)


@pytest.mark.parametrize("promise", [{"risk": 7}, {"risk": "x"}, {"loss": "no"}, {"loss": ["gap"]}, "ucb", None])
def test_a_damaged_promise_gets_one_sentence(promise):
    good = {"method": "ucb", "risk": 0.1, "loss": "gap"}
    damaged = {**good, **promise} if isinstance(promise, dict) else promise
    with pytest.raises(ArtifactError, match="the policy's promise is damaged"):
        monitor(Threshold((0.5,), provenance={"guarantee": damaged}))
