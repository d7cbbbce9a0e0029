"""From samples to what a model reads, by the transform of its input."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from offramp._batches import loaded
from offramp.data.samples import Samples
from offramp.errors import UsageError
from offramp.inputs import Input, Labelled


class Prepared(Dataset[tuple[Any, Any]]):
    """Samples as an input prepares them, such as normalised images ``(C, H, W)``, with their targets.

    Where augmentation moves what a target speaks of, the target is the one that the transform gives (``Labelled``).

    An index is a number, or ``(epoch, number)``: random augmentation then depends on seed, epoch and number alone, so
    it is the same whatever process or worker does it, and the same again after a resume.

    Args:
        samples: what to read.
        model_input: how a sample is prepared; ``model.input``.
        augment: None for evaluation, else what the input's transform takes for training; for images these are
            arguments of ``timm.data.create_transform``.
        seed: of the augmentation.

    Raises:
        UsageError: augmentation of samples that are prepared already.
    """

    def __init__(
        self, samples: Samples, model_input: Input, augment: Mapping[str, Any] | None = None, seed: int = 0
    ) -> None:
        self.samples = samples
        self.seed = None if augment is None else seed
        if samples.prepared and augment is not None:
            raise UsageError("samples that are prepared already cannot be augmented: leave augment out")
        self.transform = _as_it_is if samples.prepared else model_input.transform(augment)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int | tuple[int, int]) -> tuple[Any, Any]:
        epoch, i = index if isinstance(index, tuple) else (0, index)
        target = self.samples.targets[i]
        target = target.item() if target.ndim == 0 else target
        sample = self.samples.read(i)
        if self.seed is None:
            return self.transform(sample), target
        with _seeded(self.seed, epoch, i):
            found = self.transform(sample)
        return (found.inputs, found.target) if isinstance(found, Labelled) else (found, target)


def loader(samples: Samples, model_input: Input, batch_size: int = 64, workers: int = 0) -> DataLoader[Any]:
    """Batches for evaluation, in order: prepared samples, such as images ``(B, C, H, W)``, and targets ``(B,)``."""
    return DataLoader(Prepared(samples, model_input), batch_size, num_workers=workers, collate_fn=collate)


def collate(items: list[Any]) -> tuple[Any, Any]:
    """A batch of inputs and targets; samples of several parts are a tuple of tensors."""
    inputs, targets = default_collate(items)
    return loaded(inputs), targets


def _as_it_is(sample: Any) -> Any:
    return sample


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
