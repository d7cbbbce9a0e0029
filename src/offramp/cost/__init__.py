"""What the parts of a model cost: multiply-adds and measured seconds."""

from offramp.cost.heads import head_costs
from offramp.cost.latency import in_turn, p95, synchronise
from offramp.cost.macs import count_macs
from offramp.cost.profile import profile

__all__ = ["count_macs", "head_costs", "in_turn", "p95", "profile", "synchronise"]
