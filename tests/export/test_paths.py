"""Files of several paths: with every head, with preprocessing inside, as int8, of images that are no squares."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import timm
import torch
from helpers import images, tiny_vit

import offramp
from offramp import Exit, Part, Routed
from offramp.engine import open_runtime, tabulate_file
from offramp.export.metadata import read_graph, store_policy
from offramp.inputs import ImageInput
from offramp.policies.threshold import Threshold

pytestmark = [pytest.mark.slow, pytest.mark.slowest]

TAILS = [2, 3, 4]


def model_of(backbone=None, head="linear", tails=TAILS, **options):
    torch.manual_seed(3)
    model = offramp.attach(backbone or tiny_vit(), [Exit(2, head)], tails=tails, **options).eval()
    with torch.no_grad():
        for p in [*model.heads.parameters(), *model.backbone.model.head.parameters(), *model.links.parameters()]:
            p.add_(torch.randn_like(p), alpha=0.3)
    return model


def middling(model, x, router=True):
    """A policy with which some leave at each exit and, where a router is asked, some enter on each path."""
    with torch.inference_mode():
        outputs = model(x)
        said = model.route(x)[0] if router else None
    thresholds = tuple(float(o.softmax(1).amax(1).quantile(0.6)) for o in outputs[:-1])
    if said is None:
        return Threshold(thresholds)
    lead = float((said[:, 0] - said[:, 1]).quantile(0.6))
    bias = (0.0, lead)
    if model.chain.num_paths == 3:
        bias = (*bias, float((torch.maximum(said[:, 0], said[:, 1] + lead) - said[:, 2]).quantile(0.3)))
    return Routed(Threshold(thresholds), bias)


def compare(found, expected, least=0.97, atol=1e-3):
    same = found.exit == expected.exit
    assert same.float().mean() >= least
    assert torch.equal(found.path[same], expected.path[same])
    assert torch.allclose(found.output[same], expected.output[same], atol=atol)


@pytest.mark.parametrize(
    ("head", "shared"), [("lph", True), ("gah", True), ("vit", True), ("mixer", True), ("lph", False)]
)
def test_heads_that_paths_share_or_not(head, shared, tmp_path):
    """With statistics of BatchNorm, with a tap of the whole image, with attention; one that is bound to its grid."""
    model, x = model_of(head=head, tails=[2, 4], router="cnn", shared_heads=shared), images(120)
    policy = middling(model, x)
    offramp.export_onnx(model, tmp_path / "m.onnx", policy)
    expected = offramp.run(model, x, policy)
    assert len(expected.exit.unique()) == 4
    assert len(expected.entry.unique()) == 2
    compare(open_runtime("onnxruntime", threads=1).open(tmp_path / "m.onnx")(x), expected)


@pytest.mark.parametrize(("link", "runtime"), [("none", "openvino"), ("recycle", "onnxruntime")])
def test_pictures_of_any_size_that_the_file_prepares_itself(link, runtime, tmp_path):
    model = model_of(tails=[2, 4], link=link, router="cnn")
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (60, 23, 31, 1), dtype=np.uint8))
    prepare = model.input.transform()
    x = torch.stack([prepare(image) for image in _pictures(pixels)])
    policy = middling(model, x)
    offramp.export_onnx(model, tmp_path / "m.onnx", policy, preprocess=True)
    session = open_runtime(runtime, threads=1).open(tmp_path / "m.onnx")
    compare(session(pixels), offramp.run(model, x, policy), 0.9, 0.05)  # a resize may be one grey level apart
    assert len(session(pixels[:0]).exit) == 0


def _pictures(pixels):
    from PIL import Image

    return [Image.fromarray(p[:, :, 0].numpy()) for p in pixels]


@pytest.mark.parametrize(
    ("link", "router", "runtime"),
    [("none", "cnn", "onnxruntime"), ("none", "exit", "openvino"), ("recycle", None, "onnxruntime")],
)
def test_int8_is_near_and_holds_the_encoder_once(link, router, runtime, tmp_path):
    torch.manual_seed(0)
    backbone = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3, num_classes=10)
    model = model_of(backbone, tails=[2, 4], link=link, router=router)
    batches = [model.input.example(8) for _ in range(2)]
    x = batches[0]
    policy = middling(model, x, router is not None)
    offramp.export_onnx(model, tmp_path / "m.onnx", policy, int8=batches)
    session = open_runtime(runtime, threads=1).open(tmp_path / "m.onnx")
    assert session.precision == "int8"
    inner = policy.inner if router else policy
    for path, end in enumerate(model.chain.ends[:-1]):
        only = Threshold(tuple(0.0 if k == end else None for k in range(len(model.exits))), inner.score)
        asked = Routed(only, tuple(100.0 * (p == path) for p in range(2))) if router else only
        found, expected = session(x, asked), offramp.run(model, x, asked)
        assert (found.exit == end).all()
        assert 0 < (found.output - expected.output).abs().max() < 0.1 * expected.output.abs().max()
    held = [t for t in read_graph(tmp_path / "m.onnx")[0].graph.initializer if t.data_type == onnx.TensorProto.INT8]
    layers = [m for m in model.backbone.model.blocks.modules() if isinstance(m, torch.nn.Linear)]
    assert len([t for t in held if len(t.dims) == 2 and min(t.dims) >= 192]) == len(layers)


def test_images_that_are_no_squares(tmp_path):
    torch.manual_seed(0)
    backbone = timm.create_model("vit_tiny_patch16_224", img_size=(64, 96), depth=4, num_classes=10)
    model = model_of(backbone, router="cnn")
    assert [path.taps[0].grid for path in model.paths] == [(2, 3), (3, 4), (4, 6)]
    assert isinstance(model.input, ImageInput)
    x = model.input.example(40)
    policy = middling(model, x)
    offramp.export_onnx(model, tmp_path / "m.onnx", policy)
    compare(open_runtime("onnxruntime", threads=1).open(tmp_path / "m.onnx")(x), offramp.run(model, x, policy))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("router", ["cnn", "exit", None])
def test_a_file_gives_the_table_of_its_model(router, runtime, tmp_path):
    """Every exit of every path, and what the router says; thresholds and bias of the file do not matter."""
    part = Part("exit", {"after": 1, "head": "linear"}) if router == "exit" else router
    model, x = model_of(tails=[2, 4], router=part), images(90)
    policy = middling(model, x) if router else Routed(middling(model, x, False), (0.0, -1.0))
    offramp.export_onnx(model, tmp_path / "m.onnx", policy)
    batches = [(part, torch.zeros(len(part))) for part in x.split(40)]
    expected = offramp.tabulate(model, batches)
    computes = open_runtime(runtime, threads=1)
    found = tabulate_file(computes.open(tmp_path / "m.onnx"), computes, batches)
    assert found.chain == expected.chain
    assert torch.allclose(found.outputs, expected.outputs, atol=1e-3)
    assert found.route is not None
    if router is None:
        assert not found.route.any(), "without a router the bias alone decides"
    else:
        assert torch.allclose(found.route, expected.route, atol=1e-4)


def test_a_file_that_asks_its_router_takes_a_policy_that_does_not(tmp_path):
    """Everybody then begins at the cheapest path, and the router is still asked and counted."""
    model, x = model_of(tails=[2, 4], router="cnn"), images(60)
    routed = middling(model, x)
    offramp.export_onnx(model, tmp_path / "m.onnx", routed)
    store_policy(tmp_path / "m.onnx", routed.inner)
    session = open_runtime("onnxruntime", threads=1).open(tmp_path / "m.onnx")
    compare(session(x), offramp.run(model, x, routed.inner))
    assert (session(x).entry == 0).all()
    costs = offramp.CostTable.from_json(session.file.about["costs"])
    plain, asked = offramp.profile(model, repeats=0), costs.macs.router
    assert asked > 0
    assert costs.to_exit((0,))[0] == pytest.approx(plain.to_exit((0,))[0] + asked)
    assert costs.macs.static == plain.macs.static
