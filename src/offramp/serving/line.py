"""What a batch takes: seconds over its size, as measured at the start and kept up to date."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from offramp.errors import UsageError

_WEIGHT = 1 / 16
"""Of the newest batch in what is remembered."""
_CAREFUL = 4.0
"""Mean deviations above the mean that a careful estimate lies, as TCP waits for an answer (RFC 6298)."""


class Line:
    """Seconds of a batch of ``n`` samples: ``(a · n + b) · pace``.

    The shape is measured once; the pace, 1 at first, follows what batches take since. BentoML fits a and b of a whole
    model to the last 50 batches; with batches of nearly one size that says nothing of either (our choice).

    Args:
        a: seconds a sample, above 0.
        b: seconds a batch, 0 or more.

    Raises:
        UsageError: other values.
    """

    __slots__ = ("a", "b", "pace", "spread")

    def __init__(self, a: float, b: float = 0.0) -> None:
        if not (0 < a < float("inf") and 0 <= b < float("inf")):
            raise UsageError(f"a batch takes {a} s a sample and {b} s more; that is above 0, and 0 or more")
        self.a, self.b = a, b
        self.pace, self.spread = 1.0, 0.0

    @classmethod
    def through(cls, points: Iterable[tuple[int, float]]) -> Line:
        """The line of least squares through sizes and seconds, neither part of it below 0."""
        sizes, seconds = np.array(list(points), dtype=np.float64).T
        a, b = np.polyfit(sizes, seconds, 1) if len({*sizes}) > 1 else (0.0, -1.0)
        if a <= 0 or b < 0:  # all of it by sample
            a, b = float(sizes @ seconds / (sizes @ sizes)), 0.0
        return cls(float(a), float(b))

    def seconds(self, n: int) -> float:
        """What a batch of ``n`` takes on average."""
        return self.at_first(n) * self.pace

    def careful(self, n: int) -> float:
        """What it hardly ever takes longer than."""
        return self.at_first(n) * (self.pace + _CAREFUL * self.spread)

    def at_first(self, n: int) -> float:
        """What it took when it was measured."""
        return self.a * n + self.b

    def doubt(self) -> None:
        """Somebody was turned away by what is remembered: it is believed a little less, because who is not computed
        shows nothing new. Without this one long pause would keep everybody out for ever."""
        self.spread -= _WEIGHT * self.spread
        self.pace += _WEIGHT * (1 - self.pace)

    def saw(self, n: int, seconds: float) -> None:
        """A batch of ``n`` has taken so many seconds."""
        found = seconds / self.at_first(n)
        self.spread += _WEIGHT * (abs(found - self.pace) - self.spread)
        self.pace += _WEIGHT * (found - self.pace)
