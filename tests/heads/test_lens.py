"""The lens: what it takes from the backbone, what it learns, and where it cannot stand."""

import pytest
import timm
import torch
from helpers import squares, tiny_vit
from torch import nn

import offramp
from offramp import Exit

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3, "num_classes": 7}


def vit(**arguments):
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", **{**VIT, **arguments})


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_without_its_correction_it_says_what_the_backbone_would_say_of_these_tokens(pool):
    """Of a class token, or of the mean of the patches, each with the norm that the backbone has there."""
    inner = vit(global_pool=pool, class_token=pool == "token").eval()
    nn.init.normal_((inner.norm if pool == "token" else inner.fc_norm).weight)
    model = offramp.attach(inner, [Exit(2, "lens")]).eval()
    nn.init.zeros_(model.heads[0].correction.classifier.weight)
    nn.init.zeros_(model.heads[0].correction.classifier.bias)
    with torch.no_grad():
        (_, h), _ = model.states(torch.randn(3, 3, 32, 32))
        torch.testing.assert_close(model.head(0, h), model.final(h))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_on_every_path_it_says_what_the_backbone_would_say_there(shared, pool):
    inner = vit(global_pool=pool, class_token=pool == "token").eval()
    nn.init.normal_((inner.norm if pool == "token" else inner.fc_norm).weight)
    for block in inner.blocks[2:]:  # they change nothing: the exit reads what the classifier reads
        for last in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
    model = offramp.attach(inner, [Exit(2, "lens")], tails=[2, 4], shared_heads=shared).eval()
    for name, value in model.heads.named_parameters():
        assert "correction" in name
        nn.init.zeros_(value)
    with torch.no_grad():
        coarse, coarse_final, fine, fine_final = model(torch.randn(3, 3, 32, 32))
    torch.testing.assert_close(coarse, coarse_final)
    torch.testing.assert_close(fine, fine_final)
    assert not torch.allclose(coarse, fine)


def test_what_it_copied_does_not_learn_and_is_no_parameter():
    model = offramp.attach(vit(), [Exit(2, "lens", {"of": "gah", "options": {"stride": 1}})])
    head = model.heads[0]
    learns = {name.partition(".")[0] for name, _ in head.named_parameters()}
    assert learns == {"correction"}
    assert torch.equal(head.weight, model.backbone.model.head.weight)
    model.backbone.model.head.weight.data.zero_()
    assert head.weight.abs().sum() > 0  # as it was when the head was attached


def test_it_names_classes_that_it_saw_no_example_of():
    """Heads learn from the samples of three classes of seven, and are asked for the others."""
    inner = vit().eval()
    for block in inner.blocks[2:]:  # the last blocks change little
        block.attn.proj.weight.data.mul_(0.3)
        block.mlp.fc2.weight.data.mul_(0.3)
    images = torch.randn(1500, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    nn.init.normal_(inner.head.weight)
    with torch.no_grad():
        inner.head.bias.copy_(-inner(images).mean(0))
    model = offramp.attach(inner, [Exit(2), Exit(2, "lens")]).eval()
    with torch.no_grad():
        states = dict(model.states(images))
        answers = model.final(states[2])
    wanted = answers.argmax(1)
    seen = wanted < 3
    assert set(wanted[~seen].tolist()) == {3, 4, 5, 6}
    right = []
    for k in (0, 1):
        optimizer = torch.optim.Adam(model.heads[k].parameters(), 1e-3)
        for _ in range(200):
            optimizer.zero_grad()
            model.task.distillation(model.head(k, states[k][seen]), answers[seen], 2.0).backward()
            optimizer.step()
        with torch.no_grad():
            right.append(float((model.head(k, states[k][~seen]).argmax(1) == wanted[~seen]).float().mean()))
    assert right[0] < 0.05, right
    assert right[1] > 0.3, right


def test_it_follows_a_backbone_that_learned_before_its_heads(tmp_path):
    model, samples = offramp.attach(tiny_vit(), [Exit(2, "lens")]), squares(32)
    before = model.heads[0].weight.clone()
    settings = {"batch_size": 16, "precision": "fp32", "device": "cpu"}
    offramp.train(model, samples, "fine-tune", folder=tmp_path, epochs=2, **settings)
    assert not torch.equal(before, model.heads[0].weight)
    assert torch.equal(model.heads[0].weight, model.backbone.model.head.weight)


def test_new_classes_bring_a_new_classifier():
    model = offramp.attach(vit(), [Exit(2, "lens")])
    model.reset_classifier(5)
    assert torch.equal(model.heads[0].weight, model.backbone.model.head.weight)
    assert model(torch.randn(1, 3, 32, 32))[0].shape == (1, 5)


def test_it_is_saved_and_loaded(tmp_path):
    model = offramp.attach(vit(), [Exit(2, "lens", {"of": "lph"})]).eval()
    offramp.save(model, tmp_path / "m")
    again, _ = offramp.load(tmp_path / "m")
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model(x), again(x), strict=True))


@pytest.mark.parametrize(
    ("name", "arguments", "after", "said"),
    [
        (
            "resnet18",
            {"pretrained_cfg_overlay": {"input_size": (3, 64, 64)}},
            2,
            r"\(1000, 64\) is needed, not \(1000, 512\)",
        ),
        ("deit_tiny_distilled_patch16_224", {"img_size": 32, "depth": 3}, 1, "is needed, not tuple"),
    ],
)
def test_where_it_cannot_stand(name, arguments, after, said):
    with pytest.raises(offramp.errors.UsageError, match=said):
        offramp.attach(timm.create_model(name, **arguments), [Exit(after, "lens")])
    with pytest.raises(offramp.errors.UsageError, match="lens"):
        offramp.attach(vit(), [Exit(2, "lens")], task="counting", final="linear")
