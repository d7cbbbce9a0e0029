"""Measured speed-up."""

import pytest
import torch
from helpers import images, tiny_model

import offramp
from offramp.engine import TorchRuntime, macs_speedup, measure
from offramp.engine.bench import bench_forced
from offramp.policies.forced import Forced


def test_static_and_dynamic_are_both_timed():
    model = tiny_model()
    pieces = [(images(8), Forced((0,) * 8, 3)), (images(8), Forced((3,) * 8, 3))]
    runtime = TorchRuntime()
    static, dynamic = runtime.static(model.backbone.model, images(8)), runtime.dynamic(model, pieces[0][1])
    timed = measure(static, dynamic, pieces, rounds=3, baselines={"half": lambda samples: static(images(samples // 2))})
    assert len(timed.ratios) == 3
    assert timed.trace.exit.tolist() == [0] * 8 + [3] * 8
    row = timed.row()
    low, high = row["measured_speedup_range"]
    assert low <= row["measured_speedup"] <= high
    assert row["static_ms"] > 0 < row["dynamic_ms"]
    assert row["half_ms"] > 0
    assert row["single_stream_ms"]["dynamic"]["p50"] <= row["single_stream_ms"]["dynamic"]["p90"]
    assert row["offline_per_second"]["static"] == pytest.approx(16 / (2 * row["static_ms"] / 1000), rel=0.5)


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
