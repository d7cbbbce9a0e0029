"""Deadlines: compute until the clock says stop, and answer with the best there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from offramp.engine.loop import Stages
from offramp.engine.run import prepared
from offramp.engine.torch import TorchStages
from offramp.errors import UsageError
from offramp.model import EarlyExitModel, evaluating
from offramp.policies import Policy, score_of
from offramp.registry import unknown
from offramp.tasks import Task
from offramp.types import CostTable, Evidence, Trace

ANSWERS = ("last", "cache", "product", "geometric")


def run_until(
    model: EarlyExitModel,
    x: Tensor,
    limit: float | Sequence[float],
    costs: CostTable,
    policy: Policy | None = None,
    anytime: str = "cache",
    stages: Stages | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Trace:
    """Images through the model under a wall-clock limit (2106.15183).

    A segment is started only for the samples whose limit leaves room for its measured 95th percentile, head included,
    and for what this loop itself takes at an exit (its checks, scores and rows), at most so far in the same call; the
    others answer with the best so far. The first segment always runs: there is no answer without it. A segment that
    has begun is not broken off, so an answer is late by what that segment takes beyond its 95th percentile.

    Args:
        model: the model.
        x: images, ``(B, C, H, W)``.
        limit: seconds from the call to the answer, one number or one a sample.
        costs: a cost table with times (``profile(model, batch_size)``), for a batch of about this size.
        policy: lets samples leave before their limit; where none is given nobody leaves early and all heads run.
        anytime: the answer: ``last``, that of the deepest exit that ran; ``cache``, the surest so far; ``product``, a
            product of experts (2306.02652); ``geometric``, the geometric mean of probabilities (2106.05409).
        stages: what computes in place of the model's own modules.
        clock: seconds, rising; replaced in tests.

    Raises:
        UsageError: an unknown kind of answer, a cost table without times, limits that are not one a sample.
        DataError: images of another shape than the model takes, or with values that are not finite.
    """
    start = clock()
    if anytime not in ANSWERS:
        raise UsageError(unknown("kind of answer", anytime, ANSWERS))
    if costs.p95 is None:
        raise UsageError("deadlines need a cost table with times: profile(model) with repeats above 0")
    x = prepared(model, x)
    limits = torch.as_tensor(limit, dtype=torch.float64).expand(len(x)) if len(x) else torch.empty(0)
    running = TorchStages(model) if stages is None else stages
    heads = costs.parts("p95").heads
    seconds = _segment_seconds(costs)
    if len(x) == 0:
        return Trace(x.new_empty(0, model.num_outputs), torch.empty(0, dtype=torch.long), x.new_empty(0))
    with evaluating(model), torch.inference_mode():
        return _run(running, x, limits, seconds, heads, policy, model.task, anytime, lambda: clock() - start)


def _segment_seconds(costs: CostTable) -> list[float]:
    """What it may take to get from one exit's answer to the next one's."""
    parts = costs.parts("p95")
    ends = [0, *costs.after, len(parts.steps)]
    seconds = [sum(parts.steps[a:b]) for a, b in pairwise(ends)]
    return [s + h for s, h in zip(seconds, (*parts.heads, parts.final), strict=True)]


def _run(
    stages: Stages,
    x: Tensor,
    limits: Tensor,
    seconds: list[float],
    heads: tuple[float, ...],
    policy: Policy | None,
    task: Task,
    anytime: str,
    elapsed: Callable[[], float],
) -> Trace:
    wanted = range(stages.num_exits) if policy is None else policy.heads
    rows = torch.arange(len(x), device=x.device)
    exits, scores = torch.zeros_like(rows), torch.zeros(len(x), device=x.device)
    state = () if policy is None else tuple(s.to(x.device) for s in policy.init(len(x)))
    kind = task.scores[0] if policy is None else policy.score
    outputs = previous = None
    history: list[Tensor] = []
    # what is neither segment nor head: the checks before the first segment stand for the first exit's rows
    aside = elapsed()
    h = stages.stem(x)
    for k in range(stages.num_exits + 1):
        final, answered = k == stages.num_exits, None
        h = stages.step(k, h)
        asked = final or k in wanted
        # who cannot get further must answer here, with whatever head stands here
        here = heads[k] + aside if not final and (asked or outputs is None) else 0.0
        needed = 0.0 if final else here + seconds[k + 1] + aside
        last = final | (limits[rows.cpu()] - elapsed() < needed)
        if not (asked or (outputs is None and bool(last.any()))):
            leave = last
        else:
            output = stages.final(h) if final else stages.head(k, h)
            answered = elapsed()
            score = (
                task.score(kind, output, previous) if policy is None else score_of(policy, task, k, output, previous)
            )
            if outputs is None:
                outputs = output.new_empty(len(x), output.shape[1])
            history.append(output)
            answer, sure = _answer(task, kind, anytime, history, scores[rows], outputs[rows], score)
            outputs[rows], scores[rows], exits[rows] = answer, sure, k
            leave = last.to(x.device)
            if policy is not None and not final and k in policy.heads:
                decision = policy.step(state, Evidence(k, output, score, task, previous))
                leave, state = leave | decision.leave, decision.state
            previous = output
        keep = (~leave.to(x.device)).nonzero()[:, 0]
        if len(keep) == 0:
            break
        if len(keep) < len(rows):
            rows, h = rows[keep], stages.take(h, keep)
            previous = None if previous is None else previous[keep]
            history, state = [past[keep] for past in history], tuple(s[keep] for s in state)
        if answered is not None:
            aside = max(aside, elapsed() - answered)
    assert outputs is not None
    return Trace(outputs, exits, scores)


def _answer(
    task: Task, kind: str, anytime: str, history: list[Tensor], before: Tensor, kept: Tensor, score: Tensor
) -> tuple[Tensor, Tensor]:
    """The best answer so far and its score."""
    output = history[-1]
    if anytime == "last" or len(history) == 1:
        return output, score
    if anytime == "cache":
        surer = (score >= before)[:, None]
        return torch.where(surer, output, kept), torch.maximum(score, before)
    stacked = torch.stack(history)
    if anytime == "product":
        together = task.product(stacked)
    else:
        weights = output.new_full((len(history),), 1 / len(history))
        together = task.ensemble(stacked, weights, output.new_zeros(()))
    return together, task.score(kind, together, None)
