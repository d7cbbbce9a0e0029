"""The one compaction loop: samples that leave are taken out of the batch, so what is left costs what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from offramp._batches import Inputs, cat, count, parts, take
from offramp.policies import Policy, score_of
from offramp.tasks import Task
from offramp.types import Evidence, State, Trace


class Segments(Protocol):
    """A model in pieces. It knows neither policy nor task; a state ``h`` is a tensor or a tuple of tensors."""

    num_exits: int
    """The number of early exits."""

    def stem(self, x: Inputs) -> Any:
        """A batch to the state before the first block."""

    def step(self, k: int, h: Any) -> Any:
        """The state after segment ``k`` (the blocks that lead to exit ``k``) from the state before it."""

    def head(self, k: int, h: Any) -> Tensor:
        """The output of early exit ``k``; ``Task.keep`` makes ``(n, num_outputs)`` of it."""

    def final(self, h: Any) -> Tensor:
        """The output of the final exit, the same."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """Samples that stand at the same segment; the first dimension of every tensor is the sample.

    Args:
        rows: who they are, for the caller to say: their places in a batch, ``(n,)``.
        h: the state of the backbone.
        state: what the policy remembers.
        previous: the output of the exit that was asked before ``(n, num_outputs)``; None before the first.
    """

    rows: Tensor
    h: Any
    state: State
    previous: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, keep: Tensor) -> Cohort:
        """Some of them, by index, in the order of ``keep`` ``(m,)``."""
        previous = None if self.previous is None else self.previous[keep]
        return Cohort(self.rows[keep], take(self.h, keep), tuple(s[keep] for s in self.state), previous)

    @staticmethod
    def cat(cohorts: Sequence[Cohort]) -> Cohort:
        """Several that stand at the same segment and were asked at the same exits, one after the other."""
        previous = [c.previous for c in cohorts if c.previous is not None]
        return Cohort(
            torch.cat([c.rows for c in cohorts]),
            cat([c.h for c in cohorts]),
            tuple(map(torch.cat, zip(*(c.state for c in cohorts), strict=True))),
            torch.cat(previous) if previous else None,
        )


class Answered(NamedTuple):
    """What one exit answers for a whole cohort, those included who go on.

    Args:
        rows: the rows of the cohort, ``(n,)``.
        output: the answers, float32 ``(n, num_outputs)``.
        score: how sure the exit is, ``(n,)``.
    """

    rows: Tensor
    output: Tensor
    score: Tensor


def enter(segments: Segments, x: Inputs, policy: Policy) -> Cohort:
    """The cohort of a batch, before the first segment."""
    device = parts(x)[0].device
    state = tuple(s.to(device) for s in policy.init(count(x)))
    return Cohort(torch.arange(count(x), device=device), segments.stem(x), state)


def advance(segments: Segments, policy: Policy, task: Task, k: int, cohort: Cohort) -> tuple[Cohort, Answered | None]:
    """One segment on, and the exit at its end if the policy asks it.

    Outputs are decided on in float32, whatever the model computes in.

    Args:
        segments: what computes.
        policy: who leaves where.
        task: what an output means.
        k: the index of the segment and of its exit; the final exit has the highest.
        cohort: who stands before the segment.

    Returns:
        who stays, before segment ``k + 1``, nobody after the final exit; and what the exit answers, None where the
        policy does not ask it.
    """
    reached = replace(cohort, h=segments.step(k, cohort.h))
    final = k == segments.num_exits
    if not final and k not in policy.heads:
        return reached, None
    output = task.keep((segments.final(reached.h) if final else segments.head(k, reached.h)).float())
    score = score_of(policy, task, k, output, cohort.previous)
    if final:
        return reached.take(cohort.rows[:0]), Answered(cohort.rows, output, score)
    decision = policy.step(cohort.state, Evidence(k, output, score, task, cohort.previous))
    answered = Answered(cohort.rows, output if decision.output is None else decision.output, score)
    keep = (~decision.leave).nonzero()[:, 0]
    stays = Cohort(cohort.rows, reached.h, decision.state, output)
    return stays if len(keep) == len(cohort) else stays.take(keep), answered


class Answers:
    """The answers of a batch as they come in: the last one that is written for a row counts.

    So nobody has to say who left, and one wait for the device is enough per exit.

    Args:
        samples: how many rows there are.
    """

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self._trace: Trace | None = None

    def write(self, k: int | Tensor, answered: Answered) -> None:
        """Answers of exit ``k``, or of an exit for each row, ``(n,)``."""
        rows, output, score = answered
        if self._trace is None:
            exits = torch.zeros(self.samples, dtype=torch.long, device=output.device)
            self._trace = Trace(output.new_empty(self.samples, output.shape[1]), exits, score.new_zeros(self.samples))
        self._trace.output[rows], self._trace.exit[rows], self._trace.score[rows] = output, k, score

    def trace(self) -> Trace:
        """All of them; every row was written at least once."""
        assert self._trace is not None
        return self._trace


def run_policy(segments: Segments, x: Inputs, policy: Policy, task: Task) -> Trace:
    """Run a batch; every sample leaves where the policy lets it go, and only the heads that it needs run.

    Args:
        segments: what computes.
        x: a batch, sample first.
        policy: who leaves where.
        task: what an output means.
    """
    cohort, answers = enter(segments, x, policy), Answers(count(x))
    for k in range(segments.num_exits + 1):
        cohort, answered = advance(segments, policy, task, k, cohort)
        if answered is not None:
            answers.write(k, answered)
        if len(cohort) == 0:
            break
    return answers.trace()
