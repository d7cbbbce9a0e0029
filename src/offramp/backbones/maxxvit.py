"""CoAtNet and MaxViT, block by block."""

from __future__ import annotations

from typing import Any

from timm.models.maxxvit import MaxxVit
from torch import Tensor, nn

from offramp.backbones._maps import input_size, map_taps, map_tokens


class MaxxVitBackbone(nn.Module):
    """A timm ``MaxxVit`` in pieces: one step a block, be it convolution or attention; the state is a map (B, C, h, w).

    Args:
        model: the timm model; it is held, not copied.
    """

    def __init__(self, model: MaxxVit) -> None:
        super().__init__()
        self.model: Any = model
        stages: Any = model.stages
        self.names = tuple(f"stages.{s}.blocks.{b}" for s, stage in enumerate(stages) for b in range(len(stage.blocks)))
        # a tuple, so that torch does not register what the model holds already
        self.steps = tuple(block for stage in stages for block in stage.blocks)
        self.taps = map_taps(model, self.stem, self.steps, input_size(model))

    @classmethod
    def accepts(cls, model: Any) -> bool:
        """Whether the model is of timm's own class."""
        return type(model) is MaxxVit

    def stem(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to the first map."""
        return self.model.stem(x)

    def final(self, h: Tensor) -> Tensor:
        """The last map to the output of timm's own classifier."""
        return self.model.forward_head(self.model.norm(h))

    def tokens(self, h: Tensor, tap: Any) -> Tensor:
        """The map as tokens, ``(B, h·w, C)``."""
        return map_tokens(h)
