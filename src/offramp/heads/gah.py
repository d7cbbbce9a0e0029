"""LGViT's global aggregation head (2308.00255)."""

from __future__ import annotations

import math

from timm.layers.attention import Attention
from torch import Tensor, nn

from offramp.heads._grid import to_map, to_tokens
from offramp.heads._lgvit import Readout
from offramp.types import Tap


class GAH(nn.Module):
    """Global aggregation: self-attention among every ``stride``-th patch in both directions (2308.00255).

    As the released code computes it: patches are picked, not averaged; eight attention heads, a fused query, key and
    value layer without bias, an output layer with bias; no norm, residual or perceptron; the class token is not in the
    attention. Where eight does not divide the width, the largest power of two below that does (our choice). Adding the
    mean of ``side`` tokens to the pooled features is our choice.

    Args:
        tap: where it reads.
        num_outputs: the number of outputs.
        stride: the paper's sub-sampling: 1, 2 or 3.
        norm_eps: the eps of the LayerNorm before the readout, on a backbone without class token (Swin).
    """

    def __init__(self, tap: Tap, num_outputs: int, stride: int = 2, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.tap, self.stride = tap, stride
        self.attention = Attention(tap.dim, num_heads=math.gcd(tap.dim, 8), qkv_bias=False)
        self.readout = Readout(tap, num_outputs, norm_eps)

    def features(self, tokens: Tensor) -> Tensor:
        """``(B, prefix + h·w, dim)`` to the head's tokens, ``(B, ⌈h/stride⌉·⌈w/stride⌉, dim)``."""
        return self.attention(to_tokens(to_map(tokens, self.tap)[:, :, :: self.stride, :: self.stride]))

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        return self.readout(self.features(tokens), tokens, side)
