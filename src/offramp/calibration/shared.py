"""One threshold for all exits (LGViT's rule), over its whole range at once, and which exits to keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from offramp.calibration.goals import Goal
from offramp.search import Columns
from offramp.search.cuts import midway
from offramp.search.frontier import Point

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
    return Sweep(
        heads,
        thresholds,
        gained / samples,
        shares @ torch.tensor(columns.costs.to_exit(heads), dtype=torch.float64),
        shares,
    )


def shared_points(on: Callable[[tuple[int, ...]], Columns], goal: Goal) -> list[Point]:
    """For each set of exits that was tried its best shared threshold, where one is allowed.

    Exits are taken away one by one, the one first without which it goes best, as long as that helps; each alone and
    none are tried as well.

    Args:
        on: from a set of exits to the columns with these exits on.
        goal: ``max_drop`` or ``target_speedup``.
    """
    columns = on(())
    tried: list[Point] = []

    def rank(point: Point) -> tuple[float, float]:
        return goal.order(point.quality, columns.static / point.cost)

    def best(sets: Sequence[tuple[int, ...]]) -> tuple[Point, tuple[int, ...]] | None:
        found = []
        for heads in sets:
            swept = sweep(on(heads), heads)
            row = best_row(columns, goal, swept)
            found += [] if row is None else [(swept.point(row), heads)]
        tried.extend(point for point, _ in found)
        return max(found, key=lambda f: rank(f[0]), default=None)

    heads = tuple(range(len(columns.heads)))
    chosen = best([heads])
    while heads:
        challenger = best([tuple(k for k in heads if k != gone) for gone in heads])
        if challenger is None or (chosen is not None and rank(challenger[0]) <= rank(chosen[0])):
            break
        chosen, heads = challenger, challenger[1]
    best([(), *((k,) for k in range(len(columns.heads)))])  # where heads are dear, none of the larger sets may do
    return tried


def best_row(columns: Columns, goal: Goal, swept: Sweep) -> int | None:
    """The best threshold of a sweep; None where none is allowed."""
    speedup = columns.static / swept.cost
    rows = goal.allows(swept.quality, columns.static_quality, speedup).nonzero()[:, 0]
    if len(rows) == 0:
        return None
    first, second = goal.order(swept.quality, speedup)
    rows = rows[first[rows] == first[rows].max()]
    return int(rows[second[rows].max(0).indices])


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
    middle = midway(values[:-1], values[1:])
    middle = middle[middle > values[:-1]]
    if len(middle) > _MAX_CANDIDATES:
        middle = middle[torch.linspace(0, len(middle) - 1, _MAX_CANDIDATES).long()]
    return torch.cat([middle.new_zeros(1), middle, middle.new_ones(1)])


def _sums(first: Tensor, last: Tensor, value: Tensor, size: int) -> Tensor:
    """For each of ``size`` places the sum of the values of samples whose ``first <= place < last``."""
    ends = torch.bincount(first, value, size + 1) - torch.bincount(last, value, size + 1)
    return ends.cumsum(0)[:size]
