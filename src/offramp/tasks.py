"""What an output means: its loss, how sure it is, the answer it gives and how good that is. Nothing else knows."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor
from torch.nn import functional

from offramp.errors import UsageError
from offramp.registry import TASKS, unknown


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

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """What training makes small: output ``(B, num_outputs)``, target ``(B,)``, to a scalar."""

    def score(self, kind: str, output: Tensor, previous: Tensor | None) -> Tensor:
        """How sure ``output`` is, ``(B,)`` within 0 and 1; ``previous`` is the output of the exit that ran before."""

    def answer(self, output: Tensor) -> Tensor:
        """The answer, ``(B,)``: a class index, a number."""

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """How good each answer is, ``(B,)``; the mean over samples is the metric."""


class Classification:
    """One class of several. An output holds logits; a sample is right or wrong, and the metric is top-1 accuracy.

    Scores: ``confidence``, the largest softmax probability.
    """

    name = "classification"
    metric = "accuracy"
    higher_is_better = True
    unit = "%"
    scores: tuple[str, ...] = ("confidence",)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy, mean over the batch."""
        return functional.cross_entropy(output.float(), target.long())

    def score(self, kind: str, output: Tensor, previous: Tensor | None) -> Tensor:
        """The largest probability. Raises ``UsageError`` for an unknown kind."""
        _check_kind(self, kind)
        return output.float().softmax(1).amax(1)

    def answer(self, output: Tensor) -> Tensor:
        """The index of the largest logit."""
        return output.argmax(1)

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """1 for a right answer, 0 for a wrong one."""
        return (self.answer(output) == target).float()


class Counting:
    """One number a sample. Trained on the absolute error; the metric is its mean, MAE.

    Scores: ``change``, 1 / (1 + |y_k − y_{k−1}|): 1 when two exits in a row agree, ½ when they differ by one unit,
    and 0 at the first exit that runs, which has nothing to agree with. PABEE (2006.04152) leaves a regression when
    |y_k − y_{k−1}| is small; mapping it to 0…1 is our choice, so that thresholds mean the same for every task.
    """

    name = "counting"
    metric = "mae"
    higher_is_better = False
    unit = ""
    scores: tuple[str, ...] = ("change",)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Absolute error, mean over the batch."""
        return functional.l1_loss(output[:, 0].float(), target.float())

    def score(self, kind: str, output: Tensor, previous: Tensor | None) -> Tensor:
        """Agreement with the exit before. Raises ``UsageError`` for an unknown kind."""
        _check_kind(self, kind)
        if previous is None:
            return output.new_zeros(len(output))
        return 1 / (1 + (output[:, 0].float() - previous[:, 0].float()).abs())

    def answer(self, output: Tensor) -> Tensor:
        """The number itself."""
        return output[:, 0]

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """The absolute error."""
        return (self.answer(output).float() - target.float()).abs()


def get_task(name_or_task: str | Task) -> Task:
    """The task of a name, or the task itself. Raises ``UsageError`` for an unknown name."""
    found: Any = TASKS.resolve(name_or_task)
    task: Task = found() if isinstance(found, type) else found
    return task


def _check_kind(task: Task, kind: str) -> None:
    if kind not in task.scores:
        raise UsageError(unknown(f"score for {task.name}", kind, task.scores))
