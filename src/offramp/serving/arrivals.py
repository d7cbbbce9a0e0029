"""When requests arrive: the processes that loads are made of, in seconds from the start, rising."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from offramp.errors import DataError, UsageError


def poisson(rate: float, n: int, seed: int = 0) -> np.ndarray:
    """Independent of each other, so many a second on average: MLPerf's *Server*; ``(n,)``."""
    _check(rate, n)
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, n))


def fixed(rate: float, n: int, seed: int = 0) -> np.ndarray:
    """One after the other at one distance, as the frames of a camera: MLPerf's *MultiStream* with one stream."""
    _check(rate, n)
    return np.arange(n) / rate


def bursts(
    rate: float, n: int, seed: int = 0, peak: float = 5.0, share: float = 0.1, seconds: float = 1.0
) -> np.ndarray:
    """A Poisson process whose rate changes between two (a Markov-modulated one).

    Args:
        rate: a second on average.
        n: how many.
        seed: the same gives the same.
        peak: how many times as many arrive in a burst as on average.
        share: of the time that is bursts.
        seconds: that a burst lasts on average.

    Raises:
        UsageError: numbers of which none can be made.
    """
    _check(rate, n)
    if not (0 < share < 1 and 1 <= peak <= 1 / share and 0 < seconds < math.inf):
        raise UsageError(f"bursts of {peak:g} times the rate in {share:g} of the time: more than all of the requests")
    rng = np.random.default_rng(seed)
    rates = (rate * (1 - peak * share) / (1 - share), rate * peak)
    lasts = (seconds * (1 - share) / share, seconds)
    found: list[np.ndarray] = []
    count, now, state = 0, 0.0, int(rng.random() < share)
    while count < n:
        length = rng.exponential(lasts[state])
        own = np.sort(rng.random(rng.poisson(rates[state] * length))) * length + now
        found.append(own)
        count, now, state = count + len(own), now + length, 1 - state
    return np.concatenate(found)[:n]


def replay(file: Path) -> np.ndarray:
    """The times in the first column of a CSV file, from 0 on. Raises ``DataError`` where they are none, or fall."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of a file without a line
            times = np.loadtxt(file, delimiter=",", usecols=0, ndmin=1)
    except (ValueError, OSError) as error:
        raise DataError(f"{file} holds no arrival times: seconds in its first column, one request a line") from error
    if not len(times) or not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise DataError(f"the arrival times in {file} are finite seconds that do not fall")
    return times - times[0]


PROCESSES: Mapping[str, Callable[[float, int, int], np.ndarray]] = {
    "poisson": poisson,
    "fixed": fixed,
    "bursts": bursts,
}
"""By name, from requests a second, their number and a seed."""


def _check(rate: float, n: int) -> None:
    if not (0 < rate < math.inf and n >= 1):
        raise UsageError(f"{n} requests at {rate:g} a second; that is one or more, at a rate above 0")
