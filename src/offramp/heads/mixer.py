"""MLP-Mixer-EE of *Multi-Exit Vision Transformer* (2106.15183)."""

from __future__ import annotations

from typing import Literal

from timm.models.mlp_mixer import MixerBlock
from torch import Tensor, nn

from offramp.types import Tap


class Mixer(nn.Module):
    """One MLP-Mixer block, then LayerNorm, pooling and a linear layer (2106.15183).

    What the paper does with the class token could not be read. ``class_token="drop"``, the default, is the Mixer as
    published (2105.01601): patches only, mean over patches, hidden widths of ½ (tokens) and 4 (channels) times the
    token width. ``class_token="mix"`` mixes all tokens and reads the first, as a port of the paper does; that port has
    ``token_hidden=4``. The block is timm's. Adding the mean of ``side`` tokens to every token is our choice.

    Args:
        tap: where it reads.
        num_outputs: the number of outputs.
        class_token: ``drop`` or ``mix``; a tap without a class token has only ``drop``.
        token_hidden: hidden width of the mixing over tokens, as a multiple of the token width.
        channel_hidden: hidden width of the mixing over channels, likewise.
    """

    def __init__(
        self,
        tap: Tap,
        num_outputs: int,
        class_token: Literal["drop", "mix"] = "drop",
        token_hidden: float = 0.5,
        channel_hidden: float = 4.0,
    ) -> None:
        super().__init__()
        if class_token not in ("drop", "mix") or (class_token == "mix" and tap.summary == 0):
            raise TypeError(f"class_token is {class_token!r}; it is 'drop', or 'mix' where there is a class token")
        self.tap, self.mix = tap, class_token == "mix"
        length = tap.tokens if self.mix else tap.tokens - tap.prefix
        self.block = MixerBlock(tap.dim, length, (token_hidden, channel_hidden))
        self.norm = nn.LayerNorm(tap.dim, eps=1e-6)
        self.classifier = nn.Linear(tap.dim, num_outputs)

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to ``(B, num_outputs)``."""
        x = tokens if self.mix else tokens[:, self.tap.prefix :]
        if side is not None:
            x = x + side.mean(1, keepdim=True)
        x = self.norm(self.block(x))
        return self.classifier(x[:, 0] if self.mix else x.mean(1))
