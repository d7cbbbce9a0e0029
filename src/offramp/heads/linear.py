"""The linear exit, the baseline of every paper."""

from __future__ import annotations

from torch import Tensor, nn

from offramp.heads._reading import read_summary
from offramp.types import Tap


class Linear(nn.Module):
    """LayerNorm, then one linear layer on the summary of the tokens.

    Reads what the backbone's own classifier reads: the class token, the mean of class and distillation token, or the
    mean of the patches. A head of its own for each summary token, as in DeiT, is not kept: one layer on their mean
    (our choice), as is adding the
    mean of ``side`` tokens. With a norm it is the "LN + CLS + Linear" row of the comparisons of 2106.15183.

    Args:
        tap: where it reads.
        num_outputs: the number of outputs.
        norm: whether to normalise first; the raw stream of a pre-norm ViT grows with depth.
    """

    def __init__(self, tap: Tap, num_outputs: int, norm: bool = True) -> None:
        super().__init__()
        self.tap = tap
        self.norm = nn.LayerNorm(tap.dim, eps=1e-6) if norm else nn.Identity()
        self.classifier = nn.Linear(tap.dim, num_outputs)

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        return self.classifier(self.norm(read_summary(tokens, self.tap, side)))
