"""Fine-tuning: the backbone on its new task, then heads on what it has become."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from offramp.data import Samples, Stream
from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.training._modes import check_one_path
from offramp.training.objective import Stage
from offramp.training.objectives.backbone import Backbone
from offramp.training.objectives.lgvit import HeadDistillation


class FineTune:
    """For a pretrained backbone: fine-tuned as if there were no exits, which then learn on it, frozen, and from it.

    The final exit is the fine-tuned network, bit for bit, so exits cost it nothing. The second stage is LGViT's
    (2308.00255). Heads are new, and want ``head_rate``.

    Args:
        share: how much of the epochs the backbone has; our choice.
        distillation: arguments for ``head-distillation``.

    Raises:
        UsageError: a share outside 0 to 1.
    """

    def __init__(self, share: float = 0.5, **distillation: Any) -> None:
        if not 0 < share < 1:
            raise UsageError(f"the backbone's share of the epochs is {share}; it lies between 0 and 1")
        self.share = share
        self.second = HeadDistillation(**distillation)

    def stages(self, model: EarlyExitModel, samples: Samples | Stream, folder: Path) -> Sequence[Stage]:
        """Two. Raises ``UsageError`` for a model with several paths."""
        check_one_path(model, "fine-tune")
        return [Stage(Backbone(), self.share), Stage(self.second, 1 - self.share)]
