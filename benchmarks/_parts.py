"""The tables of a model that has only some of its exits and paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from offramp.types import Chain, CostTable, ExitTable, PartCosts


def part_of(table: ExitTable, costs: CostTable, keep: Sequence[int]) -> tuple[ExitTable, CostTable]:
    """The tables of a model without the other exits, and without the paths of which no exit is kept.

    A router speaks of all paths: it stays where all of them do.

    Args:
        table: of the whole model.
        costs: of the whole model.
        keep: exits by their place in the chain, rising; of each path that stays also its own classifier.
    """
    chain = table.chain
    paths = sorted({chain.paths[k] for k in keep})
    if any(chain.ends[path] not in keep for path in paths):
        raise ValueError("a path stays only with its own classifier")
    return _table(table, keep, paths), replace(
        costs,
        after=tuple(chain.after[k] for k in keep[:-1]),
        macs=_costs(costs.macs, chain, keep, paths),
        seconds=None,
        p95=None,
    )


def _table(table: ExitTable, keep: Sequence[int], paths: Sequence[int]) -> ExitTable:
    chain, rows = table.chain, list(keep)
    entered = []
    for i, path in enumerate(paths[1:] if table.entered else (), start=1):
        start = chain.starts[path]
        kept = [k - start for k in keep if k >= start]
        entered.append(_table(table.entered[path - 1], kept, [p - path for p in paths[i:]]))
    return replace(
        table,
        outputs=table.outputs[rows],
        after=tuple(chain.after[k] for k in keep),
        heads=tuple(table.heads[k] for k in keep),
        largest=None if table.largest is None else table.largest[rows],
        paths=tuple(paths.index(chain.paths[k]) for k in keep) if len(paths) > 1 else (),
        route=table.route if len(paths) == chain.num_paths else None,
        entered=tuple(entered) if len(paths) > 1 else (),
    )


def _costs(parts: PartCosts, chain: Chain, keep: Sequence[int], paths: Sequence[int]) -> PartCosts:
    own = [
        replace(
            parts.paths[path],
            heads=_heads(parts.paths[path], chain, keep, path),
            cheaper=(),
        )
        for path in paths
    ]
    return replace(own[-1], cheaper=tuple(own[:-1]), router=parts.router, ahead=parts.ahead)


def _heads(part: PartCosts, chain: Chain, keep: Sequence[int], path: int) -> tuple[float, ...]:
    start, end = chain.starts[path], chain.ends[path]
    return tuple(part.heads[k - start] for k in keep if start <= k < end)
