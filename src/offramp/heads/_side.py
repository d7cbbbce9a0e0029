"""A head that reads another modality beside the backbone: the fusion of 2105.09121, and that of AudioCSRNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from offramp.errors import UsageError
from offramp.registry import unknown
from offramp.types import Tap

Encoded = tuple[Tensor, Tensor]
"""Of another modality: side tokens ``(B, k, width)``, and whether it is there, above 0 where it is, ``(B, 1)``."""


class Listening(nn.Module):
    """A head, and before it what brings another modality to its tap.

    Where the modality is missing, the fusion does what it has learned to do without it, whatever the tokens are.

    Args:
        head: of any kind.
        fusion: ``Append`` or ``Film``.
    """

    def __init__(self, head: nn.Module, fusion: nn.Module) -> None:
        super().__init__()
        self.head, self.fusion = head, fusion

    def forward(self, tokens: Tensor, side: Encoded) -> Tensor:
        """``(B, prefix + h·w, dim)`` and the other modality to the head's answer."""
        return self.head(*self.fusion(tokens, side))


class Append(nn.Module):
    """Side tokens for the head, appended to its own where it has attention over them (2105.09121, as remembered).

    Each is projected to the width of the tap, and a learned embedding of the modality is added; in place of a missing
    one stands a learned token.

    Args:
        tap: where the head reads.
        width: of the other modality's tokens.
    """

    def __init__(self, tap: Tap, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, tap.dim)
        self.embedding = nn.Parameter(torch.randn(1, 1, tap.dim) * 0.02)
        self.missing = nn.Parameter(torch.randn(1, 1, tap.dim) * 0.02)

    def forward(self, tokens: Tensor, side: Encoded) -> tuple[Tensor, Tensor]:
        """The tokens, and those that the head gets as ``side``, ``(B, k, dim)``."""
        given, there = side
        return tokens, torch.where(there[:, :, None] > 0, self.project(given) + self.embedding, self.missing)


class Film(nn.Module):
    """Every channel of the tap scaled and shifted by what the other modality says (AudioCSRNet, 2005.07097).

    Scale and shift are linear in the mean side token. They begin as 1 and 0, and a missing modality leaves them so:
    the head then answers as one without it (our choice).

    Args:
        tap: where the head reads.
        width: of the other modality's tokens.
    """

    def __init__(self, tap: Tap, width: int) -> None:
        super().__init__()
        self.affine = nn.Linear(width, 2 * tap.dim)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)

    def forward(self, tokens: Tensor, side: Encoded) -> tuple[Tensor, None]:
        """The tokens, scaled and shifted; the head gets no side tokens."""
        given, there = side
        scale, shift = (self.affine(given.mean(1)) * (there > 0))[:, None].chunk(2, dim=2)
        return tokens * (1 + scale) + shift, None


FUSIONS = {"append": Append, "film": Film}


def listening(head: nn.Module, fusion: str, tap: Tap, width: int) -> Listening:
    """A head that reads another modality as well. Raises ``UsageError`` for an unknown fusion."""
    if fusion not in FUSIONS:
        raise UsageError(unknown("fusion", fusion, FUSIONS))
    return Listening(head, FUSIONS[fusion](tap, width))
