"""An exported file is what was exported, to the last byte, or it is not opened."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from helpers import images, tiny_model

import offramp
from offramp import ArtifactError
from offramp.engine import open_runtime
from offramp.export.metadata import DIGEST, ENTRY, read_file, sealed, store_policy
from offramp.policies.threshold import Threshold

pytestmark = pytest.mark.slow

RUNTIMES = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    offramp.export_onnx(tiny_model(after=(2,)), path, Threshold((0.6,)))
    return path


def changed(exported, tmp_path, change):
    """The file with a change that its digest does not know of."""
    proto = onnx.load(exported)
    change(proto)
    onnx.save(proto, tmp_path / "changed.onnx")
    return tmp_path / "changed.onnx"


def metadata(change):
    def apply(proto):
        entry = next(p for p in proto.metadata_props if p.key == ENTRY)
        about = json.loads(entry.value)
        change(about)
        entry.value = json.dumps(about)

    return apply


def default(proto):
    tensor = next(t for t in proto.graph.initializer if t.name == "thresholds")
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.array([0.1], np.float32), "thresholds"))


def another_entry(proto):
    entry = proto.metadata_props.add()
    entry.key, entry.value = "note", "hello"


def without(key):
    def apply(proto):
        kept = [p for p in proto.metadata_props if p.key != key]
        del proto.metadata_props[:]
        proto.metadata_props.extend(kept)

    return apply


CHANGES = {
    "thresholds in the metadata": metadata(lambda about: about["policy"].update(thresholds=[0.1])),
    "classes": metadata(lambda about: about.update(classes=["cat"] * 5)),
    "the mean": metadata(lambda about: about["input"].update(mean=[0.4])),
    "thresholds in the graph": default,
    "one more entry": another_entry,
    "the digest gone": without(DIGEST),
    "the producer": lambda proto: setattr(proto, "producer_name", "else"),
    "the opset": lambda proto: setattr(proto.opset_import[0], "version", 19),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_file_that_was_changed_is_not_opened(exported, tmp_path, change, runtime):
    path = changed(exported, tmp_path, change)
    with pytest.raises(ArtifactError, match="was changed after it was exported"):
        open_runtime(runtime).open(path)


def test_every_byte_counts(exported, tmp_path):
    content, rng = exported.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(0, len(content), 200):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "m.onnx").write_bytes(flipped)
        with pytest.raises(ArtifactError):
            read_file(tmp_path / "m.onnx")
    for other in (content[:-1], content + b"\x00", content[: len(content) // 2], b""):
        (tmp_path / "m.onnx").write_bytes(other)
        with pytest.raises(ArtifactError):
            read_file(tmp_path / "m.onnx")


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("inside", [False, True], ids=["in the graph", "in a branch"])
def test_weights_in_other_files_are_refused_even_where_the_digest_is_right(exported, tmp_path, inside, runtime):
    proto = onnx.load(exported)
    about = json.loads(next(p.value for p in proto.metadata_props if p.key == ENTRY))
    del proto.metadata_props[:]
    tensor = max(proto.graph.initializer, key=lambda t: len(t.raw_data))
    (tmp_path / "weights.bin").write_bytes(bytes(len(tensor.raw_data)))
    if inside:
        branch = next(a.g for node in proto.graph.node for a in node.attribute if a.HasField("g"))
        tensor = branch.initializer.add(name="elsewhere", dims=[4], data_type=onnx.TensorProto.FLOAT)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    (tmp_path / "m.onnx").write_bytes(sealed(proto, about))
    with pytest.raises(ArtifactError, match="keeps weights in other files"):
        open_runtime(runtime).open(tmp_path / "m.onnx")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_bytes_that_were_checked_are_the_bytes_that_run(exported, tmp_path, runtime, monkeypatch):
    """Somebody replaces the file between the check and the start."""
    other, path = tmp_path / "other.onnx", tmp_path / "m.onnx"
    offramp.export_onnx(tiny_model(after=(2,), seed=5), other, Threshold((0.6,)))
    path.write_bytes(exported.read_bytes())
    expected = open_runtime(runtime).open(exported)(images(4)).output
    opened = open_runtime(runtime)

    def replace_then(start):
        def call(*arguments, **options):
            path.write_bytes(other.read_bytes())
            return start(*arguments, **options)

        return call

    if runtime == "onnxruntime":
        library = opened._library
        monkeypatch.setattr(library, "InferenceSession", replace_then(library.InferenceSession))
    else:
        opened._compile = replace_then(opened._compile)
    found = opened.open(path)(images(4)).output
    assert path.read_bytes() == other.read_bytes()
    assert np.array_equal(found.numpy(), expected.numpy())


def test_a_file_with_another_calibration_is_whole_again(exported, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(exported.read_bytes())
    store_policy(path, Threshold((0.25,)))
    assert read_file(path)[1].policy == Threshold((0.25,))
    assert [p.key for p in onnx.load(path).metadata_props] == [ENTRY, DIGEST]
