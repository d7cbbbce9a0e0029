"""ViT-EE of *Multi-Exit Vision Transformer* (2106.15183)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from offramp.heads._perceptron import ACTIVATION, DROPOUT, HIDDEN, perceptron
from offramp.heads._reading import read_summary
from offramp.types import Tap


class ViT(nn.Module):
    """One more encoder block, then LayerNorm and a perceptron on the class token (2106.15183).

    Built as the authors' published notebooks have it, with timm's pre-norm block and heads of 64 channels as in ViT and
    DeiT. It costs as much as the backbone's next block. Appending ``side`` tokens to the sequence is the fusion that
    2105.09121 is remembered for.

    Args:
        tap: where it reads.
        num_outputs: the number of outputs.
        num_heads: of the attention; one for each 64 channels if not given.
        mlp_ratio: the hidden width of the block's perceptron as a multiple of the token width.
        block_dropout: of the block in training.
        hidden: units of each hidden layer of the perceptron at the end; none for one linear layer.
        activation: of that perceptron, ``elu``, ``gelu`` or ``relu``.
        dropout: of that perceptron in training.
    """

    def __init__(
        self,
        tap: Tap,
        num_outputs: int,
        num_heads: int | None = None,
        mlp_ratio: float = 4.0,
        block_dropout: float = 0.1,
        hidden: Sequence[int] = HIDDEN,
        activation: str = ACTIVATION,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__()
        self.tap = tap
        self.block = Block(tap.dim, num_heads or _heads(tap.dim), mlp_ratio, qkv_bias=True, proj_drop=block_dropout)
        self.norm = nn.LayerNorm(tap.dim, eps=1e-6)
        self.classifier = perceptron(tap.dim, num_outputs, hidden, activation, dropout)

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        x = tokens if side is None else torch.cat([tokens, side], dim=1)
        return self.classifier(self.norm(read_summary(self.block(x)[:, : self.tap.tokens], self.tap)))


def _heads(dim: int) -> int:
    """The number of heads nearest to 64 channels each that divides the width."""
    return next(n for n in range(max(dim // 64, 1), 0, -1) if dim % n == 0)
