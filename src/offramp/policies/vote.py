"""Voting: leave when enough of the exits so far agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from offramp.errors import UsageError
from offramp.search import Seen
from offramp.types import Decision, Evidence, State


@dataclass(frozen=True)
class Vote:
    """Leave when at least ``votes`` exits have given the same answer; that answer is given (as in EENet, 2301.07099).

    The output is that of the last exit that gave the winning answer. EENet reads the share of votes as a score; a
    number of votes, with no exit leaving before it is reached, is our choice: a share is 1 at the first exit. For
    numbers, answers agree that are at most ``tolerance`` apart.

    Args:
        votes: how many equal answers are enough.
        heads: the indices of the exits that are asked; the heads of others never run.
        tolerance: how far apart two numbers may be and still agree; 0 for classes.
        score: the kind of score that is reported.
        provenance: what it was calibrated for and on; changes no decision.

    Raises:
        UsageError: fewer than one vote.
    """

    votes: int
    heads: tuple[int, ...]
    tolerance: float = 0.0
    score: str = "confidence"
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    numbers: ClassVar[Mapping[str, torch.dtype]] = {"votes": torch.int64}
    reads_score: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.votes < 1:
            raise UsageError(f"votes is {self.votes}; it is at least 1")

    def init(self, n: int) -> State:
        """The answers so far, one column an exit that was asked."""
        return (torch.full((n, len(self.heads)), torch.nan),)

    def step(self, state: State, evidence: Evidence) -> Decision:
        """Count the exits that agree with this one; with enough of them, this one's output is the answer."""
        answers = state[0].clone()
        answer = evidence.task.answer(evidence.output).to(answers.dtype)
        answers[:, self.heads.index(evidence.exit)] = answer
        equal = (answers - answer[:, None]).abs() <= self.tolerance
        return Decision(equal.sum(1) >= self.votes, (answers,))

    @classmethod
    def candidates(cls, seen: Seen) -> Iterable[Vote]:
        """Every number of votes."""
        middle = seen.task.tolerances[(len(seen.task.tolerances) - 1) // 2]
        for votes in range(1, len(seen.heads) + 1):
            yield cls(votes, seen.heads, middle, seen.score)
