"""The scheduler under a clock of its own: who would have been answered when, and at which exit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from offramp.errors import UsageError
from offramp.serving.scheduler import Job, Scheduler

REFUSED = -1


@dataclass(frozen=True, eq=False)
class Log:
    """What became of each request, ``(requests,)`` each.

    Args:
        exit: that answered; −1 where it was refused.
        seconds: from its arrival to its answer; not a number where it was refused.
    """

    exit: np.ndarray
    seconds: np.ndarray


def simulate(
    scheduler: Scheduler,
    arrivals: np.ndarray,
    limits: np.ndarray,
    exits: np.ndarray,
    takes: Callable[[int, int], float] | None = None,
) -> Log:
    """Requests that arrive at given times, each with a limit, through a scheduler; nothing is computed.

    Args:
        scheduler: a new one.
        arrivals: seconds, rising, ``(requests,)``.
        limits: seconds from arrival to deadline, ``(requests,)``.
        exits: where the policy lets each request go, by pressure: ``(levels, requests)``, the first where there is
            least, the last from a pressure of 1.
        takes: seconds of a batch, from its segment and its size; what the scheduler expects if not given.

    Raises:
        UsageError: arrays that do not fit together, or arrivals that do not rise.
    """
    requests, levels = len(arrivals), len(exits)
    if limits.shape != (requests,) or exits.shape != (levels, requests) or not levels:
        raise UsageError(f"{requests} arrivals, limits {limits.shape} and exits {exits.shape} do not fit together")
    if (np.diff(arrivals) < 0).any():
        raise UsageError("arrivals rise")
    takes = takes or (lambda k, n: scheduler.lines[k].seconds(n))
    answered = np.full(requests, REFUSED)
    ended = np.full(requests, np.nan)
    times, deadlines, goes = arrivals.tolist(), (arrivals + limits).tolist(), exits.tolist()
    coming, now = 0, 0.0

    def let_in(until: float) -> None:
        nonlocal coming
        while coming < requests and times[coming] <= until:
            scheduler.admit(Job(deadlines[coming], coming), times[coming])
            coming += 1

    def close(jobs: Sequence[Job], at: float) -> None:
        for job in jobs:
            answered[job.payload] = job.answer
            # a clock would have rung at the deadline, and a first answer may be later than that
            ended[job.payload] = max(job.since, min(at, job.deadline - scheduler.ahead))

    while True:
        let_in(now)
        turn = scheduler.next(now)
        if turn is None:
            if coming == requests:
                break
            now = times[coming]
            continue
        k, batch, out = turn
        close(out, now)
        if not batch:
            continue
        goes_at = goes[min(int(scheduler.pressure(now) * levels), levels - 1)]
        seconds = takes(k, len(batch))
        now += seconds
        let_in(now)
        close(scheduler.expire(now), now)
        stays = [goes_at[job.payload] > k for job in batch]
        close(scheduler.computed(k, batch, stays, now, seconds), now)
    return Log(answered, ended - arrivals)
