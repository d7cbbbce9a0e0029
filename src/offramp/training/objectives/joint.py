"""Joint training: backbone and exits together."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from offramp.model import EarlyExitModel
from offramp.registry import WEIGHTINGS
from offramp.training.objective import Batch
from offramp.training.objectives.weightings import Weighting, weighted


class Joint:
    """A weighted sum of the losses of all exits, the final exit included (BranchyNet, 1709.01686; 2106.15183).

    Args:
        weights: a name from ``offramp list weightings``, or a function from the block that each exit reads, the
            depth last, to a weight for each.
    """

    def __init__(self, weights: str | Weighting = "uniform") -> None:
        self.weighting: Weighting = WEIGHTINGS.resolve(weights)

    def trained(self, model: EarlyExitModel) -> Iterable[nn.Parameter]:
        """Everything."""
        return model.parameters()

    def __call__(self, model: EarlyExitModel, batch: Batch) -> dict[str, Tensor]:
        """The weighted sum."""
        losses = [model.task.loss(output, batch.targets) for output in model(batch.inputs)]
        return {"loss": weighted(losses, self.weighting(model.after))}
