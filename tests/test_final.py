"""A final exit of one's own in place of the backbone's classifier, and what timm's users look for on a model."""

from functools import partial

import pytest
import timm
import torch
from helpers import images, spread_thresholds, squares, tiny_vit
from torch import nn

import offramp
from offramp import Exit, UsageError
from offramp.engine import open_runtime
from offramp.policies.threshold import Threshold

pytestmark = pytest.mark.slow

BACKBONES = {
    "vit": tiny_vit,
    "resnet": partial(timm.create_model, "resnet18", pretrained_cfg_overlay={"input_size": (3, 32, 32)}),
    "swin": partial(
        timm.create_model,
        "swin_tiny_patch4_window7_224",
        img_size=32,
        patch_size=2,
        window_size=4,
        embed_dim=16,
        depths=(1, 1, 1, 1),
        num_heads=(1, 2, 4, 8),
    ),
    "graph": partial(timm.create_model, "convnext_atto", pretrained_cfg_overlay={"input_size": (3, 32, 32)}),
}


@pytest.mark.parametrize("kind", [k if k == "vit" else pytest.param(k, marks=pytest.mark.slowest) for k in BACKBONES])
@pytest.mark.parametrize("task", ["classification", "counting"])
def test_a_final_head_goes_the_whole_road(kind, task, tmp_path):
    torch.manual_seed(0)
    final = Exit(len(offramp.backbones.cut(BACKBONES[kind]()).steps), "mlp", {"hidden": [16]})
    outputs = 7 if task == "classification" else None
    model = offramp.attach(BACKBONES[kind](), [Exit(1)], task, final=final, num_outputs=outputs).eval()
    x = model.input.example(12, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in model.classifier.parameters():
            p.normal_(std=0.2)
        found = model(x)
        assert torch.equal(model.static(x), found[-1])
    assert found[-1].shape == (12, outputs or 1)
    policy = Threshold(spread_thresholds(model, x), model.task.scores[0])
    if task == "counting":  # the first exit has nothing to agree with
        policy = Threshold((0.0,), "change")
    offramp.save(model, tmp_path / "m", policy)
    again, rule = offramp.load(tmp_path / "m")
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(again(x), found, strict=True))
    assert (again.final_exit, again.num_outputs, rule) == (model.final_exit, model.num_outputs, policy)
    trace = offramp.run(model, x, policy)
    offramp.export_onnx(again, tmp_path / "m.onnx", policy)
    file = open_runtime("onnxruntime").open(tmp_path / "m.onnx")(x)
    assert torch.equal(file.exit, trace.exit)
    assert torch.allclose(file.output, trace.output, atol=1e-4)
    costs = offramp.profile(model, repeats=0)
    assert costs.macs.final > 0


def test_a_final_head_learns_and_the_classifier_it_replaces_does_not(tmp_path):
    vit = tiny_vit(5, class_token=False, global_pool="avg")
    model = offramp.attach(vit, [Exit(2)], final="linear", num_outputs=4)
    before = model.backbone.model.head.weight.clone()
    options = {"epochs": 25, "batch_size": 32, "learning_rate": 1e-2, "precision": "fp32", "device": "cpu"}
    offramp.train(model, squares(128), folder=tmp_path, **options)
    assert torch.equal(model.backbone.model.head.weight, before)
    table = offramp.tabulate(model, offramp.data.loader(squares(64, seed=1), model.input))
    assert float(model.task.quality(table.of(-1), table.targets).mean()) > 0.8


def test_what_does_not_fit_is_said():
    with pytest.raises(UsageError, match="final stands after the last block, 4, not after 2"):
        offramp.attach(tiny_vit(), [], final=Exit(2))
    with pytest.raises(UsageError, match="the backbone's classifier has 5 outputs, not 3: replace it by final"):
        offramp.attach(tiny_vit(), [], num_outputs=3)
    with pytest.raises(UsageError, match="2 class names for a model with 3 outputs"):
        offramp.attach(tiny_vit(), [], classes=["a", "b"], final="linear", num_outputs=3)
    assert offramp.attach(tiny_vit(), [], classes=["a", "b"], final="linear").num_outputs == 2


class Map(nn.Module):
    """Answers with a map, which classification does not read."""

    def __init__(self, tap, num_outputs):
        super().__init__()
        self.layer = nn.Linear(tap.dim, 1)

    def forward(self, tokens, side=None):
        return self.layer(tokens)[:, :, 0]


def test_a_head_that_answers_otherwise_than_the_task_reads():
    with pytest.raises(UsageError, match=r"after block 1 answers \(17,\); classification reads \(5,\)"):
        offramp.attach(tiny_vit(), [Exit(1, Map)])


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("final", [None, "linear"])
def test_another_number_of_classes(kind, final, tmp_path):
    model = offramp.attach(BACKBONES[kind](), [Exit(1), Exit(2, "mlp")], final=final).eval()
    assert model.num_classes == model.num_outputs
    model.reset_classifier(3, ["a", "b", "c"])
    assert (model.num_classes, model.classes) == (3, ("a", "b", "c"))
    x = model.input.example(2)
    with torch.no_grad():
        assert [o.shape for o in model(x)] == [(2, 3)] * 3
        assert torch.equal(model.static(x), model(x)[-1])
    offramp.save(model, tmp_path / "m")
    again, _ = offramp.load(tmp_path / "m")
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(again(x), model(x), strict=True))
    with pytest.raises(UsageError, match="2 class names for 3 classes"):
        model.reset_classifier(3, ["a", "b"])


def test_what_timms_users_look_for():
    vit = tiny_vit()
    model = offramp.attach(vit, [Exit(1)])
    assert model.num_classes == 5
    assert model.pretrained_cfg["input_size"] == (1, 16, 16)
    assert model.pretrained_cfg["architecture"] == "vit_tiny_patch16_224"
    assert model.get_classifier() is vit.head
    assert timm.data.resolve_model_data_config(model)["mean"] == (0.5,)
    with pytest.raises(UsageError, match="counting has no classes"):
        offramp.attach(tiny_vit(1), [], "counting").reset_classifier(3)
    assert images(1).shape[1:] == model.pretrained_cfg["input_size"]
