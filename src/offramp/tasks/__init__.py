"""What an output means: its loss, how sure it is, the answer it gives and how good that is. Nothing else knows.

A new task is one file here and one line in ``offramp.registry.TASKS``.
"""

from offramp.tasks._task import Task, direction, get_task, task_name
from offramp.tasks.classification import Classification
from offramp.tasks.counting import Counting
from offramp.tasks.density import Density

__all__ = ["Classification", "Counting", "Density", "Task", "direction", "get_task", "task_name"]
