"""What some of the exits cost, for policies that learn who leaves at which of them."""

from __future__ import annotations

from collections.abc import Sequence

from offramp.search import Columns


def cost_to_exit(columns: Columns, heads: Sequence[int]) -> list[float]:
    """The cost of leaving at each exit that is asked, the final exit last."""
    spent, costs = 0.0, []
    for k, segment in enumerate(columns.segments):
        spent += segment + (columns.heads[k] if k in heads else 0)
        if k in heads or k == len(columns.heads):
            costs.append(spent)
    return costs


def only(columns: Columns, heads: Sequence[int]) -> Columns:
    """The columns of a model that has only some of the early exits."""
    costs = cost_to_exit(columns, heads)
    kept = tuple(columns.heads[k] for k in heads)
    spent = [cost - sum(kept[: k + 1]) for k, cost in enumerate(costs)]
    segments = tuple(b - a for a, b in zip([0.0, *spent[:-1]], spent, strict=True))
    rows = [*heads, len(columns.quality) - 1]
    return Columns(columns.scores[list(heads)], columns.quality[rows], segments, kept)
