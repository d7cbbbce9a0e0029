"""The search for one threshold per exit: the best trade of quality for cost over a table, at every price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from offramp.search.columns import Columns

_CUTS = 256
_PRICES = 20
_ROUNDS = 3


@dataclass(frozen=True)
class Point:
    """Thresholds, and what they are worth on the table.

    Args:
        thresholds: one for each early exit, None where it is switched off.
        quality: mean quality.
        cost: mean cost.
        shares: who leaves where, the final exit last.
    """

    thresholds: tuple[float | None, ...]
    quality: float
    cost: float
    shares: tuple[float, ...]


def evaluate(columns: Columns, thresholds: tuple[float | None, ...]) -> Point:
    """What thresholds are worth on a table."""
    inside = torch.ones(columns.scores.shape[1], dtype=torch.bool)
    gained, spent, counts = 0.0, 0.0, []
    for k, threshold in enumerate(thresholds):
        spent += float(inside.sum()) * (columns.segments[k] + (0 if threshold is None else columns.heads[k]))
        leave = inside & (columns.scores[k] >= threshold) if threshold is not None else torch.zeros_like(inside)
        gained += float(columns.quality[k][leave].sum())
        counts.append(int(leave.sum()))
        inside = inside & ~leave
    spent += float(inside.sum()) * columns.segments[-1]
    gained += float(columns.quality[-1][inside].sum())
    n = len(inside)
    shares = tuple(c / n for c in (*counts, n - sum(counts)))
    return Point(thresholds, gained / n, spent / n, shares)


def frontier(columns: Columns, prices: int = _PRICES, heads: Sequence[int] | None = None) -> list[Point]:
    """Thresholds that no others of the search beat in both quality and cost, the cheapest first.

    For a price of cost in units of quality, thresholds are set one exit after the other, from the last to the first, a
    few times over: given all others, the best one is where a running sum over samples, the surest first, is largest;
    an exit whose best threshold does not earn the cost of its head is switched off. That is repeated over prices from
    almost nothing to more than any exit is worth. Thresholds stand midway between two scores, at one of 256 cuts of
    equal numbers of samples, so that they follow no single sample.

    Args:
        columns: what calibration reads.
        prices: how many prices are tried.
        heads: the exits that may be on; all if not given.
    """
    used = range(len(columns.heads)) if heads is None else heads
    order = columns.scores.argsort(dim=1, descending=True)
    scale = 1 / columns.static
    thresholds: list[float | None] = [None] * len(columns.heads)
    found = {tuple(thresholds): evaluate(columns, tuple(thresholds))}
    for price in torch.logspace(-3, 1, prices, dtype=torch.float64).tolist():
        thresholds = _descend(columns, order, price * scale, thresholds, used)
        found.setdefault(tuple(thresholds), evaluate(columns, tuple(thresholds)))
    return pareto(list(found.values()))


def between(cheap: Point, dear: Point, steps: int = 6) -> list[tuple[float | None, ...]]:
    """Thresholds between those of two points of a frontier; the exits that the cheaper one has are on."""
    return [
        tuple(_between(a, b, share) for a, b in zip(cheap.thresholds, dear.thresholds, strict=True))
        for share in torch.linspace(0, 1, steps + 2)[1:-1].tolist()
    ]


def midway(low: Tensor, high: Tensor) -> Tensor:
    """Thresholds between scores, as float32 holds them; scores that are neighbours there have none and get ``low``.

    Policies compare scores and thresholds in float32, and so does an exported file. A threshold in float64 could fall
    on a score there.
    """
    middle = ((low + high) / 2).float().to(low.dtype)
    return torch.where((low < middle) & (middle < high), middle, low)


def rounded_up(threshold: float) -> float:
    """The smallest float32 number that is no smaller: the same float32 scores reach it."""
    near = np.float32(threshold)
    return float(near if float(near) >= threshold else np.nextafter(near, np.float32(np.inf)))


def pareto(points: list[Point]) -> list[Point]:
    """The points that no other beats in both quality and cost, the cheapest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.quality)):
        if not kept or point.quality > kept[-1].quality:
            kept.append(point)
    return kept


def _between(cheap: float | None, dear: float | None, share: float) -> float | None:
    if cheap is None or dear is None:
        return cheap
    return float(torch.tensor(cheap + share * (dear - cheap), dtype=torch.float32))


def _descend(
    columns: Columns, order: Tensor, price: float, start: list[float | None], heads: Sequence[int]
) -> list[float | None]:
    """Coordinate ascent of quality − price · cost from given thresholds; exits that are not in ``heads`` stay off."""
    thresholds = list(start)
    exits, samples = columns.scores.shape
    for number in range(_ROUNDS):
        before = list(thresholds)
        reached = _reached(columns, thresholds) if number else torch.ones(exits, samples, dtype=torch.float64)
        value = columns.quality[-1] - price * columns.segments[-1]
        for k in reversed(range(exits)):
            if k not in heads:
                value = value - price * columns.segments[k]
                continue
            gain = (columns.quality[k] - value) * reached[k]
            threshold, earned = _best_cut(columns.scores[k], gain, order[k])
            earns = earned - price * columns.heads[k] * float(reached[k].sum())
            thresholds[k] = threshold if earns > 0 else None
            if earns > 0:
                value = torch.where(columns.scores[k] >= threshold, columns.quality[k], value)
                value = value - price * columns.heads[k]
            value = value - price * columns.segments[k]
        if thresholds == before:
            break
    return thresholds


def _reached(columns: Columns, thresholds: list[float | None]) -> Tensor:
    """For each exit, 1 for the samples that get there and 0 for the others."""
    inside = torch.ones(columns.scores.shape[1], dtype=torch.float64)
    rows = []
    for scores, threshold in zip(columns.scores, thresholds, strict=True):
        rows.append(inside)
        if threshold is not None:
            inside = inside * (scores < threshold)
    return torch.stack(rows)


def _best_cut(scores: Tensor, gain: Tensor, order: Tensor) -> tuple[float, float]:
    """The threshold at which the sum of the gains of who leaves is largest, and that sum."""
    sums = gain[order].cumsum(0)
    ranked = scores[order]
    n = len(order)
    ends = torch.linspace(1, n, min(_CUTS, n)).long() - 1
    below = ranked[(ends + 1).clamp(max=n - 1)]
    cuts = torch.where(ends == n - 1, 0.0, midway(below, ranked[ends]))
    free = (ends == n - 1) | (cuts > below)  # a cut between equal scores is none
    ends, cuts = ends[free], cuts[free]
    if len(ends) == 0:
        return 1.0, 0.0
    best = int(sums[ends].max(0).indices)
    return float(cuts[best]), float(sums[ends[best]])
