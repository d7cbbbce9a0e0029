"""Evaluation from tables."""

import numpy as np
import pytest
from helpers import random_table, simple_costs

from offramp.policies.threshold import Threshold
from offramp.report import bootstrap_interval, evaluate_table
from offramp.tasks import Classification


def test_numbers_agree_with_each_other():
    table, costs = random_table(), simple_costs()
    result = evaluate_table(table, costs, Threshold((0.8, 0.8, 0.8)), Classification())
    dynamic, static = result["dynamic"], result["static"]
    assert dynamic["change"] == pytest.approx(dynamic["value"] - static["value"])
    for part in (dynamic, static):
        assert part["interval"][0] < part["value"] < part["interval"][1]
    for kind in ("layers", "macs"):
        low, high = dynamic["speedup_intervals"][kind]
        assert low < dynamic["speedup"][kind] < high
    blocks = sum(share * e["after"] for share, e in zip(dynamic["exit_shares"], result["exits"], strict=True))
    assert dynamic["speedup"]["layers"] == pytest.approx(4 / blocks)
    assert [e["macs"] for e in result["exits"]] == [12, 23, 34, 45]


def test_the_interval_is_that_of_the_normal_law_for_many_samples():
    values = (np.arange(4000) % 4 == 0).astype(float)
    low, high = bootstrap_interval(values)
    half = 1.96 * np.sqrt(0.25 * 0.75 / 4000)
    assert low == pytest.approx(0.25 - half, abs=0.002)
    assert high == pytest.approx(0.25 + half, abs=0.002)


def test_values_without_spread():
    assert bootstrap_interval(np.ones(5), lambda mean: 2 / mean) == [2.0, 2.0]
