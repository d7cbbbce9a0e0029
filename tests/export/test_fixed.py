"""Files with only the exits that their policy asks: the same answers as the file with all of them."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
import timm
import torch
from helpers import images, spread_thresholds, tiny_model

import offramp
from offramp import Exit, UsageError
from offramp.bench import profile_file
from offramp.bench.file import static_part
from offramp.engine import open_runtime, tabulate_file
from offramp.export.metadata import read_graph, store_policy
from offramp.policies.threshold import Threshold

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """A model, a policy that asks the first and the third of its exits, and files with all and with these."""
    model, folder = tiny_model(seed=2), tmp_path_factory.mktemp("fixed")
    first, _, third = spread_thresholds(model, images(200))
    policy = Threshold((first, None, third))
    for fixed in (False, True):
        offramp.export_onnx(model, folder / f"{fixed}.onnx", policy, fixed=fixed)
    return model, policy, folder


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("batch", [0, 1, 200])
def test_answers_are_those_of_the_model(setting, runtime, batch):
    model, policy, folder = setting
    session, x = open_runtime(runtime, threads=1).open(folder / "True.onnx"), images(200)[:batch]
    for rule in (policy, replace(policy, thresholds=(0.4, None, 0.5)), Threshold((None,) * 3)):
        expected, found = offramp.run(model, x, rule), session(x, rule)
        assert torch.equal(found.exit, expected.exit)
        assert torch.allclose(found.output, expected.output, atol=1e-5)
        assert torch.allclose(found.score, expected.score, atol=1e-5)
    assert batch < 200 or set(session(x).exit.tolist()) == {0, 2, 3}


@pytest.mark.parametrize(("last", "leaves"), [(0, 0), (1, 2), (2, 2), (3, 3)])
def test_a_budget_ends_at_the_next_exit_that_is_there(setting, last, leaves):
    _, _, folder = setting
    session = open_runtime("onnxruntime", threads=1).open(folder / "True.onnx")
    assert set(session(images(9), Threshold((None,) * 3), max_exit=last).exit.tolist()) == {leaves}


def test_what_is_not_asked_is_not_there(setting):
    model, _, folder = setting
    (whole, _), (small, about) = (read_graph(folder / f"{fixed}.onnx") for fixed in (False, True))
    assert about.about["fixed"]
    assert not about.switched
    held = [sum(len(t.raw_data) for t in proto.graph.initializer) for proto in (whole, small)]
    spared = sum(4 * p.numel() for p in model.heads[1].parameters())
    assert spared <= held[0] - held[1] <= spared + 256
    chosen = [node for node in small.graph.node if node.op_type == "If"]
    assert len(chosen) == 3, "one for each exit, and one for the final exit"
    onnx.checker.check_model(small, full_check=True)
    for node in chosen:
        for attribute in node.attribute:
            assert not attribute.g.initializer
            assert all(inner.op_type != "If" for inner in attribute.g.node)


def test_another_exit_cannot_be_asked_and_numbers_can_be_stored(setting, tmp_path):
    _, policy, folder = setting
    file = tmp_path / "m.onnx"
    file.write_bytes((folder / "True.onnx").read_bytes())
    session = open_runtime("onnxruntime", threads=1).open(file)
    for other in (Threshold((0.5, 0.5, 0.5)), Threshold((0.5, None, None)), Threshold((None, 0.5, None))):
        with pytest.raises(UsageError, match="export the model with it"):
            session(images(2), other)
        with pytest.raises(UsageError, match="other exits"):
            store_policy(file, other)
    assert file.read_bytes() == (folder / "True.onnx").read_bytes()
    stricter = replace(policy, thresholds=(0.9, None, 0.8))
    store_policy(file, stricter)
    again = open_runtime("onnxruntime", threads=1).open(file)
    assert again.file.policy == stricter
    assert torch.equal(again(images(50)).exit, session(images(50), stricter).exit)


def test_what_needs_all_exits_says_so(setting, tmp_path):
    _, _, folder = setting
    computes = open_runtime("onnxruntime", threads=1)
    session = computes.open(folder / "True.onnx")
    with pytest.raises(UsageError, match="exported as fixed"):
        profile_file(session, computes, repeats=1)
    with pytest.raises(UsageError, match="--baseline"):
        static_part(session, {})


def test_its_table_has_the_answers_of_the_exits_that_it_holds(setting):
    model, _, folder = setting
    computes, x = open_runtime("openvino", threads=1), images(30)
    found = tabulate_file(computes.open(folder / "True.onnx"), computes, [(x, torch.zeros(30))]).outputs
    expected = offramp.tabulate(model, [(x, torch.zeros(30))]).outputs
    assert torch.allclose(found[[0, 2, 3]], expected[[0, 2, 3]], atol=1e-4)
    assert torch.equal(found[1], found[2]), "who must leave where no exit is leaves at the next"


def test_a_policy_that_asks_nobody_is_the_network_alone(setting, tmp_path):
    model, _, _ = setting
    nobody = Threshold((None,) * 3)
    offramp.export_onnx(model, tmp_path / "m.onnx", nobody, fixed=True)
    proto, _ = read_graph(tmp_path / "m.onnx")
    assert [node.op_type for node in proto.graph.node].count("If") == 1
    found = open_runtime("onnxruntime", threads=1).open(tmp_path / "m.onnx")(images(20))
    expected = offramp.run(model, images(20), nobody)
    assert torch.equal(found.exit, expected.exit)
    assert torch.allclose(found.output, expected.output, atol=1e-5)


@pytest.mark.slowest
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("paths", "on"),
    [({}, {1}), ({"tails": [2, 4]}, {1, 2, 4}), ({"tails": [2, 4], "link": "recycle"}, {1, 4})],
    ids=["one path", "two", "linked"],
)
def test_in_int8_it_answers_as_the_file_with_all_exits(paths, on, runtime, tmp_path):
    """So thresholds that were found with that one hold here: pieces are quantised from exit to exit in both.

    In the linked one the exit at the end of the cheap path is off, and blocks up to there lead to the link.
    """
    torch.manual_seed(0)
    backbone = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3, num_classes=10)
    model = offramp.attach(backbone, [Exit(1, "linear"), Exit(2, "linear")], **paths).eval()
    with torch.no_grad():
        for p in [*model.heads.parameters(), *model.backbone.model.head.parameters(), *model.links.parameters()]:
            p.add_(torch.randn_like(p), alpha=0.3)
    batches = [model.input.example(8) for _ in range(2)]
    x = torch.cat(batches)
    with torch.inference_mode():
        outputs = model(x)
    policy = Threshold(
        tuple(float(o.softmax(1).amax(1).median()) if k in on else None for k, o in enumerate(outputs[:-1]))
    )
    found = []
    for fixed in (False, True):
        offramp.export_onnx(model, tmp_path / f"{fixed}.onnx", policy, int8=batches, fixed=fixed)
        found.append(open_runtime(runtime, threads=1).open(tmp_path / f"{fixed}.onnx")(x))
    whole, small = found
    assert torch.equal(small.exit, whole.exit)
    assert len(set(whole.exit.tolist())) > 1
    assert torch.allclose(small.output, whole.output, atol=1e-5)
    proto, about = read_graph(tmp_path / "True.onnx")
    assert about.about["precision"] == "int8"
    assert any(t.data_type == onnx.TensorProto.INT8 for t in proto.graph.initializer)
