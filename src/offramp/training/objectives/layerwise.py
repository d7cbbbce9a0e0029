"""Layer-wise training: exit by exit, from the first to the last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from offramp.data import Samples, Stream
from offramp.model import EarlyExitModel
from offramp.training._modes import check_one_path, used_by
from offramp.training.objective import Batch, Stage


class Layerwise:
    """Train up to the first exit, freeze that, train on to the second, and so on to the final exit (2106.15183).

    The epochs are shared out evenly, at least one for each exit.
    """

    def stages(self, model: EarlyExitModel, samples: Samples | Stream, folder: Path) -> Sequence[Stage]:
        """One for each exit."""
        check_one_path(model, "layerwise")
        count = len(model.after)
        return [Stage(OneExit(k), 1 / count) for k in range(count)]


class OneExit:
    """The loss of one exit; it trains what this exit uses and no earlier exit does.

    Args:
        exit: its index, 0 for the first.
    """

    def __init__(self, k: int) -> None:
        self.exit = k

    def trained(self, model: EarlyExitModel) -> Iterable[nn.Parameter]:
        """The head, and the blocks since the exit before."""
        before = {id(p) for k in range(self.exit) for p in used_by(model, k)}
        return [p for p in used_by(model, self.exit) if id(p) not in before]

    def __call__(self, model: EarlyExitModel, batch: Batch) -> dict[str, Tensor]:
        """This exit's loss; what is frozen keeps nothing for a backward pass, and other heads do not run."""
        states = model.states(batch.inputs)
        with torch.no_grad():
            for _ in range(self.exit):
                next(states)
        _, h = next(states)
        output = model.final(h) if self.exit == len(model.exits) else model.head(self.exit, h)
        return {"loss": model.task.loss(output, batch.targets)}
