"""ViT and DeiT: what is cut computes what is whole."""

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from offramp.backbones import cut
from offramp.backbones.vit import ViTBackbone

CASES = {
    "vit_tiny_patch16_224": ({}, 1, 1, (14, 14)),
    "deit_tiny_distilled_patch16_224": ({}, 2, 2, (14, 14)),
    "vit_small_patch14_reg4_dinov2": ({"img_size": 98, "num_classes": 10}, 5, 1, (7, 7)),
    "vit_medium_patch16_gap_256": ({}, 0, 0, (16, 16)),
}


@pytest.mark.parametrize("name", CASES)
def test_cut_equals_uncut_bit_for_bit(name):
    arguments, prefix, summary, grid = CASES[name]
    torch.manual_seed(0)
    model = timm.create_model(name, **arguments).eval()
    backbone = cut(model)
    x = torch.randn(2, 3, *model.patch_embed.img_size)
    with torch.inference_mode():
        h = backbone.stem(x)
        for tap, step in zip(backbone.taps, backbone.steps, strict=True):
            h = step(h)
            assert backbone.tokens(h, tap).shape == (2, tap.tokens, tap.dim)
        assert torch.equal(backbone.final(h), model(x))
    tap = backbone.taps[0]
    assert (tap.prefix, tap.summary, tap.grid, tap.dim) == (prefix, summary, grid, model.embed_dim)
    assert [t.after for t in backbone.taps] == list(range(1, len(model.blocks) + 1))


def test_a_subclass_is_not_taken_for_what_it_is_not():
    class Other(VisionTransformer):
        pass

    assert ViTBackbone.accepts(VisionTransformer(img_size=16, patch_size=8, embed_dim=8, depth=2, num_heads=1))
    assert not ViTBackbone.accepts(Other(img_size=16, patch_size=8, embed_dim=8, depth=2, num_heads=1))
