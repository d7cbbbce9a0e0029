"""One threshold for all exits (LGViT's rule), over its whole range at once, and which exits to keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from offramp.calibration.search import Columns, Point

_MAX_CANDIDATES = 400


@dataclass(frozen=True)
class Sweep:
    """What every threshold is worth, from everybody leaves at once to nobody leaves early.

    Args:
        heads: the indices of the exits that are on.
        thresholds: rising, ``(t,)``.
        quality: mean quality at each, ``(t,)``.
        cost: mean cost at each, ``(t,)``.
        shares: who leaves where, ``(t, exits + 1)``.
    """

    heads: tuple[int, ...]
    thresholds: Tensor
    quality: Tensor
    cost: Tensor
    shares: Tensor

    def point(self, row: int) -> Point:
        """One of them."""
        threshold = float(self.thresholds[row])
        exits = self.shares.shape[1] - 1
        return Point(
            tuple(threshold if k in self.heads else None for k in range(exits)),
            float(self.quality[row]),
            float(self.cost[row]),
            tuple(self.shares[row].tolist()),
        )


def sweep(columns: Columns, heads: tuple[int, ...]) -> Sweep:
    """All thresholds at once: a sample leaves at an exit for thresholds between two running maxima of its scores."""
    final, samples = len(columns.heads), columns.scores.shape[1]
    used = columns.scores[list(heads)]
    thresholds = midpoints(used) if heads else torch.ones(1, dtype=torch.float64)
    size = len(thresholds)
    one = torch.ones(samples, dtype=torch.float64)
    reached = torch.zeros(samples, dtype=torch.long)  # thresholds below this are met at an exit before
    gained = torch.zeros(size, dtype=torch.float64)
    shares = torch.zeros(size, final + 1, dtype=torch.float64)
    for k, scores in zip(heads, used, strict=True):
        now = torch.searchsorted(thresholds, scores, right=True).maximum(reached)
        shares[:, k] = _sums(reached, now, one, size) / samples
        gained += _sums(reached, now, columns.quality[k], size)
        reached = now
    end = torch.full_like(reached, size)
    shares[:, final] = _sums(reached, end, one, size) / samples
    gained += _sums(reached, end, columns.quality[final], size)
    return Sweep(heads, thresholds, gained / samples, shares @ _to_exit(columns, heads), shares)


def best_shared(
    columns: Columns, choose: Callable[[Tensor, Tensor], int | None], better: Callable[[Point, Point], bool]
) -> Point | None:
    """The best shared threshold, exits taken away one by one as long as that helps.

    Args:
        columns: the table.
        choose: from quality and cost ``(t,)`` to the row of the best that is allowed, or None.
        better: whether the first of two points is better than the second.
    """

    def best(heads: tuple[int, ...]) -> Point | None:
        swept = sweep(columns, heads)
        row = choose(swept.quality, swept.cost)
        return None if row is None else swept.point(row)

    heads = tuple(range(len(columns.heads)))
    chosen = best(heads)
    while heads:
        found = [(tuple(k for k in heads if k != gone), gone) for gone in heads]
        points = [(point, fewer) for fewer, _ in found if (point := best(fewer)) is not None]
        challenger = None
        for point, fewer in points:
            if challenger is None or better(point, challenger[0]):
                challenger = (point, fewer)
        if challenger is None or (chosen is not None and not better(challenger[0], chosen)):
            break
        chosen, heads = challenger
    return chosen


def some_sets(points: Sequence[Point]) -> list[tuple[int, ...]]:
    """Sets of exits worth a sweep: all there are where they are few, else single ones, all, and those of points."""
    exits = len(points[0].thresholds)
    everything = range(exits)
    if exits <= 4:
        return [heads for size in range(exits + 1) for heads in combinations(everything, size)]
    found = {(), tuple(everything), *((k,) for k in everything)}
    found |= {tuple(k for k in everything if point.thresholds[k] is not None) for point in points}
    return sorted(found)


def midpoints(scores: Tensor) -> Tensor:
    """Thresholds midway between neighbouring scores, thinned evenly by rank, and both ends of the range."""
    values = scores.flatten().unique()
    middle = (values[1:] + values[:-1]) / 2
    if len(middle) > _MAX_CANDIDATES:
        middle = middle[torch.linspace(0, len(middle) - 1, _MAX_CANDIDATES).long()]
    return torch.cat([middle.new_zeros(1), middle, middle.new_ones(1)])


def _to_exit(columns: Columns, heads: tuple[int, ...]) -> Tensor:
    parts = [s + (columns.heads[k] if k in heads else 0) for k, s in enumerate(columns.segments[:-1])]
    return torch.tensor([*parts, columns.segments[-1]], dtype=torch.float64).cumsum(0)


def _sums(first: Tensor, last: Tensor, value: Tensor, size: int) -> Tensor:
    """For each of ``size`` places the sum of the values of samples whose ``first <= place < last``."""
    ends = torch.bincount(first, value, size + 1) - torch.bincount(last, value, size + 1)
    return ends.cumsum(0)[:size]
