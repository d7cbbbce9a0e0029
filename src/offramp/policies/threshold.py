"""The threshold rule: leave as soon as an exit is sure enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from offramp.errors import UsageError
from offramp.types import Decision, Evidence, State


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


def check_temperatures(temperatures: tuple[float, ...], exits: int) -> None:
    """Raise ``UsageError`` unless there is none, or one above 0 for each early exit and the final one."""
    if temperatures and (len(temperatures) != exits + 1 or not min(temperatures) > 0):
        raise UsageError(f"{exits} early exits have {exits + 1} temperatures above 0, not {list(temperatures)}")


def compares_outputs(policy: Any, task: Any, num_outputs: int) -> bool:
    """Whether a policy's score depends on the output of the exit before."""
    output, other = torch.ones(1, num_outputs), torch.zeros(1, num_outputs)
    alone, together = (task.score(policy.score, output, before) for before in (None, other))
    return not torch.equal(alone, together)


def is_gated(policy: Any, task: Any, num_outputs: int) -> bool:
    """Whether thresholds switch heads on and off in the file: with none on, it computes the backbone alone."""
    return isinstance(policy, Threshold) and not compares_outputs(policy, task, num_outputs)
