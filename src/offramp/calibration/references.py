"""Two policies that nobody can have: the lowest and the highest to expect at a cost."""

from __future__ import annotations

import torch

from offramp.search import Columns
from offramp.search.frontier import Point


def at_random(columns: Columns, shares: tuple[float, ...], seed: int = 0) -> Point:
    """Samples leave at exits drawn at random with given shares; all heads before an exit run.

    Args:
        columns: what calibration reads.
        shares: for each exit, the final exit last.
        seed: of the draw.
    """
    samples = columns.scores.shape[1]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(torch.tensor(shares), samples, replacement=True, generator=generator)
    return _point(columns, drawn)


def oracle(columns: Columns) -> Point:
    """Each sample leaves at the first exit whose answer is as good as the best it gets anywhere."""
    return _point(columns, (columns.quality >= columns.quality.amax(0)).to(torch.uint8).max(0).indices)


def _point(columns: Columns, exits: torch.Tensor) -> Point:
    heads = (*columns.heads, 0.0)
    costs = torch.tensor([s + h for s, h in zip(columns.segments, heads, strict=True)], dtype=torch.float64).cumsum(0)
    shares = torch.bincount(exits, minlength=len(costs)).double() / len(exits)
    quality = float(columns.quality.gather(0, exits[None]).mean())
    return Point((None,) * len(columns.heads), quality, float(shares @ costs), tuple(shares.tolist()))
