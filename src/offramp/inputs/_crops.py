"""An image cut into a grid of crops."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
from PIL import Image

from offramp.errors import DataError
from offramp.inputs.points import Marked


def cut(sample: Any, grid: Sequence[int]) -> list[Any]:
    """The crops of an image, row by row: parts that differ by at most a pixel and meet without overlap.

    A point belongs to the crop that it lies in; one outside the image to that at the nearest edge. *Multi-Exit Vision
    Transformer* (2106.15183) counts so: an image is resized to a grid of what the network reads, and the crops' numbers
    are summed. There the target is a part of a map and may be a fraction; that a point counts in one crop alone is our
    choice.

    Args:
        sample: an image of Pillow's, or ``Marked``; anything where the grid is one crop, which is the sample itself.
        grid: how many rows and columns.

    Raises:
        DataError: something else than an image, or an image with fewer pixels than rows or columns.
    """
    if tuple(grid) == (1, 1):
        return [sample]
    whole = sample if isinstance(sample, Marked) else Marked(sample)
    if not isinstance(whole.image, Image.Image):
        raise DataError(f"images are cut into crops, and this sample is {type(sample).__name__}")
    width, height = whole.image.size
    if width < grid[1] or height < grid[0]:
        raise DataError(f"an image of {width} × {height} pixels has no {grid[0]} rows and {grid[1]} columns of crops")
    down, across = (_edges(side, parts) for side, parts in ((height, grid[0]), (width, grid[1])))
    crops = []
    for (top, bottom), (left, right) in product(pairwise(down), pairwise(across)):
        image = whole.image.crop((left, top, right, bottom))
        if whole.points is None or whole.weights is None:
            crops.append(image if whole is not sample else Marked(image))
            continue
        last = np.array([np.nextafter(width, 0), np.nextafter(height, 0)])
        x, y = whole.points.astype(np.float64).clip(0, last).T
        mine = (left <= x) & (x < right) & (top <= y) & (y < bottom)
        points = np.stack([x[mine] - left, y[mine] - top], 1).astype(np.float32)
        crops.append(Marked(image, points, whole.weights[mine]))
    return crops


def _edges(side: int, parts: int) -> list[int]:
    return [round(side * i / parts) for i in range(parts + 1)]
