"""How a head that wants one vector an image gets it from tokens."""

from __future__ import annotations

from torch import Tensor

from offramp.types import Tap


def read_summary(tokens: Tensor, tap: Tap, side: Tensor | None = None) -> Tensor:
    """``(B, prefix + h·w, dim)`` to ``(B, dim)``: what the backbone's own classifier reads.

    That is the class token, the mean of class and distillation token, or, where the classifier reads no prefix token,
    the mean of the patch tokens. The mean of ``side``, ``(B, k, dim)``, is added where there is one.
    """
    if tap.summary == 0:
        summary = tokens[:, tap.prefix :].mean(1)
    elif tap.summary == 1:
        summary = tokens[:, 0]
    else:
        summary = tokens[:, : tap.summary].mean(1)
    return summary if side is None else summary + side.mean(1)
