"""The seam every task fills, and finding one by its name."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from offramp.errors import UsageError
from offramp.registry import TASKS, unknown
from offramp.types import Tap


class Task(Protocol):
    """The seam between numbers and their meaning; every tensor has the sample as its first dimension."""

    name: str
    metric: str
    """The name of the mean of ``quality`` over samples."""
    higher_is_better: bool
    unit: str
    """What the metric is shown in: ``%`` for shares of 1, nothing for plain numbers."""
    scores: tuple[str, ...]
    """The kinds of score that this task knows, the usual one first."""
    classes: bool
    """Whether an answer is one of several classes, so that an output has a number for each of them."""
    tolerances: tuple[float, ...]
    """How far apart two answers may be that agree; values that are worth trying, rising."""

    def shape(self, tap: Tap, num_outputs: int) -> tuple[int, ...]:
        """The shape of what an exit at ``tap`` answers for one sample."""

    def keep(self, output: Tensor) -> Tensor:
        """What decisions and tables read of an output ``(B, *shape)``: ``(B, num_outputs)``, such as a map's sum."""

    def probabilities(self, output: Tensor) -> Tensor:
        """The probability of each class ``(B, num_outputs)``. Raises ``UsageError`` where there are no classes."""

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """``loss`` of each sample, ``(B,)``."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """What training makes small: output ``(B, num_outputs)``, target ``(B,)`` or soft, to a scalar."""

    def soft(self, target: Tensor, num_outputs: int, smoothing: float = 0.0) -> Tensor:
        """Targets ``(B,)`` as numbers that can be averaged over samples; what is soft already stays."""

    def taught(self, target: Tensor, answer: Tensor, weight: float, temperature: float) -> Tensor:
        """Soft targets, ``weight`` of them from a teacher's output ``(B, num_outputs)``."""

    def distillation(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """How far an output is from a teacher's, both ``(B, num_outputs)``, to a scalar."""

    def score(self, kind: str, output: Tensor, previous: Tensor | None) -> Tensor:
        """How sure ``output`` is, ``(B,)`` within 0 and 1; ``previous`` is the output of the exit that ran before."""

    def ensemble(self, outputs: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
        """Several exits' outputs ``(exits, B, num_outputs)`` as one ``(B, num_outputs)``, weighted ``(exits,)``."""

    def product(self, outputs: Tensor) -> Tensor:
        """Several exits' outputs ``(exits, B, num_outputs)`` as a product of experts, ``(B, num_outputs)``."""

    def answer(self, output: Tensor) -> Tensor:
        """The answer, ``(B,)``: a class index, a number."""

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """How good each answer is, ``(B,)``; the mean over samples is the metric."""


def get_task(name_or_task: str | Task) -> Task:
    """The task of a name, or the task itself. Raises ``UsageError`` for an unknown name."""
    found: Any = TASKS.resolve(name_or_task)
    task: Task = found() if isinstance(found, type) else found
    return task


def direction(task: Task) -> float:
    """1 where a higher metric is the better one, −1 where a lower one is."""
    return 1.0 if task.higher_is_better else -1.0


def task_name(task: Task) -> str:
    """The name that a task has in the table. Raises ``UsageError`` for one that is in none."""
    name = TASKS.name_of(type(task))
    if name is None:
        raise UsageError(f"task {type(task).__name__} is in no table; what is saved names its task")
    return name


def check_kind(task: Task, kind: str) -> None:
    """Raise ``UsageError`` for a score that a task does not know."""
    if kind not in task.scores:
        raise UsageError(unknown(f"score for {task.name}", kind, task.scores))
