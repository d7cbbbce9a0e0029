"""The search for one threshold per exit: the best trade of quality for cost over a table, at every price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offramp.search.bias import best_bias, enters
from offramp.search.columns import Columns
from offramp.search.cuts import best_cut
from offramp.types import ChainCosts

_PRICES = 20
_ROUNDS = 3
_TURNS = 2
"""How often thresholds and bias are set in turn at each price."""


@dataclass(frozen=True)
class Point:
    """Thresholds, and what they are worth on the table.

    Args:
        thresholds: one for each early exit, None where it is switched off.
        quality: mean quality.
        cost: mean cost.
        shares: who leaves where, the final exit last.
        bias: of each path, where the router is asked; empty where everybody enters at the cheapest.
    """

    thresholds: tuple[float | None, ...]
    quality: float
    cost: float
    shares: tuple[float, ...]
    bias: tuple[float, ...] = ()


def evaluate(columns: Columns, thresholds: tuple[float | None, ...], bias: tuple[float, ...] = ()) -> Point:
    """What thresholds are worth on a table, and a bias where the router is asked."""
    samples, chain = columns.scores.shape[1], columns.costs.chain
    switched = {k: threshold for k, threshold in enumerate(thresholds) if threshold is not None}
    on = tuple(switched)
    entry = enters(columns, bias)
    onto = torch.tensor(chain.entered(on))[entry]
    inside = torch.ones(samples, dtype=torch.bool)
    exits = torch.full((samples,), len(thresholds))
    for k, threshold in switched.items():
        leave = inside & (onto <= chain.paths[k]) & (columns.scores[k] >= threshold)
        exits[leave] = k
        inside &= ~leave
    to_exit = [columns.costs.to_exit(on, path, bool(bias)) for path in range(chain.num_paths)]
    spent = torch.tensor(to_exit, dtype=torch.float64)[entry, exits]
    gained = columns.quality.gather(0, exits[None])[0]
    shares = tuple((torch.bincount(exits, minlength=len(thresholds) + 1) / samples).tolist())
    return Point(thresholds, float(gained.mean()), float(spent.mean()), shares, bias)


def frontier(columns: Columns, prices: int = _PRICES, heads: Sequence[int] | None = None) -> list[Point]:
    """Thresholds that no others of the search beat in both quality and cost, the cheapest first.

    For a price of cost in units of quality, thresholds are set one exit after the other, from the last to the first, a
    few times over: given all others, the best one is where a running sum over samples, the surest first, is largest;
    an exit whose best threshold does not earn the cost of its head, and of what is computed for it alone, is switched
    off. That is repeated over prices from almost nothing to more than any exit is worth. Thresholds stand midway
    between two scores, at one of 256 cuts of equal numbers of samples, so that they follow no single sample.

    Where a router spoke, all of it is done again with the router asked: its bias is set in turn with the thresholds,
    given what entering at each path is worth to each sample.

    Args:
        columns: what calibration reads.
        prices: how many prices are tried.
        heads: the exits that may be on; all if not given.
    """
    used = range(len(columns.heads)) if heads is None else heads
    order = columns.scores.argsort(dim=1, descending=True)
    off: tuple[float | None, ...] = (None,) * len(columns.heads)
    found: dict[Any, Point] = {(off, ()): evaluate(columns, off)}
    for routed in (False, True)[: 1 if columns.route is None else 2]:
        thresholds: list[float | None] = list(off)
        bias: tuple[float, ...] = (0.0,) * columns.costs.chain.num_paths if routed else ()
        for price in torch.logspace(-3, 1, prices, dtype=torch.float64).tolist():
            for _ in range(_TURNS if routed else 1):
                entry = enters(columns, bias)
                thresholds, worth = _descend(columns, order, price / columns.static, thresholds, used, entry)
                if routed:
                    bias = best_bias(columns, worth, bias)
            key = (tuple(thresholds), bias)
            found.setdefault(key, evaluate(columns, *key))
    return pareto(list(found.values()))


def between(cheap: Point, dear: Point, steps: int = 6) -> list[tuple[tuple[float | None, ...], tuple[float, ...]]]:
    """Thresholds and biases between those of two points of a frontier; the exits that the cheaper one has are on."""
    return [
        (
            tuple(_between(a, b, share) for a, b in zip(cheap.thresholds, dear.thresholds, strict=True)),
            tuple(_near(a + share * (b - a)) for a, b in zip(cheap.bias, dear.bias, strict=False)),
        )
        for share in torch.linspace(0, 1, steps + 2)[1:-1].tolist()
    ]


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
    return _near(cheap + share * (dear - cheap))


def _near(value: float) -> float:
    """The float32 number nearest to it."""
    return float(np.float32(value))


def _descend(
    columns: Columns, order: Tensor, price: float, start: list[float | None], heads: Sequence[int], entry: Tensor
) -> tuple[list[float | None], Tensor]:
    """Coordinate ascent of quality − price · cost from given thresholds; exits that are not in ``heads`` stay off.

    Returns:
        the thresholds, and what entering at each path is worth to each sample, ``(paths, samples)``.
    """
    thresholds, costs = list(start), columns.costs
    chain = costs.chain
    exits, samples = columns.scores.shape
    worth = torch.zeros(chain.num_paths, samples, dtype=torch.float64)
    for number in range(_ROUNDS):
        before = list(thresholds)
        reached = _reached(columns, thresholds, entry, all_of_them=number == 0)
        hears = chain.heard([k for k, t in enumerate(thresholds) if t is not None]) == exits
        value = columns.quality[-1] - price * (costs.segments[-1] + costs.side * hears)
        runs = True  # whether anything behind the exit is computed on its path
        for k in reversed(range(exits)):
            path = chain.paths[k]
            if path != chain.paths[k + 1]:
                worth[path + 1] = value
                runs = chain.linked
                if chain.linked:
                    value = value - price * costs.links[path]
            if k in heads:
                # who goes on from the first exit that hears has paid for that
                first = k in chain.side and all(thresholds[j] is None for j in chain.side if j < k)
                onward = value + price * costs.side if first and hears else value
                gain = (columns.quality[k] - onward) * reached[k]
                threshold, earned = best_cut(columns.scores[k], gain, order[k])
                asking = costs.heads[k] + (0.0 if runs else _for_it_alone(costs, thresholds, k))
                asking += costs.side if first and not hears else 0.0
                earns = earned - price * asking * float(reached[k].sum())
                thresholds[k] = threshold if earns > 0 else None
                if earns > 0:
                    value = torch.where(columns.scores[k] >= threshold, columns.quality[k], onward)
                    value = value - price * (costs.heads[k] + costs.side * first)
                    runs, hears = True, hears or first
            if runs:
                value = value - price * costs.segments[k]
        worth[0] = value
        if thresholds == before:
            break
    worth[1:] -= price * costs.ahead
    return thresholds, worth


def _for_it_alone(costs: ChainCosts, thresholds: Sequence[float | None], k: int) -> float:
    """What is computed for exit ``k`` where nothing behind it is, from the exit before it that is on."""
    spent = 0.0
    for j in range(k, -1, -1):
        if costs.chain.paths[j] != costs.chain.paths[k] or (j < k and thresholds[j] is not None):
            break
        spent += costs.segments[j]
    return spent


def _reached(columns: Columns, thresholds: list[float | None], entry: Tensor, all_of_them: bool) -> Tensor:
    """For each exit, 1 for the samples that get there and 0 for the others; or for all that have entered."""
    inside = torch.ones(columns.scores.shape[1], dtype=torch.float64)
    rows = []
    for scores, threshold, path in zip(columns.scores, thresholds, columns.costs.chain.paths, strict=False):
        here = entry <= path
        rows.append(inside * here)
        if threshold is not None and not all_of_them:
            inside = torch.where(here & (scores >= threshold), 0.0, inside)
    return torch.stack(rows) if rows else torch.zeros(0, len(inside), dtype=torch.float64)
