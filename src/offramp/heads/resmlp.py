"""ResMLP-EE of *Multi-Exit Vision Transformer* (2106.15183)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from timm.models.mlp_mixer import ResBlock
from torch import Tensor, nn

from offramp.heads._perceptron import ACTIVATION, DROPOUT, HIDDEN, perceptron
from offramp.types import Tap


class ResMLP(nn.Module):
    """One ResMLP layer over all tokens, their mean, and a perceptron (2106.15183).

    Built as the authors' published notebooks have it, with timm's layer: theirs carries the affine output along its
    skips, which timm's does not; together with the first layer behind the mean, which takes up any affine map, the two
    are one function. Their gains start at 1, ResMLP's (2105.03404) near 0. Adding the mean of ``side`` tokens to every
    token is our choice.

    Args:
        tap: where it reads.
        num_outputs: the number of outputs.
        class_token: ``mean``: prefix tokens are mixed and averaged with the patches; ``drop``: patches alone.
        mlp_ratio: the hidden width of the layer's perceptron as a multiple of the token width.
        init_values: where the layer's two gains start.
        hidden: units of each hidden layer of the perceptron at the end; none for one linear layer.
        activation: of that perceptron, ``elu``, ``gelu`` or ``relu``.
        dropout: of that perceptron in training.
    """

    def __init__(
        self,
        tap: Tap,
        num_outputs: int,
        class_token: Literal["mean", "drop"] = "mean",
        mlp_ratio: float = 4.0,
        init_values: float = 1.0,
        hidden: Sequence[int] = HIDDEN,
        activation: str = ACTIVATION,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__()
        if class_token not in ("mean", "drop"):
            raise TypeError(f"class_token is {class_token!r}; it is 'mean' or 'drop'")
        self.tap = tap
        self.first = tap.prefix if class_token == "drop" else 0
        self.block = ResBlock(tap.dim, tap.tokens - self.first, mlp_ratio, init_values=init_values)
        self.classifier = perceptron(tap.dim, num_outputs, hidden, activation, dropout)

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        x = tokens[:, self.first :]
        if side is not None:
            x = x + side.mean(1, keepdim=True)
        return self.classifier(self.block(x).mean(1))
