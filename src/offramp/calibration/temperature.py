"""A temperature for each exit, so that its probabilities mean what they say."""

from __future__ import annotations

import torch

from offramp.errors import UsageError
from offramp.tasks import Task, get_task
from offramp.types import ExitTable


def fit_temperatures(table: ExitTable, task: str | Task | None = None) -> tuple[float, ...]:
    """The temperature of each exit, the final exit last, that makes its outputs likeliest (Guo et al., 1706.04599).

    Fit them on other samples than those that thresholds are chosen on: ``halves`` cuts a table in two.

    Args:
        table: outputs on held-out data.
        task: what an output means, where it is none that the table can name.

    Raises:
        UsageError: a table without samples, or a task without classes.
    """
    meaning = get_task(table.task if task is None else task)
    if len(table) == 0:
        raise UsageError("the exit table holds no samples")
    if table.outputs.shape[2] < 2:
        raise UsageError("temperatures are for classes, and this table has one output")
    return tuple(_fit(output, table.targets, meaning) for output in table.each())


def _fit(output: torch.Tensor, target: torch.Tensor, task: Task) -> float:
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = task.loss(output.double() / log_t.exp(), target)
        value.backward()
        return value

    optimizer.step(loss)
    return float(log_t.detach().clamp(-4, 4).exp())


def halves(table: ExitTable, seed: int = 0) -> tuple[ExitTable, ExitTable]:
    """A table cut in two at random, so that what is fitted on one half is not tuned on it again."""
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))
    middle = len(table) // 2
    return table.take(order[:middle]), table.take(order[middle:])
