"""Mixed training: the backbone first, then everything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from offramp.data import Samples, Stream
from offramp.model import EarlyExitModel
from offramp.training.objective import Stage
from offramp.training.objectives.backbone import Backbone
from offramp.training.objectives.joint import Joint
from offramp.training.objectives.weightings import Weighting


class Mixed:
    """The backbone alone for a part of the epochs, then backbone and exits together (2407.14320).

    Args:
        share: how much of the epochs the backbone is alone; the paper trains each phase until it stops improving.
        weights: of the second phase, as for ``joint``.
    """

    def __init__(self, share: float = 0.5, weights: str | Weighting = "uniform") -> None:
        self.share, self.joint = share, Joint(weights)

    def stages(self, model: EarlyExitModel, samples: Samples | Stream, folder: Path) -> Sequence[Stage]:
        """Two."""
        return [Stage(Backbone(), self.share), Stage(self.joint, 1 - self.share)]
