"""Reliability: leave when the exit's validated accuracy at this score is high enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch

from offramp.errors import UsageError
from offramp.search import Columns, Seen
from offramp.types import Decision, Evidence, State

_POINTS = 64

Map = tuple[tuple[float, ...], tuple[float, ...]]
"""Scores, rising, and the quality that an exit had on validation data at each; straight lines between them."""


@dataclass(frozen=True)
class Reliability:
    """Leave where the exit, at this score, was right often enough on validation data (PCEE, 2412.19325).

    One level for all exits then has a direct meaning: the expected accuracy of who leaves. Maps are fitted by
    ``fit_maps``, monotone (the paper bins; monotone regression is our choice).

    Args:
        level: the smallest quality at which a sample leaves, between 0 and 1.
        heads: the indices of the exits that are asked; the heads of others never run.
        maps: for each exit that is asked, from score to quality.
        score: the kind of score that the maps read.
        provenance: what it was calibrated for and on; changes no decision.

    Raises:
        UsageError: a level outside [0, 1], another number of maps than exits, scores that do not rise.
    """

    level: float
    heads: tuple[int, ...]
    maps: tuple[Map, ...]
    score: str = "confidence"
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    numbers: ClassVar[Mapping[str, torch.dtype]] = {"level": torch.float32}
    reads_score: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 1:
            raise UsageError(f"the level is {self.level}; it lies between 0 and 1")
        if len(self.maps) != len(self.heads):
            raise UsageError(f"{len(self.heads)} exits have {len(self.heads)} maps, not {len(self.maps)}")
        for scores, qualities in self.maps:
            if len(scores) != len(qualities) or not scores or any(b <= a for a, b in pairwise(scores)):
                raise UsageError("a map has as many qualities as scores, and its scores rise")

    def init(self, n: int) -> State:
        """Nothing is remembered."""
        return ()

    def step(self, state: State, evidence: Evidence) -> Decision:
        """Leave where the map of the score reaches the level."""
        scores, qualities = self.maps[self.heads.index(evidence.exit)]
        return Decision(interpolated(evidence.score, scores, qualities) >= self.level, state)

    @classmethod
    def candidates(cls, seen: Seen) -> Iterable[Reliability]:
        """Maps that are learned, at levels from 0.3 to 1."""
        maps = fit_maps(seen.columns(seen.fitted))
        for level in (*np.linspace(0.3, 0.9, 25), *np.linspace(0.9, 1.0, 41)):
            yield cls(float(level), seen.heads, maps, seen.score)


def interpolated(x: torch.Tensor, places: tuple[float, ...], values: tuple[float, ...]) -> torch.Tensor:
    """Straight lines between ``(places, values)``, level beyond both ends, at ``x`` ``(n,)``."""
    at, of = x.new_tensor(places), x.new_tensor(values)
    if len(places) == 1:
        return of.expand(x.shape[0])
    right = (at < x[:, None]).sum(1).clamp(1, len(places) - 1)  # a binary search has no ONNX operator
    share = ((x - at[right - 1]) / (at[right] - at[right - 1])).clamp(0, 1)
    return of[right - 1] + share * (of[right] - of[right - 1])


def fit_maps(columns: Columns) -> tuple[Map, ...]:
    """For each early exit a rising map from its score to the quality it had there (PCEE, 2412.19325).

    Monotone regression, thinned to 64 points.

    Args:
        columns: what calibration reads; quality must lie between 0 and 1.

    Raises:
        UsageError: quality that is no share.
    """
    from sklearn.isotonic import IsotonicRegression  # slow to import, and fitting alone needs it

    if float(columns.quality.min()) < 0 or float(columns.quality.max()) > 1:
        raise UsageError("maps from score to accuracy need answers that are right or wrong")
    maps = []
    for scores, quality in zip(columns.scores.numpy(), columns.quality.numpy(), strict=False):
        fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, quality)
        places = np.unique(np.quantile(fitted.X_thresholds_, np.linspace(0, 1, _POINTS)))
        maps.append((tuple(places.tolist()), tuple(fitted.predict(places).tolist())))
    return tuple(maps)
