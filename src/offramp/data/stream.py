"""The order in which training sees its samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler


class TrainingStream(Sampler[tuple[int, int]]):
    """All indices of a whole training run in one stream, shuffled anew for each epoch, from any step on.

    The order is a function of the seed and the epoch, so a run that resumes at step ``start`` sees what it would have
    seen. Each epoch drops the samples that fill no batch.

    Args:
        size: how many samples there are.
        batch_size: of the global batch, all processes together.
        epochs: how many.
        seed: of the order.
        start: the step to start at.
        pool: the indices that an epoch may draw from, each about equally often; all if not given.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        epochs: int,
        seed: int,
        start: int = 0,
        pool: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        self.size, self.batch_size, self.epochs, self.seed, self.start = size, batch_size, epochs, seed, start
        self.pool = pool
        self.per_epoch = size // batch_size

    def __len__(self) -> int:
        return (self.per_epoch * self.epochs - self.start) * self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for epoch in range(self.start // self.per_epoch, self.epochs):
            order = self._order(epoch)
            first = self.start % self.per_epoch if epoch == self.start // self.per_epoch else 0
            for i in order[first * self.batch_size : self.per_epoch * self.batch_size]:
                yield epoch, int(i)

    def _order(self, epoch: int) -> np.ndarray:
        generator = np.random.default_rng((self.seed, epoch))
        if self.pool is None:
            return generator.permutation(self.size)
        allowed = self.pool(epoch)
        rounds = -(-self.size // len(allowed))
        return np.concatenate([generator.permutation(allowed) for _ in range(rounds)])[: self.size]
