"""What leaving early loses, sample by sample: what a promise is about and what a monitor watches."""

from __future__ import annotations

import torch
from torch import Tensor

from offramp.errors import UsageError
from offramp.tasks import Task
from offramp.types import ExitTable

LOSSES = ("disagreement", "gap", "brier")
IN_WORDS = {
    "disagreement": "another answer than the full model's",
    "gap": "a wrong answer where the full model's is right",
    "brier": "half the Brier score worse than the full model's",
    "error": "a wrong answer",
}
"""What a loss of 1 is; ``error`` can be watched, and nothing is promised about it."""


def loss_of(kind: str, output: Tensor, full: Tensor, targets: Tensor | None, task: Task) -> Tensor:
    """What each answer loses against the full model's, ``(B,)``, float64 between 0 and 1.

    Args:
        kind: ``disagreement``, 1 where the answer is another (needs no targets); ``gap``, 1 where it is wrong and the
            full model's is right; ``brier``, by how much the Brier score is worse, at least 0 and halved.
        output: what was answered, ``(B, num_outputs)``.
        full: what the full model says of the same samples, ``(B, num_outputs)``.
        targets: what is true, ``(B,)``.
        task: what an output means.

    Raises:
        UsageError: a loss for classes and another task, or one that asks for targets and none.
    """
    if kind == "disagreement":
        return (task.answer(output) != task.answer(full)).double()
    if not task.classes:
        raise UsageError(f"the loss {kind!r} is for classes; for {task.name} there is 'disagreement'")
    if targets is None:
        raise UsageError(f"the loss {kind!r} asks what is true: give the targets too")
    if kind == "gap":
        right = task.answer(output) == targets
        return ((task.answer(full) == targets) & ~right).double()
    return ((_brier(output, targets, task) - _brier(full, targets, task)) / 2).clamp(0, 1)


def exit_losses(table: ExitTable, task: Task, kind: str, entry: Tensor | None = None) -> Tensor:
    """What leaving at each exit loses against the final exit, ``(exits + 1, samples)``, between 0 and 1.

    Args:
        table: every exit's output.
        task: what an output means.
        kind: as above.
        entry: the path that each sample enters at, ``(samples,)``; the first if not given. The full model is the one
            that begins at the first.
    """
    final = table.of(-1)
    outputs = (table.of(k, entry) for k in range(len(table.outputs)))
    return torch.stack([loss_of(kind, output, final, table.targets, task) for output in outputs])


def _brier(output: Tensor, targets: Tensor, task: Task) -> Tensor:
    true = task.soft(targets, output.shape[1]).double()
    return ((task.probabilities(output).double() - true) ** 2).sum(1)
