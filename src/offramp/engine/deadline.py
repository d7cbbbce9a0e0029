"""Deadlines: compute until the clock says stop, and answer with the best there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from offramp._batches import Inputs, count
from offramp.engine.loop import Answered, Answers, Cohort, Segments, Walk
from offramp.engine.run import check_policy, nothing, prepared
from offramp.engine.torch import TorchSegments
from offramp.errors import UsageError
from offramp.model import EarlyExitModel, evaluating
from offramp.policies import Policy, score_of
from offramp.policies.forced import Forced
from offramp.registry import unknown
from offramp.tasks import Task
from offramp.types import ChainCosts, CostTable, Trace

ANSWERS = ("last", "cache", "product", "geometric")


def run_until(
    model: EarlyExitModel,
    x: Inputs,
    limit: float | Sequence[float] | Tensor,
    costs: CostTable,
    policy: Policy | None = None,
    answer: str = "cache",
    segments: Segments | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Trace:
    """A batch through the model under a wall-clock limit (2106.15183).

    A segment is started only for the samples whose limit leaves room for its measured 95th percentile, head included,
    and for what this loop itself takes at an exit (its checks, scores and rows), at most so far in the same call; the
    others answer with the best so far. The first segment always runs: there is no answer without it. A segment that
    has begun is not broken off, so an answer is late by what that segment takes beyond its 95th percentile.

    A sample that leaves by the policy, or at the final exit, answers as ``run`` does; without a limit (infinity) the
    two are the same.

    Args:
        model: the model.
        x: a batch as the model's input prepares it.
        limit: seconds from the call to the answer, one number or one a sample.
        costs: a cost table with times (``profile(model, batch_size)``), for a batch of about this size.
        policy: lets samples leave before their limit; where none is given nobody leaves early and all heads run.
        answer: what a sample answers that its limit stops: ``last``, the deepest exit that was asked; ``cache``, the
            surest exit so far, which is also the exit that is reported; ``product``, a product of experts over the
            answers so far (2306.02652); ``geometric``, their geometric mean of probabilities (2106.05409).
        segments: what computes in place of the model's own modules, such as
            ``open_runtime("torch", "bf16").segments(model)``.
        clock: seconds, rising; replaced in tests.

    Raises:
        UsageError: an unknown kind of answer, a cost table without times or of another model, limits that are not one a
            sample or no numbers, a policy for more exits than the model has.
        DataError: samples of another shape than the model takes, or with values that are not finite.
    """
    start = clock()
    if answer not in ANSWERS:
        raise UsageError(unknown("kind of answer", answer, ANSWERS))
    if costs.p95 is None:
        raise UsageError("deadlines need a cost table with times: profile(model) with repeats above 0")
    if costs.chain != model.chain:
        raise UsageError(f"the model has exits after {model.after[:-1]}, the cost table after {costs.after}")
    if policy is not None:
        check_policy(model, policy)
    x = prepared(model, x)
    samples = count(x)
    limits = _limits(limit, samples)
    if samples == 0:
        return nothing(model)
    if policy is None:  # nobody leaves early, and every head is asked
        policy = Forced((len(model.exits),) * samples, len(model.exits), model.task.scores[0])
    running = _Timed(TorchSegments(model) if segments is None else segments, clock)
    with evaluating(model), torch.inference_mode():
        return _UnderClock(running, limits + start, costs.in_chain("p95"), policy, model.task, answer, start).run(x)


def _limits(limit: float | Sequence[float] | Tensor, samples: int) -> Tensor:
    """Seconds for each sample, float64 ``(samples,)`` on the processor."""
    limits = torch.as_tensor(limit, dtype=torch.float64, device="cpu")
    if limits.ndim > 1 or (limits.ndim == 1 and len(limits) != samples):
        raise UsageError(f"limits of shape {tuple(limits.shape)} for {samples} samples: give one number, or one each")
    if limits.isnan().any():
        raise UsageError("a limit is a number of seconds, not NaN")
    return limits.expand(samples)


class _UnderClock:
    """The loop of ``run_policy`` with a clock, for one batch.

    Args:
        segments: what computes.
        ends: the clock's reading at each sample's limit, ``(B,)``.
        p95: what the parts take.
        policy: who leaves where.
        task: what an output means.
        answer: what a sample answers that its limit stops.
        begun: the clock's reading when the call began.
    """

    def __init__(
        self,
        segments: _Timed,
        ends: Tensor,
        p95: ChainCosts,
        policy: Policy,
        task: Task,
        answer: str,
        begun: float,
    ) -> None:
        self.segments, self.ends, self.policy, self.task, self.answer = segments, ends, policy, task, answer
        self.p95, self.head_seconds = p95, (*p95.heads, 0.0)
        self.runs, self.heard = segments.chain.runs(policy.heads), segments.chain.heard(policy.heads)
        self.answers = Answers(len(ends))
        self.asked: list[tuple[int, Answered]] = []
        self.answered = torch.zeros(len(ends), dtype=torch.bool)
        # what the loop itself takes at an exit; the checks before the first segment stand for the first exit's rows
        self.aside = segments.clock() - begun

    def run(self, x: Inputs) -> Trace:
        """A batch to its answers."""
        walk = Walk(self.segments, x, self.policy, self.task)
        self.onto = torch.zeros(len(self.ends), dtype=torch.long) if walk.arrived.onto is None else walk.arrived.onto
        begun, self.segments.spent = self.segments.clock(), 0.0
        for k, answered in walk:
            assert walk.cohort is not None
            if answered is not None:
                self.answers.write(k, answered)
                self.asked.append((k, answered))
                self.answered[answered.rows.cpu()] = True
            if len(walk.cohort):
                walk.cohort = self._in_time(k, walk.cohort)
                if answered is not None:
                    self.aside = max(self.aside, self.segments.clock() - begun - self.segments.spent)
            begun, self.segments.spent = self.segments.clock(), 0.0
        return walk.trace(self.answers)

    def _in_time(self, k: int, cohort: Cohort) -> Cohort:
        """Who has time for the next exit; the others answer with the best so far."""
        left = self.ends[cohort.rows.cpu()] - self.segments.clock()
        onward = self._onward(k)
        asked = self.answered[cohort.rows.cpu()]
        # who has no answer yet would ask the head that stands here, if that is too long
        late = left < torch.where(asked, onward, onward + self.head_seconds[k] + self.aside)
        if not bool(late.any()):
            return cohort
        device = cohort.rows.device
        for some in (late & asked, late & ~asked):
            if bool(some.any()):
                self._stop(k, cohort.take(some.nonzero()[:, 0].to(device)), bool(asked[some][0]))
        return cohort.take((~late).nonzero()[:, 0].to(device))

    def _onward(self, k: int) -> float:
        """The seconds from exit ``k`` to an answer at the next one that is computed."""
        after = next(later for later in range(k + 1, len(self.runs)) if self.runs[later])
        chain = self.p95.chain
        over = self.p95.links[chain.paths[after] - 1] if chain.linked and chain.paths[after] > chain.paths[k] else 0.0
        hears = self.p95.side if after == self.heard else 0.0
        return over + hears + self.p95.segments[after] + self.head_seconds[after] + self.aside

    def _stop(self, k: int, gone: Cohort, asked: bool) -> None:
        """Answer for samples whose time is up at exit ``k``."""
        if not asked:
            h = self.segments.hear(gone.h) if k in self.segments.chain.side else gone.h
            output = self.task.keep(self.segments.head(k, h).float())
            score = score_of(self.policy, self.task, k, output, None)
            self.answers.write(k, Answered(gone.rows, output, score))
        elif self.answer != "last":
            kind, samples = self.policy.score, len(self.ends)
            onto = self.onto.to(gone.rows.device)[gone.rows]
            for path in onto.unique().tolist():  # those who entered together were asked at the same exits
                start = self.segments.chain.starts[path]
                asked_there = [(j, answered) for j, answered in self.asked if j >= start]
                rows = gone.rows[onto == path]
                self.answers.write(*_best(self.task, kind, self.answer, asked_there, rows, samples))


def _best(
    task: Task, kind: str, answer: str, asked: list[tuple[int, Answered]], rows: Tensor, samples: int
) -> tuple[Any, Answered]:
    """The exit that answers, one number or one a row, and the best answer from all that were asked."""

    def of(part: Tensor, where: Tensor) -> Tensor:  # exits asked later have fewer rows; these were at all of them
        whole = part.new_zeros(samples, *part.shape[1:])
        whole[where] = part
        return whole[rows]

    outputs = [of(answered.output, answered.rows) for _, answered in asked]
    scores = [of(answered.score, answered.rows) for _, answered in asked]
    stacked = torch.stack(outputs)
    if answer == "cache":
        sure = torch.stack(scores)
        place = len(asked) - 1 - sure.flip(0).max(0).indices  # the deepest of equals
        exits = torch.tensor([k for k, _ in asked], device=rows.device)[place]
        index = place[None, :, None].expand(1, -1, stacked.shape[2])
        return exits, Answered(rows, stacked.gather(0, index)[0], sure.amax(0))
    if answer == "product":
        together = task.product(stacked)
    else:
        weights = stacked.new_full((len(asked),), 1 / len(asked))
        together = task.ensemble(stacked, weights, stacked.new_zeros(()))
    return asked[-1][0], Answered(rows, together, task.score(kind, together, None))


class _Timed:
    """Segments that add up what they take, so that what the loop takes is the rest.

    Args:
        segments: what computes.
        clock: seconds, rising.
    """

    def __init__(self, segments: Segments, clock: Callable[[], float]) -> None:
        self.segments, self.clock, self.spent = segments, clock, 0.0
        self.chain = segments.chain

    def _timed(self, call: Callable[..., Any], *args: Any) -> Any:
        begun = self.clock()
        result = call(*args)
        self.spent += self.clock() - begun
        return result

    def route(self, x: Inputs) -> tuple[Tensor, Any]:
        found: tuple[Tensor, Any] = self._timed(self.segments.route, x)
        return found

    def enter(self, path: int, x: Inputs, h: Any = None) -> Any:
        return self._timed(self.segments.enter, path, x, h)

    def step(self, k: int, h: Any) -> Any:
        return self._timed(self.segments.step, k, h)

    def hear(self, h: Any) -> Any:
        return self._timed(self.segments.hear, h)

    def head(self, k: int, h: Any) -> Tensor:
        return self._timed(self.segments.head, k, h)

    def final(self, h: Any) -> Tensor:
        return self._timed(self.segments.final, h)
