"""What leaving early loses, sample by sample: what a promise is about and what a monitor watches."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from offramp.errors import UsageError
from offramp.registry import unknown
from offramp.tasks import Task
from offramp.types import ExitTable

LOSSES = ("disagreement", "gap", "brier")
BEYOND = ("off-by-3", "moved-by-3")
"""Examples of losses with a number of one's own, for tasks that answer numbers."""
_BEYOND = re.compile(r"(off|moved)-by-(\d+(?:\.\d+)?)")
IN_WORDS = {
    "disagreement": "another answer than the full model's",
    "gap": "a wrong answer where the full model's is right",
    "brier": "half the Brier score worse than the full model's",
    "error": "a wrong answer",
}
"""What a loss of 1 is; ``error`` can be watched, and nothing is promised about it."""


def check_loss(kind: str, what: str, known: Sequence[str] = LOSSES) -> None:
    """Raise ``UsageError`` for a loss that is none of the known ones, nor one with a number of its own.

    Args:
        kind: the loss.
        what: what to call it: a loss of what.
        known: the names there are.
    """
    if kind not in known and beyond(kind) is None:
        raise UsageError(unknown(what, kind, (*known, *BEYOND)))


def beyond(kind: str) -> tuple[bool, float] | None:
    """Of a loss with a number of its own whether it asks what is true, not what the full model says, and the number."""
    found = _BEYOND.fullmatch(kind)
    return None if found is None else (found[1] == "off", float(found[2]))


def in_words(kind: str) -> str:
    """What a loss of 1 is."""
    if (limit := beyond(kind)) is not None:
        return f"an answer more than {limit[1]:g} away from {'the truth' if limit[0] else 'what the full model says'}"
    return IN_WORDS[kind]


def loss_of(kind: str, output: Tensor, full: Tensor, targets: Tensor | None, task: Task) -> Tensor:
    """What each answer loses against the full model's, ``(B,)``, float64 between 0 and 1.

    Args:
        kind: ``disagreement``, 1 where the answer is another (needs no targets); ``gap``, 1 where it is wrong and the
            full model's is right; ``brier``, by how much the Brier score is worse, at least 0 and halved. For numbers
            ``moved-by-3``, 1 where it is more than 3 away from the full model's (needs no targets), and ``off-by-3``,
            1 where it is more than 3 away from the truth, whatever the full model says; with any number in place of 3.
        output: what was answered, ``(B, num_outputs)``.
        full: what the full model says of the same samples, ``(B, num_outputs)``.
        targets: what is true, ``(B,)``.
        task: what an output means.

    Raises:
        UsageError: a loss for classes and another task, or the other way round; one that asks for targets and none.
    """
    if (limit := beyond(kind)) is not None:
        return _too_far(kind, *limit, output, full, targets, task)
    if kind == "disagreement":
        return (task.answer(output) != task.answer(full)).double()
    if not task.classes:
        others = ", ".join(map(repr, ("disagreement", *BEYOND)))
        raise UsageError(f"the loss {kind!r} is for classes; for {task.name} there are {others}")
    if targets is None:
        raise UsageError(f"the loss {kind!r} asks what is true: give the targets too")
    if kind == "gap":
        right = task.answer(output) == targets
        return ((task.answer(full) == targets) & ~right).double()
    return ((_brier(output, targets, task) - _brier(full, targets, task)) / 2).clamp(0, 1)


def _too_far(
    kind: str, off: bool, limit: float, output: Tensor, full: Tensor, targets: Tensor | None, task: Task
) -> Tensor:
    if task.classes:
        raise UsageError(f"the loss {kind!r} is for numbers, and {task.name} answers classes")
    reference = targets if off else task.answer(full)
    if reference is None:
        raise UsageError(f"the loss {kind!r} asks what is true: give the targets too")
    return ((task.answer(output).double() - reference.double()).abs() > limit).double()


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
