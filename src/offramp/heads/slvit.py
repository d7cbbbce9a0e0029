"""The single-layer ViT exit of 2105.09121."""

from __future__ import annotations

from typing import Literal

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from offramp.heads._grid import to_map, to_tokens
from offramp.types import Tap


class SLViT(nn.Module):
    """One narrow encoder layer on patches of the feature map (2105.09121, SL-ViT).

    The map is cut into ``patch`` × ``patch`` pieces, each projected to ``dim`` channels; learned positions are added,
    one encoder layer follows, and its tokens are pooled into a linear classifier. The paper's sizes could not be read:
    all are arguments, and the defaults are ours. Maps that the patch size does not divide are padded with zeros.
    ``side`` tokens are appended to the sequence, the fusion that the paper is remembered for; each is projected like a
    patch that holds it everywhere (our choice, which needs no parameter).

    Args:
        tap: where it reads; feature maps of a CNN and the patch tokens of a transformer alike.
        num_outputs: the number of outputs.
        patch: the side of a patch; if not given, the one that leaves about 7 × 7 tokens.
        dim: the width of a token inside.
        num_heads: of the attention.
        mlp_ratio: the hidden width of the perceptron as a multiple of ``dim``.
        pool: ``flatten`` all tokens, read a class token (``cls``), or their ``mean``.
    """

    def __init__(
        self,
        tap: Tap,
        num_outputs: int,
        patch: int | None = None,
        dim: int = 32,
        num_heads: int = 4,
        mlp_ratio: float = 2.0,
        pool: Literal["flatten", "cls", "mean"] = "flatten",
    ) -> None:
        super().__init__()
        if pool not in ("flatten", "cls", "mean"):
            raise TypeError(f"pool is {pool!r}; it is 'flatten', 'cls' or 'mean'")
        self.tap, self.pool = tap, pool
        self.patch = patch or max(1, round(max(tap.grid) / 7))
        rows, columns = (-(-size // self.patch) for size in tap.grid)
        self.padding = (0, columns * self.patch - tap.grid[1], 0, rows * self.patch - tap.grid[0])
        self.project = nn.Conv2d(tap.dim, dim, self.patch, stride=self.patch)
        self.position = nn.Parameter(torch.randn(1, rows * columns, dim) * 0.02)
        self.class_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02) if pool == "cls" else None
        self.layer = Block(dim, num_heads, mlp_ratio, qkv_bias=True)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.classifier = nn.Linear(dim * rows * columns if pool == "flatten" else dim, num_outputs)

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        x = functional.pad(to_map(tokens, self.tap), self.padding)
        x = to_tokens(self.project(x)) + self.position
        length = x.shape[1]
        if side is not None:
            weight = self.project.weight.sum((2, 3))
            x = torch.cat([x, functional.linear(side, weight, self.project.bias)], dim=1)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.norm(self.layer(x))
        if self.class_token is not None:
            return self.classifier(x[:, 0])
        own = x[:, :length]
        return self.classifier(own.flatten(1) if self.pool == "flatten" else own.mean(1))
