"""Links: what the next path's first tokens take over from the last path's last ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from offramp.heads._grid import to_map, to_tokens
from offramp.types import Tap


def none(before: Tap, after: Tap) -> None:
    """Nothing: every path begins with the sample alone."""


class Upsample(nn.Module):
    """CF-ViT's reuse of features (2203.03821): a perceptron on every patch, repeated to the finer grid.

    Norm, dim → 4 · dim → dim, nearest neighbour; prefix tokens get nothing. Its last layer starts at zero, so that the
    next path is at first what it is alone; CF-ViT trains from random weights.

    Args:
        before: the last tap of the path before.
        after: a tap of the next path.
        ratio: the perceptron's width ÷ dim.
    """

    def __init__(self, before: Tap, after: Tap, ratio: int = 4) -> None:
        super().__init__()
        self.before, self.after = before, after
        self.norm = nn.LayerNorm(before.dim)
        self.wide = nn.Linear(before.dim, ratio * before.dim)
        self.narrow = nn.Linear(ratio * before.dim, after.dim)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, prefix + h·w, dim)`` to the same for the other grid."""
        patches = self.narrow(functional.gelu(self.wide(self.norm(tokens))))
        prefix = torch.zeros_like(patches[:, : self.after.prefix])
        return torch.cat([prefix, _resized(patches, self.before, self.after, "nearest")], dim=1)


class Recycle(nn.Module):
    """ThinkingViT's token recycling (2507.10800): α · (W h + b), with α a number that starts at zero.

    ThinkingViT's rounds have one grid and share their class token. Here patches are resized bilinearly to the next grid
    (as 2609.03216 does), the tokens that summarise the image are handed on as they are, and registers start anew; the
    norm before W is the link's own. Our choices.

    Args:
        before: the last tap of the path before.
        after: a tap of the next path.
    """

    def __init__(self, before: Tap, after: Tap) -> None:
        super().__init__()
        self.before, self.after = before, after
        self.norm = nn.LayerNorm(before.dim)
        self.project = nn.Linear(before.dim, after.dim)
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, prefix + h·w, dim)`` to the same for the other grid."""
        handed = self.project(self.norm(tokens))
        summary = handed[:, : self.after.summary]
        fresh = torch.zeros_like(handed[:, self.after.summary : self.after.prefix])
        patches = _resized(handed, self.before, self.after, "bilinear")
        return self.alpha * torch.cat([summary, fresh, patches], dim=1)


def _resized(tokens: Tensor, before: Tap, after: Tap, mode: str) -> Tensor:
    """The patches of tokens on another grid, ``(B, h·w, dim)``."""
    return to_tokens(functional.interpolate(to_map(tokens, before), size=after.grid, mode=mode))
