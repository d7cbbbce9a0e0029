"""How sure a number is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import bootstrap


def bootstrap_interval(
    values: np.ndarray, of_mean: Callable[[Any], Any] = lambda mean: mean, seed: int = 0
) -> list[float]:
    """The 95 % percentile bootstrap interval of a function of a mean over samples.

    Args:
        values: one for each sample, shape ``(samples,)``.
        of_mean: what is wanted of the mean, the mean itself if not given; monotone.
        seed: of the 2,000 resamples.

    Returns:
        its lower and upper end.
    """
    if len(values) < 2 or np.ptp(values) == 0:
        point = float(of_mean(np.mean(values)))
        return [point, point]
    result = bootstrap(
        (np.asarray(values, dtype=np.float64),),
        lambda x, axis: of_mean(np.mean(x, axis=axis)),
        n_resamples=2000,
        batch=100,
        method="percentile",
        rng=seed,
    )
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]
