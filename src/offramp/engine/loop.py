"""The one compaction loop: samples that leave are taken out of the batch, so what is left costs what is left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from offramp._batches import Inputs, cat, count, parts, take
from offramp.policies import Policy, entries, score_of
from offramp.tasks import Task
from offramp.types import Chain, Evidence, State, Trace


class Segments(Protocol):
    """A model in pieces. It knows neither policy nor task; a state ``h`` is a tensor or a tuple of states."""

    chain: Chain
    """Where its exits stand."""

    def route(self, x: Inputs) -> tuple[Tensor, Any]:
        """What the router says ``(B, paths)``, and the cheapest path's first state where the router read it."""

    def enter(self, path: int, x: Inputs, h: Any = None) -> Any:
        """A batch to the state before a path's first segment; ``h`` is the last state of the path before, of the first
        samples of the batch, where paths are linked and somebody comes from there."""

    def step(self, k: int, h: Any) -> Any:
        """The state after segment ``k`` (the blocks that lead to exit ``k``) from the state before it."""

    def hear(self, h: Any) -> Any:
        """The state with another modality encoded, for the exits from there on that read it."""

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
        previous: the output of the exit that was asked before on this path ``(n, num_outputs)``; None before the first.
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


@dataclass(frozen=True, eq=False)
class Arrived:
    """A batch before its first segment: what is known of all samples, whether they have entered or not.

    Args:
        x: the batch.
        state: what the policy remembers of each.
        entry: the path that each is sent to, ``(B,)``; None where everybody begins at the cheapest that runs.
        onto: the path where that one begins to be computed, ``(B,)``, likewise.
        first: the first path of which anything is computed.
        begun: the cheapest path's first state where a router read it.
    """

    x: Inputs
    state: State
    entry: Tensor | None
    onto: Tensor | None
    first: int
    begun: Any = None


def arrive(segments: Segments, x: Inputs, policy: Policy) -> Arrived:
    """Ask the policy where each sample of a batch enters, and the router if the policy asks it."""
    device, begun = parts(x)[0].device, None

    def route() -> Tensor:
        nonlocal begun
        said, begun = segments.route(x)
        return said

    entry = entries(policy, route)
    state = tuple(s.to(device) for s in policy.init(count(x)))
    entered = segments.chain.entered(policy.heads)
    if entry is None:
        return Arrived(x, state, None, None, entered[0])
    entry = entry.to(device)
    return Arrived(x, state, entry, torch.tensor(entered, device=device)[entry], entered[0], begun)


def enter(segments: Segments, arrived: Arrived, path: int, cohort: Cohort | None = None) -> Cohort:
    """Who stands before the first segment of a path: those whom no exit before let go, and those who enter here.

    Args:
        segments: what computes.
        arrived: the whole batch.
        path: the path, of which something is computed.
        cohort: who comes from the paths before; None at the first.
    """
    device = parts(arrived.x)[0].device
    rows = torch.empty(0, dtype=torch.long, device=device) if cohort is None else cohort.rows
    coming, state = len(rows), () if cohort is None else cohort.state
    if arrived.onto is not None:
        new = (arrived.onto == path).nonzero()[:, 0]
    else:
        new = torch.arange(count(arrived.x) if path == arrived.first else 0, device=device)
    begin = tuple(s[new] for s in arrived.state)
    if not coming:
        state = begin
    elif len(new):
        state = tuple(map(torch.cat, zip(state, begin, strict=True)))
    rows = torch.cat([rows, new])
    if len(rows) == 0:
        return Cohort(rows, None, state)
    if path == 0 and arrived.begun is not None:
        return Cohort(rows, take(arrived.begun, rows), state)
    x = arrived.x if len(rows) == count(arrived.x) and not coming else take(arrived.x, rows)
    before = cohort.h if cohort is not None and coming and segments.chain.linked else None
    return Cohort(rows, segments.enter(path, x, before), state)


class Walk:
    """A batch on its way through the chain: every step is a segment, with what the exit at its end answers, if asked.

    Args:
        segments: what computes.
        x: a batch, sample first.
        policy: who enters and leaves where.
        task: what an output means.
    """

    def __init__(self, segments: Segments, x: Inputs, policy: Policy, task: Task) -> None:
        self.segments, self.policy, self.task = segments, policy, task
        self.arrived = arrive(segments, x, policy)
        self.cohort: Cohort | None = None
        """Who is still inside; some may be taken out between two steps."""
        self._runs = segments.chain.runs(policy.heads)

    def __iter__(self) -> Iterator[tuple[int, Answered | None]]:
        """Each exit that somebody comes to, by its index, and its answer."""
        chain = self.segments.chain
        for k, runs in enumerate(self._runs):
            if not runs:
                continue
            if k in chain.starts:
                self.cohort = enter(self.segments, self.arrived, chain.paths[k], self.cohort)
            assert self.cohort is not None
            if len(self.cohort):
                self.cohort, answered = advance(self.segments, self.policy, self.task, k, self.cohort)
                yield k, answered

    def trace(self, answers: Answers) -> Trace:
        """The answers, with path and entry of each."""
        return answers.trace(self.segments.chain, self.arrived.entry)


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
    final = k == len(segments.chain.after) - 1
    if not final and k not in policy.heads:
        return reached, None
    if k == segments.chain.heard(policy.heads):
        reached = replace(reached, h=segments.hear(reached.h))
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

    def trace(self, chain: Chain, entry: Tensor | None = None) -> Trace:
        """All of them; every row was written at least once."""
        assert self._trace is not None
        if chain.num_paths == 1:
            return self._trace
        paths = torch.tensor(chain.paths, device=self._trace.exit.device)
        found = replace(self._trace, path=paths[self._trace.exit])
        return found if entry is None else replace(found, entry=entry)


def run_policy(segments: Segments, x: Inputs, policy: Policy, task: Task) -> Trace:
    """Run a batch; every sample leaves where the policy lets it go, and only the heads that it needs run.

    Args:
        segments: what computes.
        x: a batch, sample first.
        policy: who enters and leaves where.
        task: what an output means.
    """
    walk, answers = Walk(segments, x, policy, task), Answers(count(x))
    for k, answered in walk:
        if answered is not None:
            answers.write(k, answered)
    return walk.trace(answers)
