"""Routers: what says at which path a sample enters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from offramp.backbones import Backbone
from offramp.errors import UsageError
from offramp.heads import build_head
from offramp.inputs import Input
from offramp.types import Exit

_SIDE = 64
"""About this many pixels a side are enough to tell an easy image from a hard one (our choice)."""


class Fixed(nn.Module):
    """Says nothing: the bias alone decides, one path for all, as for a budget that is known.

    Args:
        reads: what a sample is.
        paths: all paths.
    """

    after = 0

    def __init__(self, reads: Input, paths: Sequence[Backbone]) -> None:
        super().__init__()
        self.paths = len(paths)

    def forward(self, x: Tensor, h: Any) -> Tensor:
        """Images ``(B, C, H, W)`` to zeros ``(B, paths)``."""
        return x.new_zeros(x.shape[0], self.paths)


class TailPredictor(nn.Module):
    """A small convolutional network on a reduced image, before the encoder (MT-ViT, 2203.01587).

    The image is averaged down to about 64 pixels a side; then 3 × 3 convolutions of stride 2, each with BatchNorm and
    ReLU, as many as there are widths and the image can bear, the mean over the map, one layer. The paper's network
    could not be read: our choice.

    Args:
        reads: what a sample is.
        paths: all paths.
        widths: channels of each convolution.
    """

    after = 0

    def __init__(self, reads: Input, paths: Sequence[Backbone], widths: Sequence[int] = (16, 32, 64, 128)) -> None:
        super().__init__()
        channels, height, width = next(iter(reads.shapes.values()))
        self.factor = max(1, round(min(height, width) / _SIDE))
        sizes = [channels, *widths]
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
                for a, b in pairwise(sizes)
            )
        )
        self.classifier = nn.Linear(sizes[-1], len(paths))

    def forward(self, x: Tensor, h: Any) -> Tensor:
        """Images ``(B, C, H, W)`` to a number for each path, ``(B, paths)``."""
        small = functional.avg_pool2d(x, self.factor) if self.factor > 1 else x
        found: Tensor = self.classifier(self.layers(small).mean((2, 3)))
        return found


class ExitRouter(nn.Module):
    """A head after an early block of the cheapest path: who does not stay goes straight to a dearer one. Our choice.

    Nothing is computed twice for those who stay. It needs no stem of its own and sees what the encoder makes of the
    image; those who go have paid for the blocks before it.

    Args:
        reads: what a sample is.
        paths: all paths.
        after: the block of the cheapest path that it reads.
        head: a name from ``offramp list heads``.

    Raises:
        UsageError: no such block.
    """

    def __init__(self, reads: Input, paths: Sequence[Backbone], after: int = 2, head: str = "mlp") -> None:
        super().__init__()
        depth = len(paths[0].steps)
        if type(after) is not int or not 1 <= after < depth:
            raise UsageError(f"a router after block {after!r} of {depth}: it stands after blocks 1 to {depth - 1}")
        self.after = after
        self.head = build_head(Exit(after, head), paths[0].taps[after - 1], len(paths))
        self._path = (paths[0],)

    def forward(self, x: Tensor, h: Any) -> Tensor:
        """The state of the cheapest path behind the block to a number for each path, ``(B, paths)``."""
        path = self._path[0]
        found: Tensor = self.head(path.tokens(h, path.taps[self.after - 1]))
        return found
