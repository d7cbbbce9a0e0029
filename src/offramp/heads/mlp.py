"""MLP-EE of *Multi-Exit Vision Transformer* (2106.15183)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from offramp.heads._perceptron import ACTIVATION, DROPOUT, HIDDEN, perceptron
from offramp.heads._reading import read_summary
from offramp.types import Tap


class MLP(nn.Module):
    """LayerNorm and a perceptron on the class token; the patches are dropped (2106.15183).

    Built as the authors' published notebooks have it. Reading the mean of the patches where there is no class token is
    our choice, as is adding the mean of ``side`` tokens.

    Args:
        tap: where it reads.
        num_outputs: the number of outputs.
        hidden: units of each hidden layer of the perceptron; none for one linear layer.
        activation: of the perceptron, ``elu``, ``gelu`` or ``relu``.
        dropout: of the perceptron in training.
    """

    def __init__(
        self,
        tap: Tap,
        num_outputs: int,
        hidden: Sequence[int] = HIDDEN,
        activation: str = ACTIVATION,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__()
        self.tap = tap
        self.norm = nn.LayerNorm(tap.dim, eps=1e-6)
        self.classifier = perceptron(tap.dim, num_outputs, hidden, activation, dropout)

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        return self.classifier(self.norm(read_summary(tokens, self.tap, side)))
