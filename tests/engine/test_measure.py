"""Measured speed-up."""

import pytest
import torch
from helpers import images, tiny_model

import offramp
from offramp.engine import macs_speedup, measure
from offramp.engine.bench import bench_forced
from offramp.policies.forced import Forced


def test_static_and_dynamic_are_both_timed():
    model = tiny_model()
    timed = measure(model, [(images(8), Forced((0,) * 8, 3)), (images(8), Forced((3,) * 8, 3))], rounds=3)
    assert len(timed.ratios) == 3
    assert timed.trace.exit.tolist() == [0] * 8 + [3] * 8
    row = timed.row()
    low, high = row["measured_speedup_range"]
    assert low <= row["measured_speedup"] <= high
    assert row["static_ms"] > 0 < row["dynamic_ms"]


def test_macs_speedup_by_hand():
    model = tiny_model()
    costs = offramp.profile(model, repeats=0)
    trace = offramp.run(model, images(4), Forced((0, 1, 3, 3), 3))
    spent = torch.tensor(costs.to_exit((0, 1, 2)))[torch.tensor([0, 1, 3, 3])].mean()
    assert macs_speedup(costs, (0, 1, 2), trace) == pytest.approx(costs.macs.static / float(spent))


def test_rows_hold_the_shares_at_any_batch_size():
    rows = bench_forced(tiny_model(), [0.5, 0.25, 0.0, 0.25], [1, 4], images=8, rounds=1)
    assert [r["batch"] for r in rows] == [1, 4]
    assert rows[0]["macs_speedup"] == pytest.approx(rows[1]["macs_speedup"])
    assert rows[0]["efficiency"] == pytest.approx(rows[0]["measured_speedup"] / rows[0]["macs_speedup"])
