"""A source of samples whose risk is known, so that a promise about it can be seen to be broken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from offramp.types import CostTable, ExitTable, PartCosts

COSTS = CostTable((1, 2), PartCosts(1.0, (10.0, 10.0, 10.0), (1.0, 1.0), 1.0))


@dataclass(frozen=True)
class World:
    """Two early exits and a final one that is always right; ten classes, of which the first are easy.

    The largest probability of each early exit is uniform between ½ and 1, whatever the class. The first exit is wrong
    on a share of the samples that depends on the class, the second on the same share of all.

    Args:
        first: by class, the share on which the first exit is wrong.
        second: the share on which the second exit is wrong.
        loss: what the risk is a share of.
    """

    first: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.55, 0.55, 0.55, 0.55, 0.55)
    second: float = 0.1
    loss: str = "disagreement"

    def table(self, rng: np.random.Generator, samples: int, by_class: bool) -> ExitTable:
        """An exit table of two outputs; the class is where a sample comes from and stands in no column.

        Args:
            rng: where the samples come from.
            samples: how many.
            by_class: the rows come class by class, as image folders are read, in place of as they were drawn.
        """
        kinds = rng.integers(len(self.first), size=samples)
        if by_class:
            kinds.sort()
        sure = rng.uniform(0.5, 1, (2, samples))
        wrong = rng.random((2, samples)) < np.stack([np.array(self.first)[kinds], np.full(samples, self.second)])
        logits = np.zeros((3, samples, 2), np.float32)
        signed = np.log(sure / (1 - sure)) * np.where(wrong, -1, 1)
        logits[:2, :, 0], logits[2, :, 0] = signed, 60.0
        targets = torch.zeros(samples, dtype=torch.long)
        return ExitTable(torch.from_numpy(logits), targets, (1, 2, 3), ("linear", "linear", "final"), "classification")

    def risk(self, threshold: float | None) -> float:
        """The true risk when both exits share a threshold of at least ½; None switches them off."""
        if threshold is None:
            return 0.0
        return self._lost(threshold, float(np.mean(self.first))) + (2 * threshold - 1) * self._lost(
            threshold, self.second
        )

    def _lost(self, threshold: float, wrong: float) -> float:
        """What an exit loses on those that leave there, out of all that reach it."""
        if self.loss != "brier":
            return 2 * (1 - threshold) * wrong
        # half the Brier score of a largest probability s is s² where it is wrong and (1 − s)² where it is right
        return 2 / 3 * (wrong * (1 - threshold**3) + (1 - wrong) * (1 - threshold) ** 3)
