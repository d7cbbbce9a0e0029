"""What an output means: its loss, how sure it is, the answer it gives and how good that is. Nothing else knows."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

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


class Classification:
    """One class of several. An output holds logits; a sample is right or wrong, and the metric is top-1 accuracy.

    Scores, of the softmax probabilities p of C classes, each between 0 and 1:
    ``confidence``, the largest p; ``margin``, the largest minus the second; ``entropy``, 1 − H(p) / log C (EENet's
    form, 2301.07099; BranchyNet and DeeBERT take H itself); ``power-entropy``, the same of p² / Σ p² (JEI-DNN,
    2310.09163); ``energy``, ½ + ½ e / (1 + |e|) for e = log Σ exp(logits), which keeps the order at any size.
    """

    name = "classification"
    metric = "accuracy"
    higher_is_better = True
    unit = "%"
    scores: tuple[str, ...] = ("confidence", "margin", "entropy", "power-entropy", "energy")
    classes = True
    tolerances: tuple[float, ...] = (0.0,)

    def shape(self, tap: Tap, num_outputs: int) -> tuple[int, ...]:
        """One logit for each class."""
        return (num_outputs,)

    def keep(self, output: Tensor) -> Tensor:
        """All of it."""
        return output

    def probabilities(self, output: Tensor) -> Tensor:
        """The softmax."""
        return output.float().softmax(1)

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of each sample."""
        target = target if target.is_floating_point() else target.long()
        return functional.cross_entropy(output.float(), target, reduction="none")

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy, mean over the batch; a target is a class index, or a probability for each class."""
        return functional.cross_entropy(output.float(), target if target.is_floating_point() else target.long())

    def soft(self, target: Tensor, num_outputs: int, smoothing: float = 0.0) -> Tensor:
        """Probabilities ``(B, num_outputs)``, ``smoothing`` of each spread evenly over all classes."""
        if not target.is_floating_point():
            target = functional.one_hot(target.long(), num_outputs).float()
        return target * (1 - smoothing) + smoothing / num_outputs

    def taught(self, target: Tensor, answer: Tensor, weight: float, temperature: float) -> Tensor:
        """Probabilities: those of the target and the teacher's softmax at ``temperature``."""
        own = self.soft(target, answer.shape[1])
        return own.lerp((answer.float() / temperature).softmax(1), weight)

    def distillation(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """temperature² · KL(teacher ‖ output) of the softmax at ``temperature``, mean over the batch (1503.02531)."""
        own, given = ((logits.float() / temperature).log_softmax(1) for logits in (output, teacher))
        return temperature**2 * functional.kl_div(own, given, reduction="batchmean", log_target=True)

    def score(self, kind: str, output: Tensor, previous: Tensor | None) -> Tensor:
        """One of ``scores``. Raises ``UsageError`` for an unknown kind."""
        _check_kind(self, kind)
        logits = output.float()
        if kind == "confidence":
            return logits.softmax(1).amax(1)
        if kind == "margin":
            best = logits.softmax(1).topk(min(2, logits.shape[1]), 1).values
            return best[:, 0] - best[:, 1:].sum(1)
        if kind == "energy":
            energy = logits.logsumexp(1)
            return 0.5 + 0.5 * energy / (1 + energy.abs())
        log_p = (logits * (2 if kind == "power-entropy" else 1)).log_softmax(1)
        entropy = -(log_p.exp() * log_p).sum(1)
        return (1 - entropy / math.log(max(logits.shape[1], 2))).clamp(0, 1)

    def ensemble(self, outputs: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
        """The weighted geometric mean of the exits' probabilities, as logits."""
        logs = outputs.float().log_softmax(2)
        return ((weights[:, None, None] * logs).sum(0) + bias).log_softmax(1)

    def product(self, outputs: Tensor) -> Tensor:
        """p ∝ Π max(logit, 0) over exits, as logits; the last exit's where that is 0 for all classes (2306.02652)."""
        logs = outputs.float().clamp(min=0).log().sum(0).clamp(min=-1e4)
        nothing = (logs <= -1e4).all(1, keepdim=True)
        return torch.where(nothing, outputs[-1].float(), logs).log_softmax(1)

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
    classes = False
    tolerances: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

    def shape(self, tap: Tap, num_outputs: int) -> tuple[int, ...]:
        """One number."""
        return (num_outputs,)

    def keep(self, output: Tensor) -> Tensor:
        """The number."""
        return output

    def probabilities(self, output: Tensor) -> Tensor:
        """None: raises ``UsageError``."""
        raise UsageError(f"probabilities are of classes, and {self.name} has none")

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """The absolute error of each sample."""
        return (output[:, 0].float() - target.float()).abs()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Absolute error, mean over the batch."""
        return functional.l1_loss(output[:, 0].float(), target.float())

    def soft(self, target: Tensor, num_outputs: int, smoothing: float = 0.0) -> Tensor:
        """The numbers. Raises ``UsageError`` for smoothing, which is about classes."""
        if smoothing:
            raise UsageError("label smoothing is for classes, and this task counts")
        return target.float()

    def taught(self, target: Tensor, answer: Tensor, weight: float, temperature: float) -> Tensor:
        """Numbers between the target and the teacher's answer; a number has no temperature."""
        return self.soft(target, 1).lerp(answer[:, 0].float(), weight)

    def distillation(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """The absolute difference, mean over the batch; a number has no temperature."""
        return functional.l1_loss(output[:, 0].float(), teacher[:, 0].float())

    def score(self, kind: str, output: Tensor, previous: Tensor | None) -> Tensor:
        """Agreement with the exit before. Raises ``UsageError`` for an unknown kind."""
        _check_kind(self, kind)
        if previous is None:
            return output.new_zeros(output.shape[0])
        return 1 / (1 + (output[:, 0].float() - previous[:, 0].float()).abs())

    def ensemble(self, outputs: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
        """The weighted mean of the exits' numbers."""
        return (weights[:, None, None] * outputs.float()).sum(0) / weights.sum() + bias

    def product(self, outputs: Tensor) -> Tensor:
        """The mean of the exits' numbers."""
        return outputs.float().mean(0)

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


def direction(task: Task) -> float:
    """1 where a higher metric is the better one, −1 where a lower one is."""
    return 1.0 if task.higher_is_better else -1.0


def task_name(task: Task) -> str:
    """The name that a task has in the table. Raises ``UsageError`` for one that is in none."""
    name = TASKS.name_of(type(task))
    if name is None:
        raise UsageError(f"task {type(task).__name__} is in no table; what is saved names its task")
    return name


def _check_kind(task: Task, kind: str) -> None:
    if kind not in task.scores:
        raise UsageError(unknown(f"score for {task.name}", kind, task.scores))
