"""Reliability: leave when the exit's validated accuracy at this score is high enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

from offramp.errors import UsageError
from offramp.types import Decision, Evidence, State

Map = tuple[tuple[float, ...], tuple[float, ...]]
"""Scores, rising, and the quality that an exit had on validation data at each; straight lines between them."""


@dataclass(frozen=True)
class Reliability:
    """Leave where the exit, at this score, was right often enough on validation data (PCEE, 2412.19325).

    One level for all exits then has a direct meaning: the expected accuracy of who leaves. Maps are fitted by
    ``offramp.calibration.fit_maps``, monotone (the paper bins; monotone regression is our choice).

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


def interpolated(x: torch.Tensor, places: tuple[float, ...], values: tuple[float, ...]) -> torch.Tensor:
    """Straight lines between ``(places, values)``, level beyond both ends, at ``x`` ``(n,)``."""
    at, of = x.new_tensor(places), x.new_tensor(values)
    if len(places) == 1:
        return of.expand(x.shape[0])
    right = (at < x[:, None]).sum(1).clamp(1, len(places) - 1)  # a binary search has no ONNX operator
    share = ((x - at[right - 1]) / (at[right] - at[right - 1])).clamp(0, 1)
    return of[right - 1] + share * (of[right] - of[right - 1])
