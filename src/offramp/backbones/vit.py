"""ViT and DeiT: timm's VisionTransformer, block by block."""

from __future__ import annotations

from typing import Any

from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from offramp.types import Tap


class ViTBackbone(nn.Module):
    """A timm ``VisionTransformer``, with any number of prefix tokens, in pieces.

    The state between blocks is the token tensor, ``(B, prefix + h·w, dim)``. Every piece calls timm's own modules in
    timm's own order, so the cut model computes what the whole one does, bit for bit.

    Args:
        model: the timm model; it is held, not copied.
    """

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.model: Any = model
        self.names = tuple(f"blocks.{i}" for i in range(len(model.blocks)))
        summary = 2 if isinstance(model, VisionTransformerDistilled) else int(model.global_pool == "token")
        self.taps = [
            Tap(
                after=after,
                dim=model.embed_dim,
                grid=tuple(model.patch_embed.grid_size),
                prefix=model.num_prefix_tokens,
                summary=summary,
            )
            for after in range(1, len(model.blocks) + 1)
        ]

    @classmethod
    def accepts(cls, model: Any) -> bool:
        """Whether the model is of timm's own two classes; a subclass may compute something else between blocks."""
        return type(model) in (VisionTransformer, VisionTransformerDistilled)

    @property
    def steps(self) -> nn.Sequential:
        """The encoder blocks."""
        blocks: nn.Sequential = self.model.blocks
        return blocks

    def stem(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to tokens with their positions."""
        return stem(self.model, self.model.patch_embed(x))

    def final(self, h: Tensor) -> Tensor:
        """Tokens to the output of timm's own classifier."""
        return self.model.forward_head(self.model.norm(h))

    def tokens(self, h: Tensor, tap: Tap) -> Tensor:
        """The state is the tokens already."""
        return h


def stem(model: Any, patches: Tensor) -> Tensor:
    """What timm does between the patch embedding of a ``VisionTransformer`` and its first block."""
    tokens: Tensor = model.norm_pre(model.patch_drop(model._pos_embed(patches)))
    return tokens
