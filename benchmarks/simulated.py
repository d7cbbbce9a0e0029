"""Is the scheduler under a virtual clock what it is live? The same arrivals, limits and images, both ways.

A service in this process answers real images that arrive at given times; then ``simulate`` is given the same arrivals
and limits, where the policy lets each image go (from the exit table), the service's own lines as they were before, and
what batches took: for each one the seconds of one of the same size, drawn from those of the service. Loads are
multiples of what the model carries with its exits in full batches. Last, a million requests are simulated against the
clock.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

import offramp
from benchmarks import publish
from offramp._progress import say, track
from offramp.artifact import load_artifact
from offramp.data import Prepared, loader
from offramp.pipeline import open_for
from offramp.policies import replay
from offramp.serving import Line, Log, Refused, Scheduler, Service, simulate
from offramp.serving.arrivals import PROCESSES

_RESERVE = 0.002
"""Seconds from an answer at its deadline to whoever waits for it, who is in time then."""
_WARM_UP = 400
"""Requests that count in neither."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("cifar10"), help="a saved model, or one in the box")
    parser.add_argument("--data", required=True)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.3, 0.7, 1.0, 1.5])
    parser.add_argument("--deadline-ms", type=float, help="eight times what one image takes to the end if not given")
    parser.add_argument("--million", type=int, default=1_000_000, help="requests of the last simulation")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    artifact = load_artifact(args.model)
    model, policy, splits = artifact.model, artifact.policy, open_for(artifact, args.data)
    assert policy is not None
    chosen = splits.test.take(np.random.default_rng(0).permutation(len(splits.test))[: args.requests])
    images = [x for x, _ in track(Prepared(chosen, model.input), "images", len(chosen))]
    table = offramp.tabulate(model, loader(chosen, model.input, 64))
    goes = replay(policy, table).exit.numpy()
    rows, limit = [], None if args.deadline_ms is None else args.deadline_ms / 1e3
    for kind in PROCESSES:
        for load in args.loads:
            with Service(model, policy, reserve=_RESERVE) as service:
                own = service.scheduler
                limit = limit or 8 * sum(line.seconds(1) for line in own.lines.values())
                carries = 1 / _seconds_each(own.lines, goes)
                due = PROCESSES[kind](load * carries, args.requests, 0)
                _live(service, images, due[:_WARM_UP], limit)
                lines = {k: line.copy() for k, line in own.lines.items()}
                with seen(own) as batches:
                    live = _live(service, images, due, limit)
            asked = Scheduler({k: line.copy() for k, line in lines.items()}, most=own.most, reserve=_RESERVE)
            thought = simulate(asked, due, np.full(len(due), limit), goes[None, : len(due)], Drawn(batches))
            row = {"arrivals": kind, "load": load, "live": _of(live, limit), "simulated": _of(thought, limit)}
            rows.append(row)
            say(f"{kind} {load}: {row['live']} {row['simulated']}")
    n = args.million
    at = PROCESSES["poisson"](1.5 * carries, n, 1)
    exits = np.random.default_rng(2).choice(goes, n)
    begun = time.perf_counter()
    simulate(Scheduler({k: line.copy() for k, line in lines.items()}), at, np.full(n, limit), exits[None])
    publish(
        "simulated",
        {
            "settings": {**vars(args), "deadline_ms": 1e3 * limit, "model": str(args.model), "data": splits.record},
            "rows": rows,
            "many": {"requests": n, "load": 1.5, "seconds": time.perf_counter() - begun},
        },
    )


class Drawn:
    """Seconds of batches, drawn from those that were seen: of the same size, or the next that was.

    Args:
        batches: exit, size and seconds of each.
    """

    def __init__(self, batches: Sequence[tuple[int, int, float]]) -> None:
        self._random = np.random.default_rng(0)
        self._seconds: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for k, n, seconds in batches:
            self._seconds[k][n].append(seconds)

    def __call__(self, k: int, n: int) -> float:
        """Seconds of a batch of ``n`` to exit ``k``."""
        sizes = self._seconds[k]
        nearest = min(sizes, key=lambda size: abs(size - n))
        return float(self._random.choice(sizes[nearest]) * n / nearest)


@contextmanager
def seen(scheduler: Scheduler) -> Iterator[list[tuple[int, int, float]]]:
    """Exit, size and seconds of the batches that a scheduler is told of meanwhile."""
    found: list[tuple[int, int, float]] = []
    computed = scheduler.computed

    def noted(k: int, batch: Sequence[Any], stays: Sequence[bool], now: float, seconds: float) -> Any:
        found.append((k, len(batch), seconds))
        return computed(k, batch, stays, now, seconds)

    scheduler.computed = noted  # type: ignore[method-assign]
    try:
        yield found
    finally:
        scheduler.computed = computed  # type: ignore[method-assign]


def _live(service: Service, images: list[torch.Tensor], due: np.ndarray, limit: float) -> Log:
    """Samples that are submitted when they are due."""
    n = len(due)
    exit_, ended = np.full(n, -1), np.full(n, np.nan)
    futures = []
    begun = time.perf_counter()
    for i, at in enumerate(due.tolist()):
        if (left := at - (time.perf_counter() - begun)) > 0:
            time.sleep(left)
        try:
            # late by what this thread is late, as a caller would be
            (future,) = service.submit(images[i][None], limit)
        except Refused:
            continue
        future.add_done_callback(lambda _, i=i: ended.__setitem__(i, time.perf_counter() - begun))
        futures.append((i, future))
    for i, future in futures:
        exit_[i] = future.result().exit
    return Log(exit_, ended - due)


def _seconds_each(lines: Mapping[int, Line], goes: np.ndarray) -> float:
    """What a sample takes on average in full batches."""
    return float(sum(line.seconds(16) / 16 * (goes >= k).mean() for k, line in lines.items()))


def _of(log: Log, limit: float) -> dict[str, Any]:
    let_in = log.exit >= 0
    seconds = log.seconds[let_in]
    return {
        "in_time": float((seconds <= limit).sum() / len(log.exit)),
        "refused": float(1 - let_in.mean()),
        "exit": float(log.exit[let_in].mean()),
        **{f"p{q}_ms": 1e3 * float(np.quantile(seconds, q / 100)) for q in (50, 95)},
    }


if __name__ == "__main__":
    main()
