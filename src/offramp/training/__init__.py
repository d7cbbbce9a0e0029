"""Training: objectives say what is learned, one loop learns it.

An objective is ``objective(model, batch) -> {"loss": …}`` and says which modules it trains; the loop knows nothing
else of it. A new objective is one file here and one line in ``offramp.registry.OBJECTIVES``.
"""

from offramp.training.loop import train
from offramp.training.objective import Objective

__all__ = ["Objective", "train"]
