"""The seam every backbone family fills, and the choice of the family for a model."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from offramp.errors import UsageError
from offramp.registry import BACKBONES
from offramp.types import Tap


class Backbone(Protocol):
    """A model in pieces: ``final(steps[-1](… steps[0](stem(x))))`` is the model's own output, bit for bit.

    A state is a tensor or a tuple of tensors, each with the sample as its first dimension.
    """

    model: Any
    """The timm model itself."""
    taps: list[Tap]
    """One for each step; behind the last one the backbone's own classifier reads, or one that replaces it."""
    names: tuple[str, ...]
    """The path of each step's module in the timm model."""

    @classmethod
    def accepts(cls, model: Any) -> bool:
        """Whether this family can cut the model."""

    @property
    def steps(self) -> Any:
        """The blocks, in order, a sequence of modules; each maps a state to the next."""

    def stem(self, x: Tensor) -> Any:
        """Images ``(B, C, H, W)`` to the state before the first block."""

    def final(self, h: Any) -> Tensor:
        """The state after the last block to the output ``(B, num_outputs)``."""

    def tokens(self, h: Any, tap: Tap) -> Tensor:
        """The state after block ``tap.after`` as tokens, ``(B, prefix + h·w, dim)``."""


def cut(model: Any) -> Backbone:
    """The model in pieces, by the first family of the table that accepts it. Raises ``UsageError`` where none does."""
    for entry in BACKBONES.values():
        family: Any = entry.load()
        if family.accepts(model):
            backbone: Backbone = family(model)
            return backbone
    raise UsageError(
        f"no backbone family can cut a {type(model).__name__}; known families: {', '.join(BACKBONES)} "
        "(offramp list backbones says what they cover)"
    )
