"""Images cut into a grid of crops, each a sample of its own; how many are on an image is the sum over its crops."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from offramp._progress import terminal, track
from offramp.data.samples import Samples, Splits
from offramp.errors import DataError
from offramp.inputs import Marked, cut


def in_crops(samples: Samples, grid: Sequence[int]) -> Samples:
    """Each image's crops in its place, one after the other; the target of each is what is marked on it.

    Every image is read once to learn which points lie where.

    Args:
        samples: with points; ``open_splits(..., kind="points")`` gives such.
        grid: rows and columns; of one crop the samples stay what they are.

    Raises:
        DataError: images on which no points are marked; others as of ``offramp.inputs.cut``.
    """
    if tuple(grid) == (1, 1):
        return samples
    targets = []
    for i in track(range(len(samples)), "cutting", len(samples), terminal()):
        for crop in cut(samples.read(i), grid):
            if not isinstance(crop, Marked) or crop.weights is None:
                raise DataError("crops are counted by the points on them, and no points are marked on this image")
            targets.append(crop.weights.sum())
    names = samples.names and [f"{name}#{k}" for name in samples.names for k in range(grid[0] * grid[1])]
    return Samples(partial(_read, samples, tuple(grid)), np.array(targets, np.float32), names)


def splits_in_crops(splits: Splits, grid: Sequence[int]) -> Splits:
    """The same of splits: crops of one image stand in one of them. The record keeps the sizes in images.

    Args:
        splits: of images.
        grid: rows and columns.
    """
    if tuple(grid) == (1, 1):
        return splits
    parts = {name: in_crops(part, grid) for name, part in splits.parts.items()}
    return Splits(parts, splits.classes, {**splits.record, "crops": [*grid]})


def _read(samples: Samples, grid: Sequence[int], i: int) -> Any:
    image, crop = divmod(i, grid[0] * grid[1])
    return cut(samples.read(image), grid)[crop]
