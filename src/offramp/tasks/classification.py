"""One class of several."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from offramp.tasks._task import check_kind
from offramp.types import Tap


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
        check_kind(self, kind)
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
