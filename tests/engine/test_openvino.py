"""What OpenVINO does otherwise than it was asked is said."""

from types import SimpleNamespace

import pytest

from offramp.engine import openvino
from offramp.errors import Notice


def test_bf16_on_a_processor_without_it(monkeypatch):
    monkeypatch.setattr(openvino, "_core", lambda: SimpleNamespace(get_property=lambda *_: ["FP32", "INT8"]))
    with pytest.warns(Notice, match="this processor has no bf16: OpenVINO computes in fp32 instead"):
        openvino.OpenVinoRuntime("bf16")
    openvino.OpenVinoRuntime("fp32")  # a warning would be an error here


def test_bf16_on_a_processor_with_it(monkeypatch):
    monkeypatch.setattr(openvino, "_core", lambda: SimpleNamespace(get_property=lambda *_: ["FP32", "BF16"]))
    openvino.OpenVinoRuntime("bf16")
