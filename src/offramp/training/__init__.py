"""Training: objectives say what is learned, one loop learns it.

An objective is ``objective(model, batch) -> {"loss": …}`` and says which parameters it trains; a plan strings several
together. The loop knows nothing else of them. A new one is one file in ``objectives`` and one line in
``offramp.registry.OBJECTIVES``.
"""

from offramp.training.curriculum import Curriculum
from offramp.training.features import Features
from offramp.training.loop import train
from offramp.training.objective import Batch, Objective, Plan, Stage
from offramp.training.teacher import Teacher

__all__ = ["Batch", "Curriculum", "Features", "Objective", "Plan", "Stage", "Teacher", "train"]
