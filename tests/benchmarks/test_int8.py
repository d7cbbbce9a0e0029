"""What int8 is worth: times of every place, and what they are made of."""

import json

import pytest
from benchmarks import int8


@pytest.mark.slowest
def test_times_and_profiles(monkeypatch):
    monkeypatch.setattr(int8, "AFTER", ((2, "linear"),))
    monkeypatch.setattr(int8, "PLACES", ("openvino:bf16", "openvino:int8", "onnxruntime:fp32", "onnxruntime:int8"))
    found = int8.run("test_vit", [1, 4], 1, 2, 16)
    assert len(found["rows"]) == 2 * 4 * 3
    for row in found["rows"]:
        assert row["over_bf16"] == 1.0 if row["place"] == "openvino:bf16" else row["over_bf16"] > 0
    for profile in found["profiles"]:
        kinds = profile["ms_by_kind"]
        assert any(
            kind.startswith(("MatMul", "FullyConnected", "Gemm", "FusedMatMul", "QLinear", "DynamicQ"))
            for kind in kinds
        )
        assert list(kinds.values()) == sorted(kinds.values(), reverse=True)
        assert sum(kinds.values()) > 0
    json.dumps(found)
