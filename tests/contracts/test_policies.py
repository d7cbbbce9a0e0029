"""Every policy of the table: replay is live, and neither order nor company changes an answer."""

from __future__ import annotations

import pytest
import torch
from helpers import images, spread_thresholds, tiny_model

import offramp
from offramp.policies import load_policy, save_policy
from offramp.policies.forced import Forced
from offramp.policies.threshold import Threshold
from offramp.registry import POLICIES, RUNTIMES

N = 2000
MARGIN = 1e-5
"""Scores this near a threshold may fall on either side: another batch size sums in another order."""


@pytest.fixture(scope="module")
def setting():
    model = tiny_model()
    x = images(N)
    table = offramp.tabulate(model, [(part, torch.zeros(len(part))) for part in x.split(256)])
    return model, x, table


def examples(model, x):
    """For each policy a function from row numbers to the policy for these rows."""
    first, second, third = spread_thresholds(model, x)
    return {
        "threshold": [
            lambda rows: Threshold((first, second, third)),
            lambda rows: Threshold((None, second, None)),
            lambda rows: Threshold((None, None, None)),
        ],
        "forced": [lambda rows: Forced(tuple((rows % 4).tolist()), 3)],
    }


def near_threshold(policy, table) -> torch.Tensor:
    """Samples with a score within the margin of a threshold, at any exit."""
    near = torch.zeros(len(table), dtype=torch.bool)
    for k, threshold in enumerate(getattr(policy, "thresholds", ())):
        if threshold is not None:
            near |= (table.outputs[k].softmax(1).amax(1) - threshold).abs() < MARGIN
    return near


def assert_same(a, b, near):
    assert near.float().mean() < 0.01
    assert torch.equal(a.exit[~near], b.exit[~near])
    assert torch.allclose(a.output[~near], b.output[~near], atol=1e-4)
    assert torch.allclose(a.score[~near], b.score[~near], atol=1e-4)


def test_every_policy_has_examples(setting):
    assert examples(setting[0], setting[1][:50]).keys() == POLICIES.keys()


@pytest.mark.parametrize("name", POLICIES)
def test_replay_is_live(setting, name):
    model, x, table = setting
    for make in examples(model, x)[name]:
        policy = make(torch.arange(N))
        replayed = offramp.replay(policy, table)
        for runtime in RUNTIMES:
            live = offramp.run(model, x, policy, runtime)
            assert_same(live, replayed, near_threshold(policy, table))
        assert set(replayed.exit.tolist()) == {*policy.heads, 3}


@pytest.mark.parametrize("name", POLICIES)
def test_order_and_company_change_nothing(setting, name):
    model, x, table = setting
    for make in examples(model, x)[name]:
        whole = make(torch.arange(N))
        expected, near = offramp.replay(whole, table), near_threshold(whole, table)
        order = torch.randperm(N)
        parts = []
        for rows in order.split(177):
            parts.append(offramp.run(model, x[rows], make(rows)))
        assert_same(offramp.Trace.cat(parts).take(order.argsort()), expected, near)
        for i in range(5):
            alone = offramp.run(model, x[i : i + 1], make(torch.tensor([i])))
            assert_same(alone, expected.take(torch.tensor([i])), near[i : i + 1] & False)


@pytest.mark.parametrize("name", POLICIES)
def test_heads_that_are_not_needed_never_run(setting, name):
    model, x, _ = setting
    for make in examples(model, x)[name]:
        policy = make(torch.arange(64))
        calls: list[int] = []
        hooks = [
            head.register_forward_hook(lambda *_, k=k, calls=calls: calls.append(k))
            for k, head in enumerate(model.heads)
        ]
        offramp.run(model, x[:64], policy)
        for hook in hooks:
            hook.remove()
        assert sorted(calls) == list(policy.heads), "each head that is needed once, the others never"


@pytest.mark.parametrize("name", POLICIES)
def test_an_empty_batch(setting, name):
    model, x, _ = setting
    for make in examples(model, x)[name]:
        trace = offramp.run(model, x[:0], make(torch.arange(0)))
        assert trace.output.shape == (0, 5)
        assert trace.exit.shape == trace.score.shape == (0,)


@pytest.mark.parametrize("name", POLICIES)
def test_save_and_load(setting, name, tmp_path):
    model, x, _ = setting
    for make in examples(model, x)[name]:
        policy = make(torch.arange(10))
        save_policy(policy, tmp_path / "p.json")
        assert load_policy(tmp_path / "p.json") == policy


@pytest.mark.parametrize("name", POLICIES)
def test_state_has_a_row_for_each_sample(setting, name):
    model, x, _ = setting
    for make in examples(model, x)[name]:
        assert all(len(s) == 7 for s in make(torch.arange(7)).init(7))
