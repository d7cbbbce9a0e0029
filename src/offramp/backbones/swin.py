"""Swin Transformers, block by block."""

from __future__ import annotations

from typing import Any

from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from offramp.backbones._maps import input_size, map_taps, map_tokens


class SwinBackbone(nn.Module):
    """A timm ``SwinTransformer`` in pieces: one step a block, 24 of them in Swin-B, numbered as in LGViT's tables.

    The patch merging between two stages belongs to the first block behind it. The state is a map with channels last,
    ``(B, h, w, C)``; there are no prefix tokens.

    Args:
        model: the timm model; it is held, not copied.
    """

    def __init__(self, model: SwinTransformer) -> None:
        super().__init__()
        self.model: Any = model
        stages: Any = model.layers
        blocks = [(s, b) for s, stage in enumerate(stages) for b in range(len(stage.blocks))]
        self.names = tuple(f"layers.{s}.blocks.{b}" for s, b in blocks)
        # a tuple, so that torch does not register what the model holds already
        self.steps = tuple(
            stages[s].blocks[b] if b else nn.Sequential(stages[s].downsample, stages[s].blocks[0]) for s, b in blocks
        )
        self.taps = map_taps(model, self.stem, self.steps, input_size(model), channels_last=True)

    @classmethod
    def accepts(cls, model: Any) -> bool:
        """Whether the model is of timm's own class."""
        return type(model) is SwinTransformer

    def stem(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to the first map."""
        return self.model.patch_embed(x)

    def final(self, h: Tensor) -> Tensor:
        """The last map to the output of timm's own classifier."""
        return self.model.forward_head(self.model.norm(h))

    def tokens(self, h: Tensor, tap: Any) -> Tensor:
        """The map as tokens, ``(B, h·w, C)``."""
        return map_tokens(h, channels_last=True)
