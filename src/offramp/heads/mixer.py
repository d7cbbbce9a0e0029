"""MLP-Mixer-EE of *Multi-Exit Vision Transformer* (2106.15183)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from timm.models.mlp_mixer import MixerBlock
from torch import Tensor, nn

from offramp.heads._perceptron import ACTIVATION, DROPOUT, HIDDEN, perceptron
from offramp.types import Tap


class Mixer(nn.Module):
    """One MLP-Mixer block over all tokens, their mean, and a perceptron (2106.15183).

    Built as the authors' published notebooks have it, with timm's block: the class token is mixed and averaged like a
    patch, and norms run over the tokens of each channel. ``norm="channels"`` with ``class_token="drop"`` is the Mixer
    as published (2105.01601), ``class_token="mix"`` reads the class token alone. Adding the mean of ``side`` tokens to
    every token is our choice.

    Args:
        tap: where it reads.
        num_outputs: the number of outputs.
        class_token: ``mean``: prefix tokens are mixed and averaged with the patches; ``mix``: all tokens are mixed and
            the first is read; ``drop``: patches alone. A tap without a class token has no ``mix``.
        norm: ``tokens``: LayerNorm over the tokens of each channel, none before the mean; ``channels``: over the
            channels of each token, and one more before the mean.
        token_hidden: hidden width of the mixing over tokens, as a multiple of the token width.
        channel_hidden: hidden width of the mixing over channels, likewise.
        hidden: units of each hidden layer of the perceptron at the end; none for one linear layer.
        activation: of that perceptron, ``elu``, ``gelu`` or ``relu``.
        dropout: of that perceptron in training.
    """

    def __init__(
        self,
        tap: Tap,
        num_outputs: int,
        class_token: Literal["mean", "mix", "drop"] = "mean",
        norm: Literal["tokens", "channels"] = "tokens",
        token_hidden: float = 0.5,
        channel_hidden: float = 4.0,
        hidden: Sequence[int] = HIDDEN,
        activation: str = ACTIVATION,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__()
        if class_token not in ("mean", "mix", "drop") or (class_token == "mix" and tap.summary == 0):
            raise TypeError(f"class_token is {class_token!r}; it is 'mean', 'drop', or 'mix' where there is one")
        if norm not in ("tokens", "channels"):
            raise TypeError(f"norm is {norm!r}; it is 'tokens' or 'channels'")
        self.tap, self.mix = tap, class_token == "mix"
        self.first = tap.prefix if class_token == "drop" else 0
        length = tap.tokens - self.first
        self.block = MixerBlock(tap.dim, length, (token_hidden, channel_hidden))
        self.norm: nn.Module = nn.LayerNorm(tap.dim, eps=1e-6)
        if norm == "tokens":
            self.block.norm1, self.block.norm2, self.norm = _OverTokens(length), _OverTokens(length), nn.Identity()
        self.classifier = perceptron(tap.dim, num_outputs, hidden, activation, dropout)

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        x = tokens[:, self.first :]
        if side is not None:
            x = x + side.mean(1, keepdim=True)
        x = self.norm(self.block(x))
        return self.classifier(x[:, 0] if self.mix else x.mean(1))


class _OverTokens(nn.LayerNorm):
    """LayerNorm over the tokens of each channel, ``(B, tokens, dim)`` to the same; eps as Keras has it."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)
