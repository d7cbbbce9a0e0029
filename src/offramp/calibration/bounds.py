"""Bounds on a mean from a sample, without assumptions on its distribution; losses lie between 0 and 1."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binom


def betting_bound(losses: np.ndarray, delta: float) -> float:
    """An upper bound on the mean that holds with probability 1 − delta (Waudby-Smith and Ramdas, 2010.09686).

    The bound of the hedged-capital martingale for the upper side, found by bisection.

    Args:
        losses: shape ``(n,)``, independent, each between 0 and 1.
        delta: how often the bound may be too low.
    """
    n = len(losses)
    steps = np.arange(1, n + 1)
    mean = (0.5 + losses.cumsum()) / (1 + steps)
    variance = (0.25 + ((losses - mean) ** 2).cumsum()) / (1 + steps)
    before = np.concatenate([[0.25], variance[:-1]])
    bets = np.minimum(np.sqrt(2 * math.log(1 / delta) / (n * before)), 1.0)
    goal = math.log(1 / delta)

    def refuted(candidate: float) -> bool:
        with np.errstate(divide="ignore"):
            capital = np.log(np.maximum(1 - bets * (losses - candidate), 0)).cumsum()
        return bool(capital.max() > goal)

    low, high = float(losses.mean()), 1.0
    if not refuted(high):
        return 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if refuted(middle) else (middle, high)
    return high


def p_value(losses: np.ndarray, risk: float) -> float:
    """A p-value for "the mean loss is above ``risk``" (Learn-then-Test, 2110.01052).

    Exact binomial where losses are 0 or 1, Hoeffding–Bentkus otherwise.

    Args:
        losses: shape ``(n,)``, independent, each between 0 and 1.
        risk: the mean that is tested, between 0 and 1.
    """
    n, mean = len(losses), float(losses.mean())
    if np.isin(losses, (0.0, 1.0)).all():
        return float(binom.cdf(round(n * mean), n, risk))
    bentkus = math.e * float(binom.cdf(math.ceil(n * mean - 1e-9), n, risk))
    return min(1.0, bentkus, math.exp(-n * _divergence(min(mean, risk), risk)))


def _divergence(a: float, b: float) -> float:
    """KL between two Bernoulli variables with means ``a`` and ``b``."""
    first = 0.0 if a == 0 else a * math.log(a / b)
    second = 0.0 if a == 1 else (1 - a) * math.log((1 - a) / (1 - b))
    return first + second
