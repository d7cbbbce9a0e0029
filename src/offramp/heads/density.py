"""From tokens to a density map, as CSRNet's back end has it (1802.10062)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from offramp.heads._grid import to_map
from offramp.types import Tap


class Density(nn.Module):
    """Dilated 3 × 3 convolutions over the patch map and a 1 × 1 one to a map of things, for the task ``density``.

    CSRNet's back end (1802.10062) has six such layers, 512 to 64 wide; an exit has two narrow ones (our choice).
    Softplus keeps the map above 0, and it starts with about one thing on it; the mean of ``side`` tokens is added to
    every patch (our choices). Prefix tokens are not read.

    Args:
        tap: where it reads.
        num_outputs: how many kinds of things are counted: so many maps.
        widths: channels of each layer.
        dilation: of their 3 × 3 kernels.
    """

    def __init__(self, tap: Tap, num_outputs: int, widths: Sequence[int] = (64, 64), dilation: int = 2) -> None:
        super().__init__()
        if not widths or not all(type(width) is int and width > 0 for width in widths):
            raise TypeError(f"widths is {widths!r}; it is a list of channels, one whole number a layer")
        self.tap = tap
        layers: list[nn.Module] = []
        for before, after in pairwise((tap.dim, *widths)):
            layers += [nn.Conv2d(before, after, 3, padding=dilation, dilation=dilation), nn.ReLU()]
        last = nn.Conv2d(widths[-1], num_outputs, 1)
        self.maps = nn.Sequential(*layers, last)
        assert last.bias is not None
        nn.init.constant_(last.bias, math.log(math.expm1(1 / (tap.grid[0] * tap.grid[1]))))

    def forward(self, tokens: Tensor, side: Tensor | None = None) -> Tensor:
        """``(B, prefix + h·w, dim)`` and ``side`` ``(B, k, dim)`` to maps ``(B, num_outputs, h, w)``."""
        x = to_map(tokens, self.tap)
        if side is not None:
            x = x + side.mean(1)[:, :, None, None]
        return functional.softplus(self.maps(x))
