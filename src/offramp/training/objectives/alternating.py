"""Alternating training: the final exit alone in one step, all exits together in the next."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from offramp.model import EarlyExitModel
from offramp.registry import WEIGHTINGS
from offramp.training.objective import Batch
from offramp.training.objectives.backbone import Backbone
from offramp.training.objectives.joint import Joint
from offramp.training.objectives.weightings import Weighting


class Alternating:
    """Even steps: the final exit's loss. Odd steps: the weighted loss of all exits (BERxiT, EACL 2021).

    The step is the loop's own number, so a run that resumes does not lose its place. BERxiT sums the losses; here the
    weights sum to 1, as everywhere in Offramp, which keeps the two kinds of step at one scale.

    Args:
        weights: a name from ``offramp list weightings``, or a function from the block that each exit reads, the
            depth last, to a weight for each.
    """

    skips_parameters = True

    def __init__(self, weights: str | Weighting = "uniform") -> None:
        self.everything = Joint(WEIGHTINGS.resolve(weights))
        self.final = Backbone()

    def trained(self, model: EarlyExitModel) -> Iterable[nn.Parameter]:
        """Everything."""
        return model.parameters()

    def __call__(self, model: EarlyExitModel, batch: Batch) -> dict[str, Tensor]:
        """The loss of this step's kind."""
        return self.everything(model, batch) if batch.step % 2 else self.final(model, batch)


class AlternatingWeighted(Alternating):
    """The same with an exit's loss weighted by its depth: the first stage of LGViT (2308.00255)."""

    def __init__(self) -> None:
        super().__init__("depth")
