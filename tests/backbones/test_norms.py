"""The eps of LayerNorms, through an artifact."""

import pytest
import timm
import torch
from helpers import images, tiny_model

import offramp
from offramp import UsageError
from offramp.artifact.described import build, describe
from offramp.backbones import layer_norm_eps, set_layer_norm_eps

pytestmark = pytest.mark.slow


def test_every_eps_is_read_and_set():
    model = timm.create_model("swin_tiny_patch4_window7_224", embed_dim=16, depths=(1, 1), num_heads=(1, 2))
    assert layer_norm_eps(model) == {"": 1e-5}
    set_layer_norm_eps(model, {})
    assert layer_norm_eps(model) == {"": 1e-5}
    set_layer_norm_eps(model, {"": 0.25, "layers.1.downsample.norm": 1, "norm": 1e-12})
    assert layer_norm_eps(model) == {"": 0.25, "layers.1.downsample.norm": 1.0, "norm": 1e-12}
    assert (model.layers[1].downsample.norm.eps, model.norm.eps, model.patch_embed.norm.eps) == (1.0, 1e-12, 0.25)
    assert layer_norm_eps(timm.create_model("resnet18")) == {}


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto"])
def test_a_saved_model_has_the_eps_that_it_had(tmp_path, name):
    inner = timm.create_model(name, num_classes=5, **({"img_size": 32} if "vit" in name else {}))
    path = [path for path, module in inner.named_modules() if isinstance(module, torch.nn.LayerNorm)][2]
    set_layer_norm_eps(inner, {"": 0.1, path: 0.3})
    model = offramp.attach(inner, [offramp.Exit(1)]).eval()
    offramp.save(model, tmp_path / "m")
    again, _ = offramp.load(tmp_path / "m")
    x = model.input.example(2)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(again(x), model(x), strict=True))
    assert layer_norm_eps(again.backbone.model) == {"": 0.1, path: 0.3}


@pytest.mark.parametrize("eps", [{"": 0}, {"": -1e-6}, {"": float("nan")}, {"": float("inf")}, {"": True}, {"": "1"}])
def test_an_eps_that_is_none_is_refused(eps):
    with pytest.raises(ValueError, match="a number above 0"):
        set_layer_norm_eps(tiny_model(), eps)


@pytest.mark.parametrize("eps", [{"": -1.0}, {"": float("nan")}, {"blocks.0.attn": 1e-6}, {"": "1e-6"}, [1e-6]])
def test_a_description_with_such_an_eps_is_refused(eps):
    model = tiny_model()
    values, weights = describe(model), model.state_dict()
    assert values["backbone"]["layer_norm_eps"] == {"": 1e-6}
    assert torch.equal(build(values, weights)(images(2))[-1], model(images(2))[-1])
    values["backbone"]["layer_norm_eps"] = eps
    with pytest.raises(UsageError):
        build(values, weights)
