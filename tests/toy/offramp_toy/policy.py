from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from offramp import Decision


@dataclass(frozen=True)
class Falling:
    """Thresholds that fall from exit to exit."""

    start: float
    heads: tuple[int, ...]
    slope: float = 0.05
    score: str = "confidence"
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    numbers: ClassVar[Mapping[str, torch.dtype]] = {"start": torch.float32}
    reads_score: ClassVar[bool] = True

    def init(self, n):
        return ()

    def step(self, state, evidence):
        return Decision(evidence.score >= self.start - self.slope * self.heads.index(evidence.exit), state)

    @classmethod
    def candidates(cls, seen):
        scores = seen.columns(seen.chosen).scores
        for start in np.quantile(scores.numpy(), np.linspace(0.05, 0.95, 19)):
            yield cls(float(np.float32(start)), seen.heads, 0.02, seen.score)
