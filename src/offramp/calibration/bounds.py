"""Tests of a mean from a sample, without assumptions on its distribution; losses lie between 0 and 1."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binom


def refuted(losses: np.ndarray, mean: float, delta: float) -> bool:
    """Whether losses in a random order refute that their mean is ``mean`` or more (2010.09686).

    Waudby-Smith and Ramdas bet on every loss being below ``mean``. If they are not, a capital of 1 ever becomes 1 /
    delta with a probability of at most delta. Each bet is set before its loss is seen, by the variance of those before;
    no more than all the capital is staked. Their upper confidence bound is the least mean that is refuted.

    Capital is taken at its highest, over all first so many losses, which is why their order has to be a random one. A
    mean that is not above that of the losses themselves is never refuted; that is our choice.

    Args:
        losses: shape ``(n,)``, each between 0 and 1, exchangeable.
        mean: the mean that is tested, between 0 and 1.
        delta: how often a true mean may be refuted.
    """
    if not losses.mean() < mean:
        return False
    n, goal = len(losses), -math.log(delta)
    steps = np.arange(1, n + 1)
    means = (0.5 + losses.cumsum()) / (1 + steps)
    variance = (0.25 + ((losses - means) ** 2).cumsum()) / (1 + steps)
    before = np.concatenate([[0.25], variance[:-1]])
    bets = np.minimum(np.sqrt(2 * goal / (n * before)), 1.0)
    with np.errstate(divide="ignore"):
        capital = np.log(1 - bets * (losses - mean)).cumsum()
    return bool(capital.max() > goal)


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
