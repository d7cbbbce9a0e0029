"""How often a monitor is wrong, and how long it takes to be right."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from offramp._progress import track
from offramp.calibration import Monitor

Draw = Callable[[np.random.Generator, int, float], np.ndarray]
_LIMIT = 100_000


def zeros_and_ones(rng: np.random.Generator, n: int, mean: float) -> np.ndarray:
    """Losses of 0 and 1."""
    return (rng.random(n) < mean).astype(float)


def fractions(rng: np.random.Generator, n: int, mean: float) -> np.ndarray:
    """Losses between 0 and 1, most of them small, as Brier losses are."""
    return rng.beta(2 * mean, 2 * (1 - mean), n)


def in_blocks(rng: np.random.Generator, n: int, mean: float) -> np.ndarray:
    """Losses that come in blocks of 50 of one kind: all equal to the mean, or 0 and 1, or 0 and twice the mean."""
    kinds = [np.full(n, mean), zeros_and_ones(rng, n, mean), 2 * mean * (rng.random(n) < 0.5)]
    return np.choose(np.arange(n) // 50 % 3, kinds)


STREAMS: dict[str, Draw] = {"0 and 1": zeros_and_ones, "between": fractions, "in blocks": in_blocks}


def false_alarms(kind: str, risk: float, streams: int, length: int, level: float, seed: int) -> dict[str, Any]:
    """Streams whose mean loss is exactly the risk: the share in which there is an alarm."""
    alarms = 0
    for stream in track(range(streams), f"alarms, {kind}, {risk:g}", streams):
        losses = STREAMS[kind](np.random.default_rng((seed, stream)), length, risk)
        alarms += Monitor(risk, level).update(losses).alarm
    limit = level + 2 * math.sqrt(level * (1 - level) / streams)
    return {
        "about": "false alarms",
        "losses": kind,
        "risk": risk,
        "level": level,
        "streams": streams,
        "answers": length,
        "false_alarms": alarms / streams,
        "limit": limit,
        "promise_kept": alarms / streams <= limit,
    }


def delay(risk: float, factor: float, quiet: int, streams: int, level: float, seed: int) -> dict[str, Any]:
    """The number of answers from the moment at which the risk grows until the alarm; before, it is the promised one.

    An alarm before that moment is a false one, and its stream does not count.
    """
    found, false = [], 0
    for stream in track(range(streams), f"delay, ×{factor:g} after {quiet}", streams):
        rng = np.random.default_rng((seed, stream))
        watch = Monitor(risk, level).update(zeros_and_ones(rng, quiet, risk))
        if watch.alarm:
            false += 1
            continue
        while not watch.alarm and watch.samples < quiet + _LIMIT:
            watch = watch.update(zeros_and_ones(rng, 1000, factor * risk))
        found.append(math.inf if watch.at is None else watch.at - quiet)
    low, median, high = np.quantile(found, (0.1, 0.5, 0.9), method="inverted_cdf")
    return {
        "about": "delay",
        "risk": risk,
        "becomes": factor * risk,
        "after_answers": quiet,
        "level": level,
        "streams": streams,
        "false_alarms": false / streams,
        "median_delay": _whole(median),
        "delay_10_to_90": [_whole(low), _whole(high)],
        "never": sum(math.isinf(d) for d in found) / len(found),
    }


def _whole(delay: float) -> int | None:
    """None for an alarm that did not come."""
    return None if math.isinf(delay) else int(delay)
