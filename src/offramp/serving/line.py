"""What a batch takes: seconds over its size, as measured at the start and kept up to date."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from offramp.errors import UsageError

_WEIGHT = 1 / 16
"""Of the newest batch in the pace and the spread that are remembered."""
_SLOWER = 1 / 32
"""Of the newest batch in the line that is remembered."""
_CAREFUL = 4.0
"""Mean deviations above the mean that a careful estimate lies, as TCP waits for an answer (RFC 6298)."""
_ANCHORS = (1, 8)
"""Sizes at which the line as measured counts as one batch each, at today's pace: batches of one size alone say nothing
of others."""


class Delay:
    """Seconds that something takes whatever a batch's size: their mean, and how far from it they lie (RFC 6298)."""

    __slots__ = ("deviation", "mean")

    def __init__(self) -> None:
        self.mean, self.deviation = 0.0, 0.0

    @property
    def doubt(self) -> float:
        """What it hardly ever takes longer than, beyond the mean."""
        return _CAREFUL * self.deviation

    def saw(self, seconds: float) -> None:
        """So long it took."""
        self.deviation += _WEIGHT * (abs(seconds - self.mean) - self.deviation)
        self.mean += _WEIGHT * (seconds - self.mean)

    def believe_less(self) -> None:
        """Somebody was turned away by what is remembered; see ``Line.believe_less``."""
        self.mean -= _WEIGHT * self.mean
        self.deviation -= _WEIGHT * self.deviation


class Line:
    """Seconds of a batch of ``n`` samples: ``slope · n + base``, measured once, and fitted to what batches take since.

    The fit is least squares of relative errors, in which old batches count less and less, and the measured line at the
    current pace counts as two batches. BentoML fits a and b of a whole model to the last 50 batches; with batches of
    nearly one size that says nothing of either (the two are our choice).

    Args:
        a: seconds a sample, above 0.
        b: seconds a batch, 0 or more.

    Raises:
        UsageError: other values.
    """

    __slots__ = ("_sums", "a", "b", "base", "pace", "slope", "spread")

    def __init__(self, a: float, b: float = 0.0) -> None:
        if not (0 < a < float("inf") and 0 <= b < float("inf")):
            raise UsageError(f"a batch takes {a} s a sample and {b} s more; that is above 0, and 0 or more")
        self.a, self.b = a, b
        self.slope, self.base = a, b
        self.pace, self.spread = 1.0, 0.0
        self._sums: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)
        """Of the weights, and with them of n, n², t and n · t."""

    @classmethod
    def through(cls, points: Iterable[tuple[int, float]]) -> Line:
        """The line of least squares through sizes and seconds, neither part of it below 0."""
        sizes, seconds = np.array(list(points), dtype=np.float64).T
        a, b = np.polyfit(sizes, seconds, 1) if len({*sizes}) > 1 else (0.0, -1.0)
        if a <= 0 or b < 0:  # all of it by sample
            a, b = float(sizes @ seconds / (sizes @ sizes)), 0.0
        return cls(float(a), float(b))

    def copy(self) -> Line:
        """The same, as it is now."""
        found = Line(self.a, self.b)
        for name in ("slope", "base", "pace", "spread", "_sums"):
            setattr(found, name, getattr(self, name))
        return found

    def seconds(self, n: int) -> float:
        """What a batch of ``n`` takes on average."""
        return self.slope * n + self.base

    def careful(self, n: int) -> float:
        """What it hardly ever takes longer than."""
        return self.seconds(n) + self.doubtful(n)

    def doubtful(self, n: int) -> float:
        """How much longer than on average that is."""
        return self.seconds(n) * _CAREFUL * self.spread

    def at_first(self, n: int) -> float:
        """What it took when it was measured."""
        return self.a * n + self.b

    def believe_less(self) -> None:
        """Somebody was turned away by what is remembered: it is believed a little less, because who is not computed
        shows nothing new. Without this one long pause would keep everybody out for ever."""
        self.spread -= _WEIGHT * self.spread
        self.pace += _WEIGHT * (1 - self.pace)
        self._sums = tuple((1 - _WEIGHT) * each for each in self._sums)
        self._fit()

    def saw(self, n: int, seconds: float) -> None:
        """A batch of ``n`` has taken so many seconds."""
        expected, first = self.seconds(n), self.at_first(n)
        self.spread += _WEIGHT * (abs(seconds - expected) / expected - self.spread)
        self.pace += _WEIGHT * (seconds / first - self.pace)
        new = (1.0, n, n * n, seconds, n * seconds)
        self._sums = tuple((1 - _SLOWER) * old + each / first**2 for old, each in zip(self._sums, new, strict=True))
        self._fit()

    def _fit(self) -> None:
        w, n, nn, t, nt = self._sums
        for size in _ANCHORS:
            at = self.at_first(size)
            w, n, nn = w + at**-2, n + size * at**-2, nn + size**2 * at**-2
            t, nt = t + self.pace / at, nt + size * self.pace / at
        slope = (w * nt - n * t) / (w * nn - n * n)
        base = (t - slope * n) / w
        if base < 0:
            slope, base = nt / nn, 0.0
        if slope <= 0:
            slope, base = self.pace * self.a, self.pace * self.b
        self.slope, self.base = slope, base
