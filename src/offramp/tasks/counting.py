"""How many: one number a sample."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from offramp.errors import UsageError
from offramp.tasks._task import check_kind
from offramp.types import Tap


class Counting:
    """One number a sample. Trained on the absolute error; the metric is its mean, MAE.

    Targets are numbers ``(B,)``, or maps ``(B, 1, H, W)`` of which the sum is meant.

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
        return (output[:, 0].float() - counted(target)).abs()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Absolute error, mean over the batch."""
        return functional.l1_loss(output[:, 0].float(), counted(target))

    def soft(self, target: Tensor, num_outputs: int, smoothing: float = 0.0) -> Tensor:
        """What they are. Raises ``UsageError`` for smoothing, which is about classes."""
        if smoothing:
            raise UsageError("label smoothing is for classes, and this task counts")
        return target.float()

    def taught(self, target: Tensor, answer: Tensor, weight: float, temperature: float) -> Tensor:
        """Numbers between the target and the teacher's answer; a number has no temperature."""
        return counted(self.soft(target, 1)).lerp(answer[:, 0].float(), weight)

    def distillation(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """The absolute difference, mean over the batch; a number has no temperature."""
        return functional.l1_loss(output[:, 0].float(), teacher[:, 0].float())

    def score(self, kind: str, output: Tensor, previous: Tensor | None) -> Tensor:
        """Agreement with the exit before. Raises ``UsageError`` for an unknown kind."""
        check_kind(self, kind)
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
        return (self.answer(output).float() - counted(target)).abs()


def counted(target: Tensor) -> Tensor:
    """Targets, numbers ``(B,)`` or maps ``(B, 1, H, W)``, as numbers ``(B,)``."""
    return target.float().flatten(1).sum(1) if target.ndim > 1 else target.float()
