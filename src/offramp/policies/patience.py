"""Patience: leave when exits have agreed, or been sure, often enough in a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from offramp.errors import UsageError
from offramp.search import Seen
from offramp.types import Decision, Evidence, State

_LEVELS = 40


@dataclass(frozen=True)
class Patience:
    """Leave when an exit agrees with the one before for the ``patience``-th time in a row (PABEE, 2006.04152).

    Each sample has a counter of its own: it grows by one where two exits in a row give the same answer (for numbers:
    answers at most ``tolerance`` apart) and falls back to 0 where they do not. At the first exit it is 0. LGViT's code
    starts it at 1: its patience is ours + 1.

    Args:
        patience: how many agreements in a row are enough.
        heads: the indices of the exits that are asked; the heads of others never run.
        tolerance: how far apart two numbers may be and still agree; 0 for classes.
        score: the kind of score that is reported.
        provenance: what it was calibrated for and on; changes no decision.

    Raises:
        UsageError: a patience below 1.
    """

    patience: int
    heads: tuple[int, ...]
    tolerance: float = 0.0
    score: str = "confidence"
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    numbers: ClassVar[Mapping[str, torch.dtype]] = {"patience": torch.int64}
    reads_score: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise UsageError(f"patience is {self.patience}; it is at least 1")

    def init(self, n: int) -> State:
        """A counter for each sample, and its last answer."""
        return torch.zeros(n, dtype=torch.long), torch.full((n,), torch.nan)

    def step(self, state: State, evidence: Evidence) -> Decision:
        """Count, and leave where the counter has reached the patience."""
        count, before = state
        answer = evidence.task.answer(evidence.output).to(before.dtype)
        count = torch.where((answer - before).abs() <= self.tolerance, count + 1, torch.zeros_like(count))
        return Decision(count >= self.patience, (count, answer))

    @classmethod
    def candidates(cls, seen: Seen) -> Iterable[Patience]:
        """Every patience, on all exits, on every second one, and on the others."""
        for heads in {seen.heads, seen.heads[::2], seen.heads[1::2]}:
            for tolerance in seen.task.tolerances:
                for patience in range(1, len(heads)):
                    yield cls(patience, heads, tolerance, seen.score)


@dataclass(frozen=True)
class PatientConfident:
    """Leave when ``patience`` exits in a row have been sure (PCEE-BERT, EMNLP 2022; LGViT's code, 2308.00255).

    Args:
        patience: how many sure exits in a row are enough.
        threshold: the score from which an exit is sure, between 0 and 1.
        heads: the indices of the exits that are asked; the heads of others never run.
        score: the kind of score.
        provenance: what it was calibrated for and on; changes no decision.

    Raises:
        UsageError: a patience below 1, a threshold outside [0, 1].
    """

    patience: int
    threshold: float
    heads: tuple[int, ...]
    score: str = "confidence"
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    numbers: ClassVar[Mapping[str, torch.dtype]] = {"threshold": torch.float32, "patience": torch.int64}
    reads_score: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise UsageError(f"patience is {self.patience}; it is at least 1")
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"the threshold is {self.threshold}; thresholds lie between 0 and 1")

    def init(self, n: int) -> State:
        """A counter for each sample."""
        return (torch.zeros(n, dtype=torch.long),)

    def step(self, state: State, evidence: Evidence) -> Decision:
        """Count, and leave where the counter has reached the patience."""
        (count,) = state
        count = torch.where(evidence.score >= self.threshold, count + 1, torch.zeros_like(count))
        return Decision(count >= self.patience, (count,))

    @classmethod
    def candidates(cls, seen: Seen) -> Iterable[PatientConfident]:
        """Every patience with forty thresholds, evenly spaced by rank."""
        scores = seen.columns(seen.chosen).scores
        for threshold in np.unique(np.quantile(scores.numpy(), np.linspace(0.02, 0.98, _LEVELS))):
            for patience in range(1, len(seen.heads) + 1):
                yield cls(patience, float(threshold), seen.heads, seen.score)
