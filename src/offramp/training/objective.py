"""The seams of training: an objective says what one step makes small, a plan strings objectives together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from offramp._batches import Inputs
from offramp.data import Samples, Stream
from offramp.model import EarlyExitModel


class Batch(NamedTuple):
    """What one step learns from.

    Args:
        inputs: what the model reads, such as images ``(B, C, H, W)``.
        targets: shape ``(B,)``; or ``(B, classes)``, probabilities, after mixing, smoothing or teaching.
        step: how many steps of this stage went before.
    """

    inputs: Inputs
    targets: Tensor
    step: int = 0


class Objective(Protocol):
    """What is learned, from what, and which parameters learn it.

    One that does not use every such parameter in every step has an attribute ``skips_parameters`` that is true: several
    processes have to know.
    """

    def trained(self, model: EarlyExitModel) -> Iterable[nn.Parameter]:
        """The parameters that learn. All else is frozen: no gradient, evaluation mode, no running statistic moves."""

    def __call__(self, model: EarlyExitModel, batch: Batch) -> dict[str, Tensor]:
        """A batch to ``{"loss": scalar}`` and any other scalars worth a log."""


@dataclass(frozen=True)
class Stage:
    """A part of a training run, with an optimiser and a schedule of its own.

    Args:
        objective: of its steps.
        share: of the run's epochs.
        samples: to learn from, where they are not those of the run.
    """

    objective: Objective
    share: float = 1.0
    samples: Samples | None = None


class Plan(Protocol):
    """Several objectives, one after the other."""

    def stages(self, model: EarlyExitModel, samples: Samples | Stream, folder: Path) -> Sequence[Stage]:
        """The stages for a model and the run's samples; ``folder`` keeps what is worth keeping across a resume."""
