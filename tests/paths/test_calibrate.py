"""Calibration over paths: what it promises holds live, and the router's bias is chosen with the thresholds."""

from dataclasses import replace

import pytest
import torch
from helpers import images, tiny_vit

import offramp
from offramp import Exit, ExitTable, Routed
from offramp.policies import replay, spent


def table_of_world(samples=3000, seed=0):
    """Two paths of two exits each; easy samples are right anywhere, and the router knows which they are."""
    g = torch.Generator().manual_seed(seed)
    hard = torch.rand(samples, generator=g)
    targets = torch.randint(5, (samples,), generator=g)
    outputs = []
    for strength in (1.5, 2.5, 3.5, 6.0):
        noise = torch.randn(samples, 5, generator=g)
        signal = torch.nn.functional.one_hot(targets, 5) * strength
        outputs.append(3 * (signal * (1.3 - hard)[:, None] + noise * 0.6))
    route = torch.stack([0.5 - hard, hard - 0.5], 1) + 0.05 * torch.randn(samples, 2, generator=g)
    return ExitTable(
        torch.stack(outputs),
        targets,
        (2, 4, 2, 4),
        ("linear", "final", "linear", "final"),
        "classification",
        paths=(0, 0, 1, 1),
        route=route,
    )


@pytest.fixture(scope="module")
def costs():
    model = offramp.attach(tiny_vit(), [Exit(2)], tails=[2, 4], router="cnn")
    found = offramp.profile(model, repeats=0)
    return replace(found, macs=replace(found.macs, router=0.001 * found.macs.static))


@pytest.mark.parametrize("goal", [{"max_drop": 0.01}, {"target_speedup": 2.0}, {"max_cost": 60_000.0}, {"risk": 0.1}])
@pytest.mark.parametrize("router", [True, False])
def test_a_goal_is_kept_on_the_table(costs, goal, router):
    table = table_of_world()
    if not router:
        table = replace(table, route=None)
    goal = {"max_cost": 0.7 * costs.macs.static} if "max_cost" in goal else goal
    policy = offramp.calibrate(table, costs, **goal)
    trace = replay(policy, table)
    right = (trace.output.max(1).indices == table.targets).double().mean()
    static = (table.of(-1).max(1).indices == table.targets).double().mean()
    cost = spent(policy, trace, costs.in_chain())
    if "max_drop" in goal:
        assert static - right <= 0.01 + 1e-9
    elif "target_speedup" in goal:
        assert costs.macs.static / cost.mean() >= 2.0 - 1e-9
    elif "max_cost" in goal:
        assert cost.max() <= goal["max_cost"] * (1 + 1e-9)
    else:
        assert (trace.output.max(1).indices != table.of(-1).max(1).indices).double().mean() <= 0.1
    expected = policy.provenance["expected"]
    assert expected["accuracy"] == pytest.approx(float(right))
    assert expected["macs_speedup"] == pytest.approx(float(costs.macs.static / cost.mean()))


def test_a_router_that_knows_is_asked_and_one_that_does_not_is_left_alone(costs):
    table = table_of_world()
    rest, blind = replace(table, route=None), replace(table, route=torch.zeros(len(table), 2))
    asked = []
    for speedup in (1.5, 1.8, 2.1, 2.4):
        chosen, without, found = (offramp.calibrate(t, costs, target_speedup=speedup) for t in (table, rest, blind))
        quality = [policy.provenance["expected"]["accuracy"] for policy in (chosen, without, found)]
        assert quality[0] >= quality[1] == pytest.approx(quality[2])
        if isinstance(chosen, Routed):
            asked.append(float(replay(chosen, table).entry.double().mean()))
    assert asked
    assert 0.05 < max(asked) < 0.95


def test_live_is_what_was_calibrated():
    torch.manual_seed(3)
    model = offramp.attach(tiny_vit(), [Exit(2)], tails=[2, 4], router="cnn").eval()
    with torch.no_grad():
        for p in [*model.heads.parameters(), *model.backbone.model.head.parameters()]:
            p.normal_(std=0.5)
    x = images(600)
    with torch.inference_mode():
        labels = model(x)[-1].max(1).indices
    table = offramp.tabulate(model, [(x, labels)])
    policy = offramp.calibrate(table, offramp.profile(model, repeats=0), max_drop=0.2)
    live, replayed = offramp.run(model, x, policy), replay(policy, table)
    assert (live.exit == replayed.exit).double().mean() > 0.99
    assert torch.equal(live.entry, replayed.entry)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ucb", "ltt", "crc"])
def test_a_promise_is_kept_with_a_router_whose_bias_is_fixed(costs, method):
    """Calibrated on one half of a world, read on another: class by class, and with the router's word on both."""
    held = 0
    for seed in range(20):
        table = table_of_world(1500, seed)
        table = table.take(table.targets.argsort())
        policy = offramp.calibrate(table, costs, risk=0.1, method=method, seed=seed, bias=(0.0, 0.2))
        assert isinstance(policy, Routed)
        assert policy.bias == (0.0, 0.2)
        fresh = table_of_world(4000, seed + 100)
        trace = replay(policy, fresh)
        entered = (fresh.route + torch.tensor(policy.bias)).max(1).indices
        assert torch.equal(trace.entry, entered)
        assert 0 < trace.entry.double().mean() < 1
        wrong = trace.output.max(1).indices != fresh.of(-1).max(1).indices
        held += float(wrong.double().mean()) <= 0.1
    assert held >= (10 if method == "crc" else 18)


def test_a_bias_belongs_to_a_promise_and_to_a_router(costs):
    table = table_of_world()
    with pytest.raises(offramp.UsageError, match="bias belongs to a promise about risk"):
        offramp.calibrate(table, costs, max_drop=0.01, bias=(0.0, 0.2))
    for wrong, bias in ((replace(table, route=None), (0.0, 0.2)), (table, (0.0, 0.2, 0.1))):
        with pytest.raises(offramp.UsageError, match="no router's word"):
            offramp.calibrate(wrong, costs, risk=0.1, bias=bias)
