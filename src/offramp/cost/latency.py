"""Wall-clock time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch


def synchronise(device: torch.device | str) -> None:
    """Wait until the device has done what it was told, so that a clock reading means something."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def p95(values: Iterable[float]) -> float:
    """The 95th percentile."""
    return float(np.quantile(list(values), 0.95))


def in_turn(
    calls: Mapping[str, Sequence[Callable[[], Any]]],
    rounds: int,
    device: torch.device | str = "cpu",
    tick: Callable[[int], Any] = lambda n: None,
    clock: Callable[[], float] = time.perf_counter,
    turn: int = 1,
    warm: int = 0,
) -> dict[str, list[list[float]]]:
    """Time several ways of doing the same pieces of work in turn, so that drift hits all alike.

    Args:
        calls: for each way the same number of pieces of work.
        rounds: how often everything is done; one more round goes before and is not counted.
        device: what to wait for after each piece.
        tick: called after each round with the number of rounds done, the uncounted one included.
        clock: seconds, rising; replaced in tests.
        turn: how many pieces a way does one behind the other, before it is another's turn.
        warm: how often a turn's first piece is done before it, uncounted. Whoever had the turn before has left his own
            weights in the caches; a small piece takes up to twice as long to fetch others, and the next one or two are
            longer too.

    Returns:
        For each way, for each round, the seconds of each piece.
    """
    seconds: dict[str, list[list[float]]] = {name: [] for name in calls}
    pieces = len(next(iter(calls.values())))
    for number in range(rounds + 1):
        spent: dict[str, list[float]] = {name: [] for name in calls}
        for first in range(0, pieces, turn):
            for name, work in calls.items():
                now = work[first : first + turn]
                for _ in range(warm):
                    now[0]()
                for piece in now:
                    synchronise(device)
                    start = clock()
                    piece()
                    synchronise(device)
                    spent[name].append(clock() - start)
        if number > 0:
            for name in calls:
                seconds[name].append(spent[name])
        tick(number + 1)
    return seconds
