"""The backbone alone: no exit is run."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from offramp._batches import Inputs
from offramp.model import EarlyExitModel
from offramp.training._modes import used_by
from offramp.training.objective import Batch


class Backbone:
    """The loss of the final exit; heads do not run and do not change.

    How a static network is trained; the first stage of ``mixed``, and what ``frozen`` and ``lgvit`` start from.
    """

    def trained(self, model: EarlyExitModel) -> Iterable[nn.Parameter]:
        """What the final exit depends on."""
        return used_by(model, -1)

    def __call__(self, model: EarlyExitModel, batch: Batch) -> dict[str, Tensor]:
        """The final exit's loss."""
        return {"loss": model.task.loss(final_output(model, batch.inputs), batch.targets)}


def final_output(model: EarlyExitModel, x: Inputs) -> Tensor:
    """The final exit's output for a batch, without any head on the way."""
    *_, (_, h) = model.states(x, model.chain.num_paths - 1)
    return model.final(h)
