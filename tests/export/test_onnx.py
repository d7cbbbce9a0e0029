"""The self-exiting file: the same answers and exits as PyTorch, in stock ONNX Runtime, for any batch."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import images, spread_thresholds, tiny_model

import offramp
from offramp import UsageError
from offramp.engine import open_runtime
from offramp.export.metadata import store_policy
from offramp.policies.patience import Patience
from offramp.policies.threshold import Threshold

pytestmark = pytest.mark.slow

SURE = 2.0
"""A threshold that no score reaches."""


def opened(path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options)


def assert_equal(found, trace, tolerance=1e-5):
    output, exit, score = found
    assert np.array_equal(exit, trace.exit.numpy())
    assert np.abs(output - trace.output.numpy()).max(initial=0) < tolerance
    assert np.abs(score - trace.score.numpy()).max(initial=0) < tolerance


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    model = tiny_model(seed=2)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    first, _, third = spread_thresholds(model, images(200))
    policy = Threshold((first, None, third))
    offramp.export_onnx(model, path, policy)
    return model, policy, path, opened(path)


@pytest.mark.parametrize("batch", [0, 1, 3, 200])
def test_answers_and_exits_are_those_of_pytorch(setting, batch):
    model, policy, _, session = setting
    x = images(200)[:batch]
    found = session.run(["output", "exit", "score"], {"images": x.numpy()})
    assert found[0].shape == (batch, 5)
    assert_equal(found, offramp.run(model, x, policy))
    assert batch < 200 or set(found[1]) == {0, 2, 3}


@pytest.mark.parametrize("thresholds", [(0.4, 0.4, 0.4), (SURE, 0.5, SURE), (0.0, 0.0, 0.0), (SURE, SURE, SURE)])
def test_another_calibration_needs_no_new_file(setting, thresholds):
    model, _, _, session = setting
    x = images(100)
    found = session.run(None, {"images": x.numpy(), "thresholds": np.array(thresholds, np.float32)})
    policy = Threshold(tuple(None if t > 1 else t for t in thresholds))
    assert_equal(found, offramp.run(model, x, policy))


@pytest.mark.parametrize("last", [0, 1, 2, 3])
def test_a_known_budget(setting, last):
    model, _, _, session = setting
    x = images(50)
    never = np.full(3, SURE, np.float32)
    output, exit, _ = session.run(None, {"images": x.numpy(), "thresholds": never, "max_exit": np.array(last)})
    assert set(exit) == {last}, "an exit that is off still answers where everybody must leave"
    with torch.no_grad():
        assert np.abs(output - model(x)[last].numpy()).max() < 1e-5


def branches(graph):
    """The branches of its ``If`` nodes."""
    for node in graph.node:
        yield from (attribute.g for attribute in node.attribute if attribute.HasField("g"))


def test_no_if_stands_inside_another_and_weights_stay_outside(setting):
    _, _, path, _ = setting
    graph = onnx.load(path).graph
    found = list(branches(graph))
    assert len(found) >= 2 * 4
    for branch in found:
        assert not list(branches(branch)), "ONNX Runtime packs no weights that lie two graphs further out"
        assert not branch.initializer, "ONNX Runtime holds these twice"


def test_the_file_is_clean_holds_weights_once_and_says_what_it_is(setting):
    model, policy, path, _ = setting
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert ".py" not in str(proto.graph.node), "no paths, no stack traces"
    weights = sum(4 * t.numel() for t in model.state_dict().values())
    initializers = sum(len(t.raw_data) for t in proto.graph.initializer)
    assert 0.9 * weights < initializers < 1.05 * weights + 4096
    about = json.loads({p.key: p.value for p in proto.metadata_props}["offramp"])
    assert [e["after"] for e in about["exits"]] == [1, 2, 3, 4]
    assert about["policy"]["thresholds"] == list(policy.thresholds)
    assert about["input"]["input_size"] == [1, 16, 16]
    assert about["versions"]["torch"]


@pytest.mark.parametrize(
    "other",
    [
        lambda policy: replace(policy, temperatures=(2.0, 1.0, 1.0, 1.0)),
        lambda policy: replace(policy, score="margin"),
        lambda policy: Threshold((0.5, 0.5)),
        lambda policy: Patience(1, (0, 1, 2)),
    ],
)
def test_what_is_fixed_in_a_file_cannot_be_another(setting, other):
    _, policy, path, _ = setting
    session = open_runtime("onnxruntime").open(path)
    with pytest.raises(UsageError, match="only its numbers can be others"):
        session(images(2), other(policy))
    with pytest.raises(UsageError, match="another kind of policy"):
        store_policy(path, other(policy))


def test_a_policy_for_another_model_is_refused_and_nothing_is_written(setting, tmp_path):
    with pytest.raises(UsageError, match="needs exits"):
        offramp.export_onnx(setting[0], tmp_path / "no.onnx", Threshold((0.5,) * 5))
    assert not list(tmp_path.iterdir())
