"""From an ``Exit`` to the module that stands there."""

from __future__ import annotations

from torch import nn

from offramp.errors import UsageError
from offramp.registry import HEADS
from offramp.types import Exit, Tap


def build_head(place: Exit, tap: Tap, num_outputs: int) -> nn.Module:
    """The head of an exit at its tap. Raises ``UsageError`` for an unknown name or option."""
    build = HEADS.resolve(place.head)
    try:
        return build(tap, num_outputs, **place.options)
    except TypeError as error:
        raise UsageError(f"head {place.head!r} after block {place.after} could not be built: {error}") from error
