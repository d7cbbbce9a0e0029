"""From an ``Exit`` to the module that stands there."""

from __future__ import annotations

from torch import nn

from offramp.errors import UsageError
from offramp.heads._side import listening
from offramp.registry import HEADS
from offramp.types import Exit, Tap


def build_head(place: Exit, tap: Tap, num_outputs: int, width: int = 0) -> nn.Module:
    """The head of an exit at its tap, with what brings another modality there, if it reads one.

    Args:
        place: the exit.
        tap: where it reads.
        num_outputs: how many numbers it answers.
        width: of the other modality's side tokens; 0 where there is none.

    Raises:
        UsageError: an unknown name or option; a head that reads another modality where there is none.
    """
    build = HEADS.resolve(place.head)
    try:
        head = build(tap, num_outputs, **place.options)
    except TypeError as error:
        raise UsageError(f"head {place.head!r} after block {place.after} could not be built: {error}") from error
    if place.side is None:
        return head
    if width == 0:
        raise UsageError(
            f"the exit after block {place.after} reads another modality, and there is none: give attach a side"
        )
    return listening(head, place.side, tap, width)
