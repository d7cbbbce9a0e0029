"""Self-distillation: the final exit teaches the others while all of them learn."""

from __future__ import annotations

from torch import Tensor

from offramp.model import EarlyExitModel
from offramp.training.objective import Batch
from offramp.training.objectives.joint import Joint
from offramp.training.objectives.weightings import Weighting, weighted


class SelfDistillation(Joint):
    """Joint training, with each early exit also learning the final exit's answer (1905.08094; here without features).

    Loss: the weighted losses of all exits + ``weight`` · the mean over early exits of the distillation from the final
    exit, which is detached: it teaches and does not learn from being taught.

    Args:
        weights: of the losses, as for ``joint``.
        weight: of the distillation.
        temperature: of the distillation.
    """

    def __init__(self, weights: str | Weighting = "uniform", weight: float = 0.5, temperature: float = 2.0) -> None:
        super().__init__(weights)
        self.weight, self.temperature = weight, temperature

    def __call__(self, model: EarlyExitModel, batch: Batch) -> dict[str, Tensor]:
        """The sum; ``distillation`` is its second part, before ``weight``."""
        *early, final = model(batch.inputs)
        losses = [model.task.loss(output, batch.targets) for output in (*early, final)]
        taught = [model.task.distillation(output, final.detach(), self.temperature) for output in early]
        loss = weighted(losses, self.weighting(model.after))
        if not taught:
            return {"loss": loss}
        distillation = sum(taught[1:], taught[0]) / len(taught)
        return {"loss": loss + self.weight * distillation, "distillation": distillation}
