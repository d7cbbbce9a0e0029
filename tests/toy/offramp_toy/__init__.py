from offramp_toy.head import Mean
from offramp_toy.policy import Falling

__all__ = ["Falling", "Mean"]
