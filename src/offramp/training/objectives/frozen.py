"""Frozen (classifier-wise) training: only heads learn."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from offramp._batches import parts
from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.training.objective import Batch


class Frozen:
    """Each head on its own loss; the backbone and its final exit do not change by one bit (2106.15183, 2105.09121).

    Heads share no parameter and the backbone gives no gradient, so the plain sum trains each as if it were alone.
    """

    def trained(self, model: EarlyExitModel) -> Iterable[nn.Parameter]:
        """The heads. Raises ``UsageError`` where there are none."""
        if len(model.heads) == 0:
            raise UsageError("frozen training trains heads only, and this model has no early exits")
        return model.heads.parameters()

    def __call__(self, model: EarlyExitModel, batch: Batch) -> dict[str, Tensor]:
        """The sum of the heads' losses; the last segment and the final exit do not run."""
        loss = parts(batch.inputs)[0].new_zeros(())
        states = model.states(batch.inputs)
        for k in range(len(model.exits)):
            with torch.no_grad():
                _, h = next(states)
            if model.module_of(k) is not None:  # a path's own classifier is the backbone's, and frozen
                loss = loss + model.task.loss(model.head(k, h), batch.targets)
        return {"loss": loss}
