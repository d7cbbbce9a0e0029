"""From an ``Exit`` to the module that stands there."""

from __future__ import annotations

from torch import nn

from offramp.errors import UsageError
from offramp.registry import HEADS
from offramp.types import Exit, Tap


def build_head(exit: Exit, tap: Tap, num_outputs: int) -> nn.Module:
    """The head of ``exit`` at ``tap``. Raises ``UsageError`` for an unknown name or option."""
    build = HEADS.resolve(exit.head)
    try:
        return build(tap, num_outputs, **exit.options)
    except TypeError as error:
        raise UsageError(f"head {exit.head!r} after block {exit.after} could not be built: {error}") from error
