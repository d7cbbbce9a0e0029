"""How a head that wants one vector an image gets it from tokens."""

from __future__ import annotations

from torch import Tensor

from offramp.types import Tap


def read_summary(tokens: Tensor, tap: Tap) -> Tensor:
    """``(B, prefix + h·w, dim)`` to ``(B, dim)``: what the backbone's own classifier reads.

    That is the class token, the mean of class and distillation token, or, where the classifier reads no prefix token,
    the mean of the patch tokens.
    """
    if tap.summary == 0:
        return tokens[:, tap.prefix :].mean(1)
    if tap.summary == 1:
        return tokens[:, 0]
    return tokens[:, : tap.summary].mean(1)
