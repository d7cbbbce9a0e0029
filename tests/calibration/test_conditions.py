"""Seconds are used where they are true; and no option of calibrate is dropped."""

from dataclasses import replace

import pytest
import torch
from helpers import random_table, simple_costs

from offramp import GoalError, UsageError, calibrate, replay
from offramp.types import PartCosts
from offramp.versions import host

GOALS = ({"max_cost": 40.0}, {"target_speedup": 1.2}, {"max_drop": 0.1})


def measured(**conditions):
    """Medians as in ``simple_costs``, one run in twenty takes twice as long."""
    parts = simple_costs().macs
    late = PartCosts(2.0, (20.0,) * 4, (2.0,) * 3, 2.0)
    here = {"runtime": "torch", "precision": "fp32", "threads": torch.get_num_threads(), "host": host()}
    return replace(simple_costs(), seconds=parts, p95=late, conditions={**here, **conditions})


def computed(**provenance):
    return replace(random_table(), provenance={"runtime": "torch", "precision": "fp32", **provenance})


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize(
    ("table", "costs", "sentence"),
    [
        (computed(runtime="openvino"), measured(), "runtime torch, not openvino"),
        (computed(), measured(runtime="onnxruntime"), "runtime onnxruntime, not torch"),
        (computed(precision="bf16"), measured(), "precision fp32, not bf16"),
        (computed(), measured(threads=77), "threads 77, not 1"),
        (computed(), measured(host={**host(), "cores": 99}), "cores 99, not"),
        (computed(), measured(host={**host(), "accelerator": "Abacus"}), "accelerator Abacus, not"),
        (computed(), replace(measured(), seconds=None, p95=None), "no measured seconds"),
        (computed(), replace(measured(), p95=None), "no measured seconds"),
    ],
)
def test_seconds_of_other_conditions_are_refused(table, costs, sentence, goal):
    with pytest.raises(UsageError, match=f"{sentence}.*: measure them with") as error:
        calibrate(table, costs, **goal, unit="seconds")
    assert "\n" not in str(error.value)
    assert calibrate(table, costs, **goal, unit="macs").provenance["unit"] == "macs", "MACs are the same everywhere"


def test_seconds_for_another_machine():
    table, away = computed(), measured(threads=77, host={"processor": "Abacus", "cores": 1})
    policy = calibrate(table, away, target_speedup=1.2, unit="seconds", elsewhere=True)
    assert policy.provenance["measured"]["host"]["processor"] == "Abacus"
    with pytest.raises(UsageError, match="precision fp32, not bf16"):
        calibrate(computed(precision="bf16"), away, target_speedup=1.2, unit="seconds", elsewhere=True)
    of_file = measured(runtime="openvino", threads=77)
    assert calibrate(computed(runtime="openvino"), of_file, target_speedup=1.2, unit="seconds").heads, (
        "how many threads another runtime will have is not known"
    )
    assert calibrate(random_table(), replace(measured(), conditions={}), target_speedup=1.2, unit="seconds").heads


def test_a_longest_time_is_that_of_late_runs():
    table, costs = computed(), measured()
    policy = calibrate(table, costs, max_cost=50.0, unit="seconds")
    assert policy.heads == (1,), "44 s at the second exit when it is late; by medians the whole model has 42"
    assert set(replay(policy, table).exit.tolist()) == {1}
    assert calibrate(table, costs, max_cost=84.0, unit="seconds").heads == (), "84 s for the whole model, exactly"
    with pytest.raises(GoalError, match="no exit costs at most 12 seconds: the first exit alone costs 24"):
        calibrate(table, costs, max_cost=12.0, unit="seconds")
    assert "seconds_speedup" in policy.provenance["expected"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_drop": 0.1, "confidence": 0.95}, "confidence belongs to a promise about risk, and the goal is max_drop"),
        ({"target_speedup": 1.2, "method": "ucb"}, "method belongs to a promise"),
        ({"max_cost": 30.0, "loss": "gap"}, "loss belongs to a promise"),
        ({"max_drop": 0.1, "rule": "vote", "shared": True}, "shared belongs to the rule 'threshold'"),
        (
            {"max_drop": 0.1, "rule": "exit-distribution", "temperatures": (1.0,) * 4},
            "temperatures belongs to the rule",
        ),
        ({"max_drop": 0.1, "rule": "patience", "score": "margin"}, "'patience' reads no score"),
        ({"max_drop": 0.1, "rule": "vote", "score": "confidence"}, "'vote' reads no score"),
        ({"max_drop": 0.1, "rule": "gates", "score": "margin"}, "'gates' reads no score"),
        ({"max_drop": 0.1, "rule": "scheduler", "score": "margin"}, "'scheduler' reads no score"),
        ({"max_cost": 30.0, "rule": "vote"}, "not for max_cost"),
        ({"risk": 0.1, "rule": "vote"}, "not for risk"),
        ({"max_drop": 0.1, "unit": "watts"}, "it is macs or seconds"),
        ({"max_drop": 0.1, "temperatures": (1.0,)}, "4 temperatures above 0"),
        ({"max_drop": 0.1, "temperatures": (1.0, 0.0, 1.0, 1.0)}, "4 temperatures above 0"),
    ],
)
def test_an_option_that_would_not_be_read_is_refused(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        calibrate(random_table(), simple_costs(), **options)


@pytest.mark.parametrize("rule", ["patient-confident", "ensemble", "cascade", "exit-distribution", "reliability"])
def test_a_rule_that_reads_a_score_reads_the_one_that_is_given(rule):
    table, costs = random_table(300), simple_costs()
    policy = calibrate(table, costs, max_drop=0.1, rule=rule, score="margin")
    assert policy.score == "margin"
    assert policy != replace(calibrate(table, costs, max_drop=0.1, rule=rule), score="margin")


def test_one_threshold_for_every_goal_that_has_one():
    table, costs = random_table(), simple_costs()
    for goal in ({"risk": 0.2}, {"max_cost": 30.0}, {"target_speedup": 1.2}):
        policy = calibrate(table, costs, **goal, shared=True, temperatures=(2.0,) * 4, score="margin")
        assert len({policy.thresholds[k] for k in policy.heads}) == 1
        assert policy.temperatures == (2.0,) * 4
        assert policy.score == "margin"


@pytest.mark.parametrize(
    "parts",
    [
        PartCosts(0.0, (0.0,) * 4, (0.0,) * 3, 1.0),
        PartCosts(-1.0, (10.0,) * 4, (1.0,) * 3, 1.0),
        PartCosts(1.0, (float("nan"),) * 4, (1.0,) * 3, 1.0),
        PartCosts(1.0, (float("inf"),) * 4, (1.0,) * 3, 1.0),
    ],
)
def test_costs_that_are_none(parts):
    for rule in ("threshold", "patience"):
        with pytest.raises(UsageError, match="the cost table's macs are no costs"):
            calibrate(random_table(), replace(simple_costs(), macs=parts), max_drop=0.1, rule=rule)
