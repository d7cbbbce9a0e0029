"""PyTorch, eager: the reference runtime."""

from __future__ import annotations

from typing import Any

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

    def stem(self, x: Tensor) -> Any:
        """Images ``(B, C, H, W)`` to the state before the first block."""
        return self.model.stem(x)

    def step(self, k: int, h: Any) -> Any:
        """The state after segment ``k``."""
        return self.model.step(k, h)

    def head(self, k: int, h: Any) -> Tensor:
        """The output of early exit ``k``."""
        return self.model.head(k, h)

    def final(self, h: Any) -> Tensor:
        """The output of the final exit."""
        return self.model.final(h)

    def take(self, h: Any, keep: Tensor) -> Any:
        """The state of some samples: a tensor, or a tuple of tensors, whose first dimension is the sample."""
        return tuple(part[keep] for part in h) if isinstance(h, tuple) else h.index_select(0, keep)
