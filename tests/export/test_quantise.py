"""int8 files: near to the answers of fp32 in every runtime that reads them, convolutions and products quantised."""

from __future__ import annotations

import subprocess
import sys

import onnx
import pytest
import timm
import torch

import offramp
from offramp import Exit
from offramp.engine import open_runtime
from offramp.policies.threshold import Threshold

pytestmark = pytest.mark.slow

NOBODY = Threshold((1.0,))
"""A policy under which nobody leaves early."""


@pytest.fixture(scope="module", params=["vit_tiny_patch16_224", "coatnet_nano_rw_224"])
def setting(request, tmp_path_factory):
    sizes = {
        "vit_tiny_patch16_224": {"img_size": 64, "depth": 6},
        "coatnet_nano_rw_224": {"img_size": 64, "embed_dim": (16, 32, 64, 64), "depths": (1, 1, 2, 1)},
    }
    torch.manual_seed(0)
    backbone = timm.create_model(request.param, num_classes=10, **sizes[request.param])
    model = offramp.attach(backbone, [Exit(2)]).eval()
    path = tmp_path_factory.mktemp("int8") / "model.onnx"
    batches = [model.input.example(8) for _ in range(4)]
    offramp.export_onnx(model, path, NOBODY, int8=batches)
    return model, path, batches[0]


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("exit", [0, 1])
def test_answers_are_near_those_of_fp32(setting, name, exit):
    model, path, x = setting
    found = open_runtime(name, "fp32", 1).open(path)(x, max_exit=exit).output
    with torch.no_grad():
        expected = model(x)[exit]
    assert 0 < (found - expected).abs().max() < 0.1 * expected.abs().max()


def test_weights_of_convolutions_and_products_are_bytes(setting):
    model, path, _ = setting
    weights = list(_weights(onnx.load(path).graph))
    for kind, dimensions in ((torch.nn.Conv2d, 4), (torch.nn.Linear, 2)):
        backbone = model.backbone.model
        layers = [m for name, m in backbone.named_modules() if isinstance(m, kind) and ".se." not in name]
        layers = [m for m in layers if m is not backbone.get_classifier()]
        bytes = [t for t in weights if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == dimensions]
        assert len(bytes) == len(layers), kind


def test_what_is_left_may_be_computed_in_bf16_which_is_a_precision_of_its_own(setting):
    _, path, x = setting
    session, other = (open_runtime("openvino", precision, 1).open(path) for precision in ("bf16", "fp32"))
    assert (session.precision, other.precision) == ("int8-bf16", "int8")
    found, expected = session(x).output, other(x).output
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()
    if "BF16" in open_runtime("openvino")._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert not torch.equal(found, expected)


def test_weights_leave_a_bit_free_for_processors_that_add_in_16_bits(setting):
    _, path, _ = setting
    graph = onnx.load(path).graph
    bytes = [onnx.numpy_helper.to_array(t) for t in _weights(graph) if t.data_type == onnx.TensorProto.INT8]
    largest = max(abs(t.astype(int)).max() for t in bytes if t.ndim > 1 and t.shape[1] > 1)  # none that are depthwise
    assert 60 <= largest <= 64


def test_activations_are_unsigned_everywhere(setting):
    """In branches ONNX Runtime computes products of signed ones in fp32, at half the speed."""
    _, path, _ = setting
    graph = onnx.load(path).graph
    types = {value.name: value.data_type for value in graph.initializer}
    found = [types[node.input[2]] for node in _nodes(graph) if node.op_type == "QuantizeLinear"]
    assert len(found) > 20
    assert set(found) == {onnx.TensorProto.UINT8}


SILENT = """
import sys, timm, offramp
from offramp import Exit
from offramp.policies.threshold import Threshold
backbone = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64, depth=2)
model = offramp.attach(backbone, [Exit(1)]).eval()
offramp.export_onnx(model, sys.argv[1], Threshold((1.0,)), int8=[model.input.example(4)])
from nncf.telemetry import wrapper
print(wrapper.telemetry.__class__.__module__)
"""
"""In a process of its own: under pytest NNCF reports nothing anyhow."""


def test_nothing_is_printed_and_nothing_is_reported(tmp_path):
    """stdout holds results; how a model is quantised is its owner's business."""
    told = subprocess.run([sys.executable, "-c", SILENT, tmp_path / "m.onnx"], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stdout == "unittest.mock\n", "a stand-in that sends nothing"


def _nodes(graph: onnx.GraphProto):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def _weights(graph: onnx.GraphProto):
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _weights(attribute.g)
