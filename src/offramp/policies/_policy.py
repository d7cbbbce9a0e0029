"""The seam every policy fills."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from offramp.search import Seen
from offramp.tasks import Task
from offramp.types import Decision, Evidence, State


class Policy(Protocol):
    """Decides, exit by exit, which samples leave; the final exit always answers and is never asked about."""

    reads_score: ClassVar[bool]
    """Whether it leaves by ``score``, so that another kind of score is another policy."""

    @property
    def numbers(self) -> Mapping[str, torch.dtype]:
        """The fields whose numbers are inputs of an exported file, so that calibrating again needs no new one, and
        their type there."""

    @property
    def heads(self) -> tuple[int, ...]:
        """The indices of the exits that the policy needs; the heads of all others never run."""

    @property
    def score(self) -> str:
        """The kind of score that it reads."""

    def init(self, n: int) -> State:
        """What is remembered about ``n`` samples before the first exit; every tensor has ``n`` rows."""

    def step(self, state: State, evidence: Evidence) -> Decision:
        """Who leaves here, what is remembered, and the answer where it is not the head's own."""

    @classmethod
    def candidates(cls, seen: Seen) -> Iterable[Policy]:
        """Those of its kind that are worth trying; ``calibrate`` takes the best that keeps the goal."""


def score_of(policy: Policy, task: Task, k: int, output: Tensor, previous: Tensor | None) -> Tensor:
    """The score that a policy reads at an exit: of the output at the policy's temperature, where it has some.

    Args:
        policy: the policy; one with ``temperatures`` has one for each exit, the final exit last.
        task: what an output means.
        k: the index of the exit.
        output: ``(n, num_outputs)``.
        previous: the output of the exit that ran before, or None.
    """
    temperatures: tuple[float, ...] = getattr(policy, "temperatures", ())
    return task.score(policy.score, output / temperatures[k] if temperatures else output, previous)
