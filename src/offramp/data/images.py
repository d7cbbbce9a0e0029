"""From samples to tensors, by timm's own transforms."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import timm.data
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from offramp.data.decode import in_mode
from offramp.data.samples import Samples


class ImageDataset(Dataset[tuple[Tensor, Any]]):
    """Images as normalised tensors ``(C, H, W)``, with their targets.

    An index is a number, or ``(epoch, number)``: random augmentation then depends on seed, epoch and number alone, so
    it is the same whatever process or worker does it, and the same again after a resume.

    Args:
        samples: what to read.
        data_config: timm's data configuration: it decides size, interpolation, crop and normalisation.
        augment: None for evaluation, else arguments for ``timm.data.create_transform`` in training.
        seed: of the augmentation.
    """

    def __init__(
        self, samples: Samples, data_config: Mapping[str, Any], augment: Mapping[str, Any] | None = None, seed: int = 0
    ) -> None:
        self.samples = samples
        self.seed = None if augment is None else seed
        self.mode = "L" if data_config["input_size"][0] == 1 else "RGB"
        extra = {} if augment is None else {"is_training": True, **augment}
        self.transform = timm.data.create_transform(**data_config, **extra)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int | tuple[int, int]) -> tuple[Tensor, Any]:
        epoch, i = index if isinstance(index, tuple) else (0, index)
        target = self.samples.targets[i]
        target = target.item() if target.ndim == 0 else target
        image = in_mode(self.samples.read(i), self.mode)
        if self.seed is None:
            return self.transform(image), target
        with _seeded(self.seed, epoch, i):
            return self.transform(image), target


def to_tensor(image: Image.Image, data_config: Mapping[str, Any]) -> Tensor:
    """One image as the model wants to see it, ``(1, C, H, W)``."""
    return ImageDataset(Samples([image].__getitem__, np.zeros(1)), data_config)[0][0][None]


def to_bytes(image: Image.Image, data_config: Mapping[str, Any]) -> Tensor:
    """One picture as it is, uint8 ``(1, height, width, C)``, for a model that prepares it itself."""
    mode = "L" if data_config["input_size"][0] == 1 else "RGB"
    pixels = torch.from_numpy(np.array(in_mode(image, mode)))
    return pixels.reshape(1, *pixels.shape[:2], -1)


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


def loader(samples: Samples, data_config: Mapping[str, Any], batch_size: int = 64, workers: int = 0) -> DataLoader[Any]:
    """Batches for evaluation, in order: images ``(B, C, H, W)`` and targets ``(B,)``."""
    return DataLoader(ImageDataset(samples, data_config), batch_size=batch_size, num_workers=workers)


class _seeded:
    """All random generators that transforms use, set inside and as they were outside."""

    def __init__(self, *key: int) -> None:
        self.seed = int(np.random.SeedSequence(key).generate_state(1)[0])

    def __enter__(self) -> None:
        self.states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(self.seed)
        np.random.seed(self.seed)
        torch.default_generator.manual_seed(self.seed)

    def __exit__(self, *exc: object) -> None:
        random.setstate(self.states[0])
        np.random.set_state(self.states[1])
        torch.set_rng_state(self.states[2])
