"""MLP-EE of *Multi-Exit Vision Transformer* (2106.15183)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from offramp.heads._reading import read_summary
from offramp.types import Tap


class MLP(nn.Module):
    """A perceptron on the class token; the patches are dropped (2106.15183).

    The paper's text was not at hand: its ports agree on reading the class token alone and disagree on the depth. The
    default, hidden layers of 4 and 1 times the token width with GELU, is the deeper of the two; ``hidden=()`` leaves a
    linear exit. The norm in front, and reading the mean of the patches where there is no class token, are our
    choices, as is adding the mean of ``side`` tokens.

    Args:
        tap: where it reads.
        num_outputs: the number of outputs.
        hidden: the hidden widths as multiples of the token width.
        dropout: probability of dropping a hidden unit in training.
        norm: whether to normalise first.
    """

    def __init__(
        self,
        tap: Tap,
        num_outputs: int,
        hidden: Sequence[float] = (4.0, 1.0),
        dropout: float = 0.0,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.tap = tap
        self.norm = nn.LayerNorm(tap.dim, eps=1e-6) if norm else nn.Identity()
        widths = [tap.dim, *(round(tap.dim * ratio) for ratio in hidden)]
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            layers += [nn.Linear(width_in, width_out), nn.GELU(), nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.classifier = nn.Linear(widths[-1], num_outputs)

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        return self.classifier(self.hidden(self.norm(read_summary(tokens, self.tap, side))))
