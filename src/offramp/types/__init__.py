"""The values that travel down the road: they know how to be taken apart, saved and loaded, and nothing else."""

from offramp.types._chain import Chain, ChainCosts, chain_of
from offramp.types._costs import CostTable, PartCosts
from offramp.types._decisions import Decision, Evidence, Network, State, Trace
from offramp.types._places import Exit, Part, Tap
from offramp.types._table import ExitTable, distances

__all__ = [
    "Chain",
    "ChainCosts",
    "CostTable",
    "Decision",
    "Evidence",
    "Exit",
    "ExitTable",
    "Network",
    "Part",
    "PartCosts",
    "State",
    "Tap",
    "Trace",
    "chain_of",
    "distances",
]
