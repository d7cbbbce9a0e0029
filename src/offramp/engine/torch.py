"""PyTorch, eager: the reference runtime."""

from __future__ import annotations

from torch import Tensor

from offramp.model import EarlyExitModel


class TorchRuntime:
    """Runs the model's own modules on the device that holds them.

    Args:
        model: the model; it should be in evaluation mode.
    """

    def __init__(self, model: EarlyExitModel) -> None:
        self.model = model
        self.num_exits = len(model.exits)

    def stem(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to the state before the first block."""
        return self.model.stem(x)

    def step(self, k: int, h: Tensor) -> Tensor:
        """The state after segment ``k``."""
        return self.model.step(k, h)

    def head(self, k: int, h: Tensor) -> Tensor:
        """The output of early exit ``k``."""
        return self.model.head(k, h)

    def final(self, h: Tensor) -> Tensor:
        """The output of the final exit."""
        return self.model.final(h)

    def take(self, h: Tensor, keep: Tensor) -> Tensor:
        """The state of some samples; the first dimension is the sample."""
        return h.index_select(0, keep)
