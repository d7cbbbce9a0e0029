"""The seam every objective fills."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor, nn

from offramp.model import EarlyExitModel


class Objective(Protocol):
    """What is learned, from what, and which modules learn it."""

    def trained(self, model: EarlyExitModel) -> Iterable[nn.Module]:
        """The modules that learn. All else is frozen: no gradient, evaluation mode, so no running statistics move."""

    def __call__(self, model: EarlyExitModel, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Images ``(B, C, H, W)`` and targets ``(B,)`` to ``{"loss": scalar}`` and any other scalars worth a log."""
