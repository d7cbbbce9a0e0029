"""Deadlines: compute until the clock says stop, and answer with the best there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from offramp._batches import Inputs, count
from offramp.engine.loop import Answered, Answers, Stages, advance, enter
from offramp.engine.run import check_policy, nothing, prepared
from offramp.engine.torch import TorchStages
from offramp.errors import UsageError
from offramp.model import EarlyExitModel, evaluating
from offramp.policies import Policy, score_of
from offramp.policies.forced import Forced
from offramp.registry import unknown
from offramp.tasks import Task
from offramp.types import CostTable, Parts, Trace

ANSWERS = ("last", "cache", "product", "geometric")


def run_until(
    model: EarlyExitModel,
    x: Inputs,
    limit: float | Sequence[float] | Tensor,
    costs: CostTable,
    policy: Policy | None = None,
    anytime: str = "cache",
    stages: Stages | None = None,
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
        anytime: what a sample answers that its limit stops: ``last``, the deepest exit that was asked; ``cache``, the
            surest exit so far, which is also the exit that is reported; ``product``, a product of experts over the
            answers so far (2306.02652); ``geometric``, their geometric mean of probabilities (2106.05409).
        stages: what computes in place of the model's own modules, such as
            ``open_runtime("torch", "bf16").stages(model)``.
        clock: seconds, rising; replaced in tests.

    Raises:
        UsageError: an unknown kind of answer, a cost table without times or of another model, limits that are not one a
            sample or no numbers, a policy for more exits than the model has.
        DataError: samples of another shape than the model takes, or with values that are not finite.
    """
    start = clock()
    if anytime not in ANSWERS:
        raise UsageError(unknown("kind of answer", anytime, ANSWERS))
    if costs.p95 is None:
        raise UsageError("deadlines need a cost table with times: profile(model) with repeats above 0")
    if costs.after != model.after[:-1]:
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
    running = _Timed(TorchStages(model) if stages is None else stages, clock)
    with evaluating(model), torch.inference_mode():
        return _run(running, x, limits + start, costs.p95, costs.after, policy, model.task, anytime, start)


def _limits(limit: float | Sequence[float] | Tensor, samples: int) -> Tensor:
    """Seconds for each sample, float64 ``(samples,)`` on the processor."""
    limits = torch.as_tensor(limit, dtype=torch.float64, device="cpu")
    if limits.ndim > 1 or (limits.ndim == 1 and len(limits) != samples):
        raise UsageError(f"limits of shape {tuple(limits.shape)} for {samples} samples: give one number, or one each")
    if limits.isnan().any():
        raise UsageError("a limit is a number of seconds, not NaN")
    return limits.expand(samples)


def _run(
    stages: _Timed,
    x: Inputs,
    ends: Tensor,
    p95: Parts,
    after: tuple[int, ...],
    policy: Policy,
    task: Task,
    anytime: str,
    start: float,
) -> Trace:
    """The loop of ``run_policy`` with a clock; ``ends`` are clock readings, ``(B,)``."""
    heads, segments = (*p95.heads, p95.final), _segment_seconds(p95, after)
    answers = Answers(count(x))
    asked: list[tuple[int, Answered]] = []
    # what is neither segment nor head: the checks before the first segment stand for the first exit's rows
    aside = stages.clock() - start
    cohort = enter(stages, x, policy)
    for k in range(stages.num_exits + 1):
        begun, stages.spent = stages.clock(), 0.0
        cohort, answered = advance(stages, policy, task, k, cohort)
        if answered is not None:
            answers.write(k, answered)
            asked.append((k, answered))
        if len(cohort) == 0:
            break
        # who is not going on answers with the best so far; where there is none yet, with the head that stands here
        needed = segments[k + 1] + heads[k + 1] + aside + (0.0 if asked else heads[k] + aside)
        late = ends[cohort.rows.cpu()] - stages.clock() < needed
        if bool(late.any()):
            gone = cohort.take(late.nonzero()[:, 0].to(cohort.rows.device))
            if not asked:
                output = task.keep(stages.head(k, gone.h).float())
                answers.write(k, Answered(gone.rows, output, score_of(policy, task, k, output, None)))
            elif anytime != "last":
                answers.write(*_best(task, policy.score, anytime, asked, gone.rows, count(x)))
            cohort = cohort.take((~late).nonzero()[:, 0].to(cohort.rows.device))
            if len(cohort) == 0:
                break
        if answered is not None:
            aside = max(aside, stages.clock() - begun - stages.spent)
    return answers.trace()


def _segment_seconds(p95: Parts, after: tuple[int, ...]) -> list[float]:
    """What it may take from one exit to the next, without heads."""
    return [sum(p95.steps[a:b]) for a, b in pairwise((0, *after, len(p95.steps)))]


def _best(
    task: Task, kind: str, anytime: str, asked: list[tuple[int, Answered]], rows: Tensor, samples: int
) -> tuple[Any, Answered]:
    """The exit that answers, one number or one a row, and the best answer from all that were asked."""

    def of(part: Tensor, where: Tensor) -> Tensor:  # exits asked later have fewer rows; these were at all of them
        whole = part.new_zeros(samples, *part.shape[1:])
        whole[where] = part
        return whole[rows]

    outputs = [of(answered.output, answered.rows) for _, answered in asked]
    scores = [of(answered.score, answered.rows) for _, answered in asked]
    stacked = torch.stack(outputs)
    if anytime == "cache":
        sure = torch.stack(scores)
        place = len(asked) - 1 - sure.flip(0).max(0).indices  # the deepest of equals
        exits = torch.tensor([k for k, _ in asked], device=rows.device)[place]
        index = place[None, :, None].expand(1, -1, stacked.shape[2])
        return exits, Answered(rows, stacked.gather(0, index)[0], sure.amax(0))
    if anytime == "product":
        together = task.product(stacked)
    else:
        weights = stacked.new_full((len(asked),), 1 / len(asked))
        together = task.ensemble(stacked, weights, stacked.new_zeros(()))
    return asked[-1][0], Answered(rows, together, task.score(kind, together, None))


class _Timed:
    """Stages that add up what they take, so that what the loop takes is the rest.

    Args:
        stages: what computes.
        clock: seconds, rising.
    """

    def __init__(self, stages: Stages, clock: Callable[[], float]) -> None:
        self.stages, self.clock, self.spent = stages, clock, 0.0
        self.num_exits = stages.num_exits

    def _timed(self, call: Callable[..., Any], *args: Any) -> Any:
        begun = self.clock()
        result = call(*args)
        self.spent += self.clock() - begun
        return result

    def stem(self, x: Inputs) -> Any:
        return self._timed(self.stages.stem, x)

    def step(self, k: int, h: Any) -> Any:
        return self._timed(self.stages.step, k, h)

    def head(self, k: int, h: Any) -> Tensor:
        return self._timed(self.stages.head, k, h)

    def final(self, h: Any) -> Tensor:
        return self._timed(self.stages.final, h)
