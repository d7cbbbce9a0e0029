"""Gradient equilibrium: every block gets the mean of the gradients of the exits behind it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from offramp.model import EarlyExitModel
from offramp.training._modes import check_one_path
from offramp.training.objective import Batch
from offramp.training.objectives.joint import Joint


class GradientEquilibrium(Joint):
    """Joint training whose gradients are rescaled where an exit branches off (1908.06294).

    With ``n`` exits from this one to the final exit, the gradient into the backbone is 1/n of what the head sends and
    (n − 1)/n of what comes from behind. Each block so receives the mean over all exits behind it, whatever their
    number, while every head learns from its own full loss. The losses are summed, as in the paper.
    """

    def __init__(self) -> None:
        super().__init__(lambda after: [1.0] * len(after))

    def trained(self, model: EarlyExitModel) -> Iterable[nn.Parameter]:
        """Everything. Raises ``UsageError`` for a model with several paths."""
        check_one_path(model, "gradient-equilibrium")
        return super().trained(model)

    def __call__(self, model: EarlyExitModel, batch: Batch) -> dict[str, Tensor]:
        """The sum of all losses; what differs from joint training is in the gradient only."""
        losses = []
        h, heard = model.enter(0, batch.inputs), model.chain.heard(range(len(model.after)))
        for k in range(len(model.exits)):
            behind = len(model.exits) + 1 - k
            h = model.step(k, h)
            h = model.hear(h) if k == heard else h
            losses.append(model.task.loss(model.head(k, _scaled(h, 1 / behind)), batch.targets))
            h = _scaled(h, (behind - 1) / behind)
        h = model.step(len(model.exits), h)
        output = model.final(model.hear(h) if heard == len(model.exits) else h)
        return {"loss": sum(losses, start=model.task.loss(output, batch.targets))}


def _scaled(h: Any, factor: float) -> Any:
    """The same state; a gradient that comes back through it is multiplied by ``factor``."""
    if isinstance(h, tuple):
        return tuple(_scaled(part, factor) for part in h)
    if not h.requires_grad:
        return h
    view = h.view_as(h)
    view.register_hook(lambda gradient: gradient * factor)
    return view
