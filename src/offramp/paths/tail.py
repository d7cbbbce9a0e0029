"""Tails: another patch embedding before the same encoder, and so another number of tokens (MT-ViT, 2203.01587)."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor, nn
from torch.func import functional_call

from offramp.backbones import Backbone
from offramp.backbones.vit import ViTBackbone, stem
from offramp.errors import UsageError
from offramp.types import Tap

_BEFORE_BLOCKS = ("norm_pre", "pos_drop", "patch_drop")


class Tail(nn.Module):
    """A patch embedding of its own that gives ``grid`` × ``grid`` tokens; all behind it is the backbone's (2203.01587).

    The image is read once, at full size. What is its own: the kernel, which begins as the backbone's, resized by timm's
    ``resample_patch_embed`` (2212.08013), and the positions of the patches, which begin as the backbone's, resized.
    Prefix tokens with their positions, encoder, last norm and classifier are the backbone's own. The stride is the
    image's side ÷ ``grid``, rounded up, with zeros around the image where that is more than its side (as DVT has it for
    10 × 10 tokens at 224 px). How the paper starts its tails, and what they share, could not be read: our choice.

    Args:
        backbone: a plain ViT.
        grid: rows of tokens; columns are in proportion, where the image is not square.
        overlap: whether patches overlap: the kernel is half as wide again as the stride, and its border begins at zero,
            so that the first answers are those of a tail without. The paper has no such tail: our choice.
        offset: whether the prefix tokens get an addend of this tail's own, zero at the start. Our choice.

    Raises:
        UsageError: a backbone that is no plain ViT, a grid that is not smaller than the backbone's own.
    """

    def __init__(self, backbone: Backbone, grid: int, overlap: bool = False, offset: bool = False) -> None:
        super().__init__()
        if not isinstance(backbone, ViTBackbone):
            raise UsageError(
                f"tails stand before a plain ViT (timm's VisionTransformer), and this is a "
                f"{type(backbone.model).__name__}"
            )
        own = backbone.taps[0].grid
        if type(grid) is not int or not 1 <= grid < own[0]:
            raise UsageError(
                f"a tail of {grid!r} rows of tokens: the backbone has {own[0]}, and a tail has from 1 to fewer"
            )
        model = backbone.model
        size = (grid, max(1, round(grid * own[1] / own[0])))
        self.size = size
        self._backbone = (backbone,)  # in a tuple: its weights are registered once, with the backbone
        self.embed = _Embedding(model.patch_embed, size, overlap)
        self.shell = _Shell(model)
        self.pos_embed = _positions(model, own, size)
        self.offset = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros_like(token)) for name, token in _prefix(model).items()} if offset else {}
        )
        self.taps: list[Tap] = [replace(tap, grid=size) for tap in backbone.taps]

    @property
    def model(self) -> Any:
        """The timm model, whose encoder this path shares."""
        return self._backbone[0].model

    @property
    def names(self) -> tuple[str, ...]:
        """The backbone's."""
        return self._backbone[0].names

    @property
    def steps(self) -> nn.Sequential:
        """The backbone's encoder blocks."""
        return self._backbone[0].steps

    def stem(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to tokens ``(B, prefix + h·w, dim)`` with their positions."""
        model = self.model
        shared: dict[str, Tensor] = dict(_prefix(model))
        for name, addend in self.offset.items():
            shared[name] = shared[name] + addend
        if self.pos_embed is not None:
            prefix = 0 if model.no_embed_class else model.num_prefix_tokens
            shared["pos_embed"] = torch.cat([model.pos_embed[:, :prefix], self.pos_embed], dim=1)
        shared |= {f"norm_pre.{name}": weight for name, weight in model.norm_pre.named_parameters()}
        inside = {f"model.{name}": weight for name, weight in shared.items()}
        tokens: Tensor = functional_call(self.shell, inside, (self.embed(x),))
        return tokens

    def final(self, h: Tensor) -> Tensor:
        """The backbone's last norm and classifier."""
        return self._backbone[0].final(h)

    def tokens(self, h: Tensor, tap: Tap) -> Tensor:
        """The state is the tokens already."""
        return h


class _Embedding(nn.Module):
    """Images to ``size`` tokens, ``(B, h·w, dim)``."""

    def __init__(self, own: Any, size: tuple[int, int], overlap: bool) -> None:
        super().__init__()
        kernel = own.proj.weight
        self.stride = [math.ceil(side / n) for side, n in zip(own.img_size, size, strict=True)]
        border = [stride // 4 if overlap else 0 for stride in self.stride]
        self.pads: list[int] = []
        for side, n, stride, edge in zip(own.img_size, size, self.stride, border, strict=True):
            total = stride * n - side
            self.pads = [total // 2 + edge, total - total // 2 + edge, *self.pads]  # the last dimension comes first
        if kernel.is_meta:
            start = kernel.new_empty(*kernel.shape[:2], *self.stride)
        else:
            start = resample_patch_embed(kernel.detach(), self.stride)
        self.weight = nn.Parameter(nn.functional.pad(start, [border[1]] * 2 + [border[0]] * 2).clone())
        self.bias = None if own.proj.bias is None else nn.Parameter(own.proj.bias.detach().clone())
        self.norm = copy.deepcopy(own.norm)

    def forward(self, x: Tensor) -> Tensor:
        if any(self.pads):
            x = nn.functional.pad(x, self.pads)
        x = nn.functional.conv2d(x, self.weight, self.bias, self.stride)
        found: Tensor = self.norm(x.flatten(2).transpose(1, 2))
        return found


class _Shell(nn.Module):
    """What timm does between patch embedding and first block, without weights; they are lent for each call."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        gone = {id(m): nn.Identity() for name, m in model.named_children() if name not in _BEFORE_BLOCKS}
        self.model = copy.deepcopy(model, gone)
        self.model.dynamic_img_size = False
        for module in self.modules():
            for name in module._parameters:
                module._parameters[name] = None

    def forward(self, tokens: Tensor) -> Tensor:
        return stem(self.model, tokens)


def _prefix(model: Any) -> dict[str, nn.Parameter]:
    return {
        name: token
        for name in ("cls_token", "dist_token", "reg_token")
        if (token := getattr(model, name, None)) is not None
    }


def _positions(model: Any, own: tuple[int, int], size: tuple[int, int]) -> nn.Parameter | None:
    """The backbone's positions of patches, resized, ``(1, h·w, dim)``."""
    if model.pos_embed is None:
        return None
    patches = model.pos_embed.detach()[:, -own[0] * own[1] :]
    return nn.Parameter(resample_abs_pos_embed(patches, list(size), list(own), num_prefix_tokens=0).clone())
