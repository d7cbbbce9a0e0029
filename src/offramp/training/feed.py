"""Where the batches of a stage come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from offramp._batches import loaded
from offramp.data import Prepared, Samples, Stream
from offramp.data.stream import TrainingStream
from offramp.errors import UsageError


@dataclass(frozen=True)
class Feed:
    """The batches of a stage.

    Args:
        batches: to be handed to accelerate.
        per_epoch: steps of an epoch.
        epochs: how many.
        rounds: how often ``batches`` is gone through.
    """

    batches: DataLoader[Any]
    per_epoch: int
    epochs: int
    rounds: int

    @property
    def total(self) -> int:
        """Steps of the stage."""
        return self.per_epoch * self.epochs

    def over(self, prepared: Any) -> Iterator[Any]:
        """All batches that are left, as accelerate gives them."""
        for _ in range(self.rounds):
            for inputs, targets in prepared:
                yield loaded(inputs), targets


def feed(
    data: Samples | Stream,
    prepare: Callable[[Samples], Prepared],
    batch_size: int,
    epochs: int,
    seed: int,
    start: int,
    workers: int,
    pool: Callable[[int], np.ndarray] | None = None,
) -> Feed:
    """The batches from step ``start`` on.

    Args:
        data: samples, whose order follows from the seed; or a stream, which has its own.
        prepare: from samples to a data set for training.
        batch_size: of samples.
        epochs: how many.
        seed: of the order of samples.
        start: the step to start at.
        workers: processes that read samples.
        pool: the samples that an epoch may draw from; all if not given.

    Raises:
        UsageError: a stream that is not at its beginning.
    """
    if isinstance(data, Stream):
        if start:
            raise UsageError("the order of a stream cannot be repeated, so its run cannot go on: choose another folder")
        return Feed(data.batches, len(data), epochs, epochs)
    order = TrainingStream(len(data), batch_size, epochs, seed, start, pool)
    batches = DataLoader(prepare(data), batch_size=batch_size, sampler=order, num_workers=workers)
    return Feed(batches, order.per_epoch, epochs, 1)
