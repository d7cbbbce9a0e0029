"""Every head of the table at the taps of every kind of backbone."""

import functools

import onnxruntime
import pytest
import timm
import torch
from torch import nn

from offramp.backbones import cut
from offramp.export import export_static_onnx
from offramp.heads import build_head
from offramp.registry import HEADS
from offramp.testing import check_head
from offramp.types import Exit, Tap

SMALL = {"pretrained_cfg_overlay": {"input_size": (3, 64, 64)}}
SWIN = {"img_size": 64, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": (1, 2, 2, 2)}
SWIN["num_heads"] = (1, 2, 4, 8)
INCEPTION = {"pretrained_cfg_overlay": {"input_size": (3, 139, 139)}}
BACKBONES = {
    "ViT": ("vit_tiny_patch16_224", {"img_size": 64, "embed_dim": 48, "depth": 3}, 2),
    "DeiT, distilled": ("deit_tiny_distilled_patch16_224", {"img_size": 64, "embed_dim": 48, "depth": 3}, 2),
    "ViT with registers": ("vit_small_patch14_reg4_dinov2", {"img_size": 56, "embed_dim": 48, "depth": 3}, 2),
    "ViT, not square": ("vit_tiny_patch16_224", {"img_size": (48, 80), "embed_dim": 48, "depth": 3}, 2),
    "Swin, stage 2": ("swin_tiny_patch4_window7_224", SWIN, 2),
    "Swin, stage 3": ("swin_tiny_patch4_window7_224", SWIN, 4),
    "Swin, stage 4": ("swin_tiny_patch4_window7_224", SWIN, 6),
    "ResNet": ("resnet18", SMALL, 4),
    "DenseNet": ("densenet121", SMALL, 12),
    "Inception-v3": ("inception_v3", INCEPTION, 5),
    "ConvNeXt": ("convnext_atto", SMALL, 3),
}

MAPS = {"density": "density"}
"""Heads that answer a map, and the task that reads it."""


@functools.cache
def tap_of(kind: str) -> Tap:
    name, arguments, after = BACKBONES[kind]
    return cut(timm.create_model(name, **arguments)).taps[after - 1]


def build(name: str, tap: Tap, outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return build_head(Exit(tap.after, name), tap, outputs)


@pytest.mark.parametrize("name", HEADS)
def test_head(name):
    task = MAPS.get(name, "classification")
    check_head(name, task=task)
    check_head(name, task=task, taps=tuple(map(tap_of, BACKBONES)))


class AllHeads(nn.Module):
    def __init__(self, tap: Tap) -> None:
        super().__init__()
        self.heads = nn.ModuleList(build(name, tap, 3) for name in HEADS)

    def forward(self, tokens):
        return torch.cat([head(tokens).flatten(1) for head in self.heads], dim=1)


@pytest.mark.slowest
@pytest.mark.parametrize("kind", BACKBONES)
def test_every_head_exports_to_onnx_for_any_batch(kind, tmp_path):
    tap = tap_of(kind)
    heads = AllHeads(tap).eval()
    export_static_onnx(heads, torch.randn(3, tap.tokens, tap.dim), tmp_path / "heads.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "heads.onnx"))
    for n in (1, 3, 5):
        tokens = torch.randn(n, tap.tokens, tap.dim)
        (found,) = session.run(None, {"images": tokens.numpy()})
        with torch.no_grad():
            ours = heads(tokens)
        widths = [3 * tap.grid[0] * tap.grid[1] if name in MAPS else 3 for name in HEADS]
        for name, a, b in zip(HEADS, ours.split(widths, 1), torch.from_numpy(found).split(widths, 1), strict=True):
            assert torch.allclose(a, b, atol=1e-4), name
