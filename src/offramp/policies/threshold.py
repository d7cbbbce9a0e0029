"""The threshold rule: leave as soon as an exit is sure enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from offramp.errors import UsageError
from offramp.search import Seen, exit_distribution, quota_thresholds
from offramp.search.columns import check_temperatures
from offramp.types import Decision, Evidence, State

_LEVELS = 40


@dataclass(frozen=True)
class Threshold:
    """Leave at the first exit whose score is at least its threshold (BranchyNet, 1709.01686; LGViT, 2308.00255).

    LGViT uses one threshold for all exits and leaves *above* it; here each exit has its own and *reaching* it is
    enough.

    Args:
        thresholds: one for each early exit, between 0 and 1; None switches an exit off, and its head never runs.
        score: the kind of score, ``confidence`` for classes, ``change`` for numbers.
        temperatures: by which the outputs of each exit are divided before they are scored, the final exit last; none
            are if empty. An answer is the output itself.
        provenance: what it was calibrated for and on; travels with the policy, changes no decision.

    Raises:
        UsageError: a threshold outside [0, 1], temperatures of another number or not above 0.
    """

    thresholds: tuple[float | None, ...]
    score: str = "confidence"
    temperatures: tuple[float, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    numbers: ClassVar[Mapping[str, torch.dtype]] = {"thresholds": torch.float32}
    reads_score: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for k, value in enumerate(self.thresholds):
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"the threshold of exit {k} is {value}; thresholds lie between 0 and 1")
        check_temperatures(self.temperatures, len(self.thresholds))

    @property
    def heads(self) -> tuple[int, ...]:
        """The exits that are switched on."""
        return tuple(k for k, value in enumerate(self.thresholds) if value is not None)

    def init(self, n: int) -> State:
        """Nothing is remembered."""
        return ()

    def step(self, state: State, evidence: Evidence) -> Decision:
        """Leave where the score reaches the threshold."""
        threshold = self.thresholds[evidence.exit]
        if threshold is None:
            raise ValueError(f"exit {evidence.exit} is switched off")
        return Decision(evidence.score >= threshold, state)

    @classmethod
    def candidates(cls, seen: Seen) -> Iterable[Threshold]:
        """Thresholds by MSDNet's rule for many budgets; ``calibrate`` has its own search."""
        columns, to_exit = seen.columns(seen.fitted), seen.costs.to_exit(seen.heads, seen.unit)
        for budget in np.linspace(to_exit[0], to_exit[-1], 4 * _LEVELS + 2)[1:-1]:
            yield cls(quota_thresholds(columns.scores, exit_distribution(columns, float(budget))), seen.score)


def compares_outputs(policy: Any, task: Any, num_outputs: int) -> bool:
    """Whether a policy's score depends on the output of the exit before."""
    output, other = torch.ones(1, num_outputs), torch.zeros(1, num_outputs)
    alone, together = (task.score(policy.score, output, before) for before in (None, other))
    return not torch.equal(alone, together)


def is_gated(policy: Any, task: Any, num_outputs: int) -> bool:
    """Whether thresholds switch heads on and off in the file: with none on, it computes the backbone alone."""
    return isinstance(policy, Threshold) and not compares_outputs(policy, task, num_outputs)
