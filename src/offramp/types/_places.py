"""Where exits and other parts stand, and what can be read there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Exit:
    """A head at a place in the backbone.

    Args:
        after: the 1-based number of the block whose output the exit reads, as the papers count; or the path of its
            module in the timm model, such as ``layers.2.blocks.3``. A model knows its exits by number.
        head: a name from ``offramp list heads``, or anything callable as ``head(tap, num_outputs, **options)``
            that returns a module.
        options: keyword arguments for the head.
        path: the number of the path that the exit stands on, from 0, the cheapest; -1 is the backbone itself. On every
            path if not given.
        side: how the head also reads the side tokens of another modality: ``append`` or ``film``. It reads the
            backbone alone if not given.
    """

    after: int | str
    head: str | Callable[..., nn.Module] = "linear"
    options: Mapping[str, Any] = field(default_factory=dict)
    path: int | None = None
    side: str | None = None


@dataclass(frozen=True)
class Part:
    """A part of a model by name: a path, a router, a link.

    Args:
        name: a name from ``offramp list paths``, ``routers`` or ``links``, or the class itself.
        options: keyword arguments for it.
    """

    name: str | Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tap:
    """A place after a backbone block where an exit can read, and the shape of what it reads there.

    Args:
        after: the 1-based number of the block.
        dim: the width of a token.
        grid: rows and columns of the patch tokens.
        prefix: how many prefix tokens (class, distillation, registers) stand before the patch tokens.
        summary: how many of the prefix tokens, counted from the first, summarise the image (class, distillation).
    """

    after: int
    dim: int
    grid: tuple[int, int]
    prefix: int = 0
    summary: int = 0

    @property
    def tokens(self) -> int:
        """How many tokens a head reads here: prefix tokens and patch tokens together."""
        return self.prefix + self.grid[0] * self.grid[1]
