"""Every policy of the table: replay is live, and neither order nor company changes an answer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers import images, tiny_model
from policy_examples import MARGIN, examples

import offramp
from offramp.engine import open_runtime
from offramp.policies import load_policy, save_policy
from offramp.registry import POLICIES

pytestmark = pytest.mark.slow

N = 2000


@pytest.fixture(scope="module")
def setting():
    model = tiny_model(seed=2)  # whose exits sometimes agree
    x = images(N)
    table = offramp.tabulate(model, [(part, torch.zeros(len(part))) for part in x.split(256)])
    return model, x, table


def near_threshold(policy, table) -> torch.Tensor:
    """Samples that leave elsewhere when the outputs move by the margin."""
    expected = offramp.replay(policy, table).exit
    near = torch.zeros(len(table), dtype=torch.bool)
    for seed in range(8):
        noise = torch.randn(table.outputs.shape, generator=torch.Generator().manual_seed(seed)).sign() * MARGIN
        near |= offramp.replay(policy, replace(table, outputs=table.outputs + noise)).exit != expected
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
        assert_same(offramp.run(model, x, policy), replayed, near_threshold(policy, table))
        taken = set(replayed.exit.tolist())
        assert taken <= {*policy.heads, 3}
        assert len(taken) > 1 or not policy.heads


@pytest.mark.slowest
@pytest.mark.parametrize("name", POLICIES)
def test_a_file_does_the_same_in_every_runtime_that_runs_files(setting, name, tmp_path):
    model, x, table = setting
    policy = examples(model, x)[name][0](torch.arange(N))
    offramp.export_onnx(model, tmp_path / "model.onnx", policy)
    replayed, near = offramp.replay(policy, table), near_threshold(policy, table)
    for runtime in ("onnxruntime", "openvino"):
        assert_same(open_runtime(runtime).open(tmp_path / "model.onnx")(x), replayed, near)


def test_compiled_pieces_do_the_same(setting, monkeypatch):
    model, x, table = setting
    policy = examples(model, x)["threshold"][0](torch.arange(N))
    compiled = partial(torch.compile, backend="eager")  # the compiler's own code is not ours to test
    monkeypatch.setattr(torch, "compile", compiled)
    live = offramp.run(model, x, policy, "torch-compiled")
    assert_same(live, offramp.replay(policy, table), near_threshold(policy, table))


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
