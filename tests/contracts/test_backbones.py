"""Every backbone family of the table: what is cut computes what is whole, and states can be compacted."""

import copy

import pytest
import timm
import torch
from helpers import spread_thresholds

import offramp
from offramp import Exit, layouts
from offramp.backbones import cut
from offramp.engine import open_runtime
from offramp.policies.threshold import Threshold
from offramp.registry import BACKBONES

pytestmark = pytest.mark.slow

SMALL = {"pretrained_cfg_overlay": {"input_size": (3, 64, 64)}, "num_classes": 5}
SWIN = {"img_size": 64, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": (1, 2, 2, 2), "num_classes": 5}
SWIN["num_heads"] = (1, 2, 4, 8)
SWINV2 = {"img_size": 64, "window_size": 4, "embed_dim": 32, "depths": (1, 1, 2, 1), "num_classes": 5}
SWINV2["num_heads"] = (1, 2, 4, 8)
COATNET = {"img_size": 64, "embed_dim": (32, 32, 64, 64), "depths": (1, 1, 2, 1), "stem_width": 16, "num_classes": 5}
MAXVIT = {**COATNET, "transformer_window_size": (2, 2), "transformer_grid_size": (2, 2)}
EXAMPLES = {
    "vit": ("vit_tiny_patch16_224", {"img_size": 64, "embed_dim": 48, "depth": 4, "num_classes": 5}),
    "swin": ("swin_tiny_patch4_window7_224", SWIN),
    "maxxvit": ("coatnet_nano_rw_224", COATNET),
    "maxxvit, windows and grids": ("maxvit_rmlp_pico_rw_256", MAXVIT),
    "resnet": ("resnet18", SMALL),
    "densenet": ("densenet121", {**SMALL, "block_config": (2, 2, 2, 2), "growth_rate": 16}),
    "inception": ("inception_v3", {"pretrained_cfg_overlay": {"input_size": (3, 139, 139)}, "num_classes": 5}),
    "graph": ("convnext_atto", SMALL),
    # tensors that cross a cut (rotary positions are constants, not state), and shapes that follow the batch
    "graph, rotary positions": ("eva02_tiny_patch14_224", {"img_size": 56, "depth": 4, "num_classes": 5}),
    "graph, windows": ("swinv2_tiny_window8_256", SWINV2),
    "graph, one tensor a stage": ("efficientnet_lite0", SMALL),
}


@pytest.fixture(params=EXAMPLES)
def backbone(request):
    torch.manual_seed(0)
    name, arguments = EXAMPLES[request.param]
    model = timm.create_model(name, **arguments)
    for module in model.modules():  # statistics that are not the initial ones
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
    found = cut(model.eval())
    assert isinstance(found, BACKBONES.resolve(request.param.split(",")[0]))
    return found


def images(backbone, n):
    size = offramp.attach(backbone.model, []).input.input_size
    return torch.randn(n, *size)


def test_every_family_has_an_example():
    assert {name.split(",")[0] for name in EXAMPLES} == BACKBONES.keys()


def test_cut_equals_uncut_and_taps_say_what_is_there(backbone):
    assert len(backbone.names) == len(backbone.steps) == len(backbone.taps)
    for n in (1, 3):
        x = images(backbone, n)
        with torch.no_grad():
            h = backbone.stem(x)
            for tap, step in zip(backbone.taps, backbone.steps, strict=True):
                h = step(h)
                assert backbone.tokens(h, tap).shape == (n, tap.tokens, tap.dim)
            assert torch.equal(backbone.final(h), backbone.model(x))


def test_no_parameter_is_held_twice(backbone):
    prefix = "model."
    assert [k.removeprefix(prefix) for k in backbone.state_dict()] == list(backbone.model.state_dict())


def test_compaction_gives_what_the_whole_batch_gives(backbone):
    torch.manual_seed(0)
    model = offramp.attach(backbone.model, layouts.equal_macs(backbone.model, 2)).eval()
    x = images(backbone, 12)
    policy = Threshold(spread_thresholds(model, x))
    table = offramp.tabulate(model, [(x, torch.zeros(12))])
    live, replayed = offramp.run(model, x, policy), offramp.replay(policy, table)
    assert live.exit.tolist() == replayed.exit.tolist()
    assert len(set(live.exit.tolist())) == 3
    assert offramp.run(model, x[:0], policy).output.shape == (0, 5)
    assert torch.allclose(live.output, replayed.output, atol=1e-4)


def test_a_copy_stands_on_its_own_weights(backbone):
    model = offramp.attach(backbone.model, [Exit(1)]).eval()
    twin = copy.deepcopy(model)
    x = images(backbone, 2)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
        before = model(x)
        assert not torch.equal(twin(x)[-1], before[-1])
        assert torch.equal(model(x)[-1], before[-1])


def test_gradients_reach_the_backbone_through_an_exit(backbone):
    model = offramp.attach(backbone.model, [Exit(1, "sl-vit")])
    model(images(backbone, 2))[0].square().sum().backward()
    first = next(p for p in model.backbone.model.parameters() if p.grad is not None)
    assert first.grad.abs().sum() > 0


def test_exits_by_module_path(backbone):
    model = offramp.attach(backbone.model, [Exit(backbone.names[1])])
    assert model.after == (2, len(backbone.steps))
    assert model.exits[0].after == 2
    with pytest.raises(offramp.UsageError, match="no module to leave after"):
        offramp.attach(backbone.model, [Exit(backbone.names[1] + "x")])


def test_a_model_that_cannot_be_cut_says_why():
    with pytest.raises(offramp.UsageError, match=r"a Hiera cannot be cut: 'NoneType' object has no attribute 'view'"):
        cut(timm.create_model("hiera_tiny_224"))


def test_stages_that_timm_names_otherwise_are_found():
    assert cut(timm.create_model("mvitv2_tiny")).names == ("stages.0", "stages.1", "stages.2", "stages.3")


@pytest.mark.slowest
def test_a_file_answers_as_the_model_does(backbone, tmp_path):
    model = offramp.attach(backbone.model, [Exit(max(len(backbone.steps) // 2, 1))]).eval()
    x = images(backbone, 6)
    (threshold,) = spread_thresholds(model, x)
    policy = Threshold((threshold,))
    expected = offramp.run(model, x, policy)
    assert set(expected.exit.tolist()) == {0, 1}
    offramp.export_onnx(model, tmp_path / "model.onnx", policy)
    for runtime in ("onnxruntime", "openvino"):
        session = open_runtime(runtime).open(tmp_path / "model.onnx")
        for rows in (slice(0, 6), slice(2, 3), slice(0, 0)):
            found = session(x[rows])
            assert torch.equal(found.exit, expected.exit[rows]), runtime
            assert torch.allclose(found.output, expected.output[rows], atol=1e-3, rtol=1e-3), runtime
