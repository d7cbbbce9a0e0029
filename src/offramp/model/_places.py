"""From the exits that were asked for to the chain of those of all paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from offramp.errors import UsageError
from offramp.registry import unknown
from offramp.types import Exit

FINAL = "final"
"""What a path's own classifier is called."""


def block_of(after: int | str, names: Sequence[str]) -> int:
    """The number of a block, from 1, by its number or the path of its module. Raises ``UsageError``."""
    if isinstance(after, int):
        return after
    if after not in names:
        raise UsageError(unknown("module to leave after", after, names))
    return names.index(after) + 1


def check_places(exits: Sequence[Exit], depths: Sequence[int]) -> None:
    """Raise ``UsageError`` for exits, by number, that stand nowhere or twice.

    Args:
        exits: the exits, paths counted from 0.
        depths: how many blocks each path has.
    """
    for e in exits:
        if e.path is not None and not 0 <= e.path < len(depths):
            raise UsageError(f"an exit on path {e.path}: this model has paths 0 to {len(depths) - 1}")
        depth = min(depths) if e.path is None else depths[e.path]
        if not 1 <= int(e.after) < depth:
            raise UsageError(
                f"exit after block {e.after}: this backbone has {depth} blocks, and exits stand after blocks 1 to "
                f"{depth - 1} (after block {depth} its own classifier is the final exit)"
            )
    for first, second in combinations(exits, 2):
        where = None in (first.path, second.path) or first.path == second.path
        if where and replace(first, path=None) == replace(second, path=None):
            raise UsageError(f"two exits after block {first.after} with the same head")


def on_paths(exits: Sequence[Exit], depths: Sequence[int]) -> list[tuple[Exit, int | None]]:
    """The chain: each exit with its path, and its place in ``exits``, None for a path's own classifier."""
    chain: list[tuple[Exit, int | None]] = []
    for path, depth in enumerate(depths):
        chain += [(replace(e, path=path), i) for i, e in enumerate(exits) if e.path in (None, path)]
        chain.append((Exit(depth, FINAL, path=path), None))
    return chain
