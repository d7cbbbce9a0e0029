"""Patch tokens as a map, and back."""

from __future__ import annotations

from torch import Tensor

from offramp.types import Tap


def to_map(tokens: Tensor, tap: Tap) -> Tensor:
    """The patch tokens of ``(B, prefix + h·w, dim)`` as a map ``(B, dim, h, w)``; prefix tokens are left out."""
    patches = tokens[:, tap.prefix :]
    return patches.transpose(1, 2).reshape(tokens.shape[0], tap.dim, *tap.grid)


def to_tokens(x: Tensor) -> Tensor:
    """A map ``(B, C, h, w)`` as tokens ``(B, h·w, C)``."""
    return x.flatten(2).transpose(1, 2)
