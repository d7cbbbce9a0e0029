"""Searches over an exit table: what leaving at each exit is worth and costs, and the thresholds that trade the two."""

from offramp.search.budget import exit_distribution, quota_thresholds
from offramp.search.columns import Columns, TableColumns, columns_of
from offramp.search.frontier import Point, evaluate, frontier
from offramp.search.seen import Seen

__all__ = [
    "Columns",
    "Point",
    "Seen",
    "TableColumns",
    "columns_of",
    "evaluate",
    "exit_distribution",
    "frontier",
    "quota_thresholds",
]
