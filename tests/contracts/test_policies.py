"""Every policy of the table: replay is live, and neither order nor company changes an answer."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from helpers import inputs, model_of
from policy_examples import examples

import offramp
from offramp._batches import take
from offramp.engine import open_runtime
from offramp.registry import POLICIES, TASKS
from offramp.testing import check_policy
from offramp.testing._policies import SAMPLES, assert_same, near_threshold

pytestmark = pytest.mark.slow

N = SAMPLES
ONE_KIND = {"gates": True, "scheduler": True, "expected-error": False}
"""Policies for classes alone, or for numbers alone."""


@pytest.fixture(scope="module", params=[*TASKS, "pair"])
def setting(request):
    model = model_of(request.param)
    x = inputs(model, N)
    table = offramp.tabulate(model, [(take(x, rows), torch.zeros(len(rows))) for rows in torch.arange(N).split(256)])
    return model, x, table


def test_every_policy_has_examples(setting):
    assert examples(setting[0], take(setting[1], torch.arange(50))).keys() == POLICIES.keys()


@pytest.mark.parametrize("name", POLICIES)
def test_policy(setting, name):
    model, x, table = setting
    exits = []
    for make in examples(model, x)[name]:
        check_policy(make, model, table)
        exits.append({*offramp.replay(make(torch.arange(N)), table).exit.tolist()})
    assert any(len(found) > 1 for found in exits) or ONE_KIND.get(name, model.task.classes) != model.task.classes


@pytest.mark.slowest
@pytest.mark.parametrize("name", POLICIES)
def test_a_file_does_the_same_in_every_runtime_that_runs_files(setting, name, tmp_path):
    model, x, table = setting
    if not examples(model, x)[name]:
        return
    policy = examples(model, x)[name][0](torch.arange(N))
    offramp.export_onnx(model, tmp_path / "model.onnx", policy)
    replayed, near = offramp.replay(policy, table), near_threshold(policy, table, model)
    for runtime in ("onnxruntime", "openvino"):
        assert_same(open_runtime(runtime).open(tmp_path / "model.onnx")(x), replayed, near, runtime)


def test_compiled_pieces_do_the_same(setting, monkeypatch):
    model, x, table = setting
    policy = examples(model, x)["threshold"][0](torch.arange(N))
    compiled = partial(torch.compile, backend="eager")  # the compiler's own code is not ours to test
    monkeypatch.setattr(torch, "compile", compiled)
    live = offramp.run(model, x, policy, "torch-compiled")
    assert_same(live, offramp.replay(policy, table), near_threshold(policy, table, model), "compiled")
