"""Measured speed-up."""

import pytest
import torch
from helpers import images, tiny_model, tiny_vit

import offramp
from offramp import Exit
from offramp.bench import macs_speedup, measure
from offramp.bench.rows import bench_forced
from offramp.engine import TorchRuntime, open_runtime
from offramp.policies.forced import Forced
from offramp.policies.threshold import Threshold
from offramp.types import Trace


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
    assert row["single_stream_ms"]["dynamic"]["p50"] <= row["single_stream_ms"]["dynamic"]["p90"]
    assert row["offline_per_second"]["static"] == pytest.approx(16 / (2 * row["static_ms"] / 1000), rel=0.5)


def test_macs_speedup_by_hand():
    model = tiny_model()
    costs = offramp.profile(model, repeats=0)
    trace = offramp.run(model, images(4), Forced((0, 1, 3, 3), 3))
    spent = torch.tensor(costs.to_exit((0, 1, 2)))[torch.tensor([0, 1, 3, 3])].mean()
    assert macs_speedup(costs, Threshold((0.5,) * 3), trace) == pytest.approx(costs.macs.static / float(spent))


def test_rows_hold_the_shares_at_any_batch_size():
    rows = bench_forced(tiny_model(), [0.5, 0.25, 0.0, 0.25], [1, 4], images=8, rounds=1)
    assert [r["batch"] for r in rows] == [1, 4]
    assert rows[0]["macs_speedup"] == pytest.approx(rows[1]["macs_speedup"])
    assert rows[0]["efficiency"] == pytest.approx(rows[0]["measured_speedup"] / rows[0]["macs_speedup"])


def test_ratios_are_of_the_same_pieces_by_the_clock():
    """A network that takes two seconds a sample, a model that takes one, a baseline that takes a half."""
    now = [0.0]

    def taking(seconds):
        def call(x, *_):
            samples = x if isinstance(x, int) else len(x)
            now[0] += seconds * samples
            return Trace(torch.zeros(samples, 2), torch.zeros(samples, dtype=torch.long), torch.ones(samples))

        return call

    pieces = [(images(4), Forced((0,) * 4, 1)), (images(2), Forced((0,) * 2, 1))]
    timed = measure(taking(2.0), taking(1.0), pieces, 3, baselines={"half": taking(0.5)}, clock=lambda: now[0])
    row = timed.row()
    assert timed.static == [[8.0, 4.0]] * 3
    assert timed.dynamic == [[4.0, 2.0]] * 3
    assert row["measured_speedup"] == 2.0
    assert row["measured_speedup_range"] == [2.0, 2.0]
    assert (row["static_ms"], row["dynamic_ms"], row["half_ms"]) == (6000.0, 3000.0, 1500.0)
    assert row["offline_per_second"] == {"static": 0.5, "dynamic": 1.0, "half": 2.0}
    assert row["single_stream_ms"]["static"]["p50"] == 6000.0


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
@pytest.mark.parametrize("shares", [[0.25, 0.25, 0.0, 0.5], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.25, 0.75]])
def test_a_router_is_heeded_and_the_shares_are_met(runtime, shares):
    """Everybody leaves on the path where the router sent him, so the rows cost what these shares cost."""
    torch.manual_seed(0)
    model = offramp.attach(tiny_vit(), [Exit(2)], tails=[2, 4], router="cnn").eval()
    (one, eight) = bench_forced(model, shares, [1, 8], images=8, rounds=1, runtime=open_runtime(runtime))
    assert one["exit_shares"] == eight["exit_shares"] == shares
    costs = offramp.profile(model, repeats=0)
    chain = costs.chain
    each = [costs.to_exit((0, 1, 2), entry=chain.paths[k], routed=True)[k] for k in range(4)]
    mean = sum(share * cost for share, cost in zip(shares, each, strict=True))
    assert eight["macs_speedup"] == pytest.approx(costs.macs.static / mean)


def test_without_a_router_everybody_begins_at_the_cheapest_path():
    torch.manual_seed(0)
    model = offramp.attach(tiny_vit(), [Exit(2)], tails=[2, 4]).eval()
    (row,) = bench_forced(model, [0.5, 0.0, 0.0, 0.5], [8], images=8, rounds=1)
    costs = offramp.profile(model, repeats=0)
    to_exit = costs.to_exit((0, 1, 2))
    assert row["macs_speedup"] == pytest.approx(costs.macs.static / (0.5 * to_exit[0] + 0.5 * to_exit[3]))
