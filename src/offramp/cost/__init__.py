"""What the parts of a model cost: multiply-adds and measured seconds."""

from offramp.cost.latency import in_turn, synchronise
from offramp.cost.macs import count_macs
from offramp.cost.profile import profile

__all__ = ["count_macs", "in_turn", "profile", "synchronise"]
