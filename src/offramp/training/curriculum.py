"""A curriculum: easy samples first."""

from __future__ import annotations

import math

import numpy as np

from offramp._batches import to
from offramp.data import Samples, loader
from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.training.teacher import Teacher


class Curriculum:
    """Samples are let in by difficulty, the easiest first (2104.10461).

    A run begins with the ``start`` easiest share of the samples and lets in the rest evenly over the first ``over`` of
    its epochs. Each epoch keeps its number of steps; while few samples are in, each is seen more often. Difficulty is
    the loss of a teacher, as in the paper; the linear pace is our choice.

    Args:
        start: the share of samples to begin with.
        over: the share of the epochs after which all samples are in.
        hardest_first: turn the order around, as a control.

    Raises:
        UsageError: a share that is not above 0 and at most 1.
    """

    def __init__(self, start: float = 0.3, over: float = 0.5, hardest_first: bool = False) -> None:
        if not (0 < start <= 1 and 0 < over <= 1):
            raise UsageError(f"a curriculum's start and over are shares above 0, not {start} and {over}")
        self.start, self.over, self.hardest_first = start, over, hardest_first

    def pool(self, difficulty: np.ndarray, epoch: int, epochs: int) -> np.ndarray:
        """The indices that are in at an epoch (from 0), for the difficulty of each sample ``(samples,)``."""
        order = np.argsort(-difficulty if self.hardest_first else difficulty, kind="stable")
        share = min(1.0, self.start + (1 - self.start) * epoch / (self.over * epochs))
        return order[: max(1, math.ceil(share * len(order)))]


def difficulties(teacher: Teacher, model: EarlyExitModel, samples: Samples, batch_size: int) -> np.ndarray:
    """The teacher's loss on each sample, ``(samples,)``, as the student would see it in evaluation."""
    device = next(model.parameters()).device
    losses = []
    for x, targets in loader(samples, model.input, batch_size):
        answers = teacher(to(x, device), model.input).cpu()
        losses += model.task.losses(answers, targets).tolist()
    return np.array(losses)
