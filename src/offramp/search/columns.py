"""From the two tables to the columns that a search reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from offramp.errors import DataError, UsageError
from offramp.search.smooth import smoothed
from offramp.tasks import Task, direction, get_task
from offramp.types import ChainCosts, CostTable, ExitTable


@dataclass(frozen=True)
class Columns:
    """What the search reads, for ``exits`` early exits and ``samples`` samples.

    Args:
        scores: how sure each early exit is, ``(exits, samples)``; float64 that holds the float32 of a policy's scores.
        quality: of each exit's answer, higher is better, the final exit last, ``(exits + 1, samples)``.
        costs: what the parts of the chain of exits cost.
        route: what the router says, ``(samples, paths)``, where there is one.
    """

    scores: Tensor
    quality: Tensor
    costs: ChainCosts
    route: Tensor | None = None

    @property
    def segments(self) -> tuple[float, ...]:
        """The cost of the blocks that lead to each exit, stem and final classifier included, ``exits + 1``."""
        return self.costs.segments

    @property
    def heads(self) -> tuple[float, ...]:
        """The cost of each head, ``exits``."""
        return self.costs.heads

    @property
    def static(self) -> float:
        """The cost of the backbone without exits and cheaper paths."""
        return self.costs.static

    @property
    def static_quality(self) -> float:
        """The mean quality of the final exit."""
        return float(self.quality[-1].mean())


class TableColumns:
    """The columns of a table for any set of exits that are on.

    A score that compares (``change``) is taken from one exit that is on to the next, as a policy takes it: it depends
    on the set. Other scores do not, and their columns are the same for every set.

    Args:
        table: outputs on validation data.
        costs: what the parts of the model cost.
        unit: ``macs``, ``seconds`` or ``p95``.
        score: the kind of score; the task's usual one if not given.
        temperatures: of each exit's outputs, the final exit last.
        task: what an output means, where it is none that the table can name.

    Raises:
        UsageError: tables of different models, no samples, an unknown unit or score, costs that are no costs,
            temperatures of another number or not above 0.
        DataError: scores, answers or targets that are not finite.
    """

    def __init__(
        self,
        table: ExitTable,
        costs: CostTable,
        unit: str = "macs",
        score: str | None = None,
        temperatures: Sequence[float] = (),
        task: str | Task | None = None,
    ) -> None:
        if len(table) == 0:
            raise UsageError("the exit table holds no samples")
        if table.chain != costs.chain:
            raise UsageError(f"the exit table has exits after {table.after[:-1]}, the cost table after {costs.after}")
        check_temperatures(tuple(temperatures), len(costs.after))
        self.table, self.temperatures = table, tuple(temperatures)
        self.task = get_task(table.task if task is None else task)
        self.kind = self.task.scores[0] if score is None else score
        self._scores: dict[tuple[int, int | None], Tensor] = {}
        everything = range(len(table.outputs) - 1)
        self._all = Columns(self._stacked(everything), self._quality(), _costs(costs, unit), table.route)
        self.compares = len(everything) > 1 and not torch.equal(self._score(1, None), self._score(1, 0))
        """Whether scores depend on which exits are on."""

    def on(self, heads: Sequence[int] | None = None) -> Columns:
        """The columns with some exits on, all if not given; of an exit that is off the score is 0."""
        return self._all if heads is None or not self.compares else replace(self._all, scores=self._stacked(heads))

    def smoothed(self) -> TableColumns:
        """The same, with the chance that an answer is right in place of whether it was (``search.smooth``)."""
        final = len(self.table.outputs) - 1
        paths = self.table.chain.paths
        before = final - 1 if final and paths[final - 1] == paths[final] else None
        scores = torch.cat([self._all.scores, self._score(final, before)[None]])
        found = copy(self)
        found._all = replace(self._all, quality=smoothed(self._all.quality, scores))
        return found

    def _stacked(self, heads: Sequence[int]) -> Tensor:
        stacked = torch.zeros(len(self.table.outputs) - 1, len(self.table), dtype=torch.float64)
        paths = self.table.chain.paths
        for k, before in zip(heads, (None, *heads), strict=False):
            stacked[k] = self._score(k, before if before is not None and paths[before] == paths[k] else None)
        return stacked

    def _score(self, k: int, before: int | None) -> Tensor:
        """The score of exit ``k`` where ``before`` is the exit that ran before it, ``(samples,)``."""
        if (k, before) not in self._scores:
            own = self.table.of(k)
            scaled = own / self.temperatures[k] if self.temperatures else own
            score = self.task.score(self.kind, scaled, None if before is None else self.table.of(before)).double()
            if not torch.isfinite(score).all():
                raise DataError("some scores are not finite (NaN or infinity): this table cannot be calibrated on")
            self._scores[k, before] = score
        return self._scores[k, before]

    def _quality(self) -> Tensor:
        way, targets = direction(self.task), self.table.targets
        quality = torch.stack([way * self.task.quality(output, targets).double() for output in self.table.each()])
        if not torch.isfinite(quality).all():
            raise DataError(
                "some answers or targets are not finite (NaN or infinity): this table cannot be calibrated on"
            )
        return quality


def columns_of(
    table: ExitTable,
    costs: CostTable,
    unit: str = "macs",
    score: str | None = None,
    temperatures: tuple[float, ...] = (),
    task: str | Task | None = None,
) -> Columns:
    """Scores, qualities and costs of a model's exits, all of them on; see ``TableColumns``.

    Raises:
        UsageError: tables of different models, no samples, an unknown unit or score, costs that are no costs.
        DataError: scores, answers or targets that are not finite.
    """
    return TableColumns(table, costs, unit, score, temperatures, task).on()


def check_temperatures(temperatures: tuple[float, ...], exits: int) -> None:
    """Raise ``UsageError`` unless there is none, or one above 0 for each early exit and the final one."""
    if temperatures and (len(temperatures) != exits + 1 or not min(temperatures) > 0):
        raise UsageError(f"{exits} early exits have {exits + 1} temperatures above 0, not {list(temperatures)}")


def _costs(costs: CostTable, unit: str) -> ChainCosts:
    """The costs of the chain. Raises ``UsageError`` for costs that are none."""
    try:
        found = costs.in_chain(unit)
    except ValueError as error:
        raise UsageError(f"{error}: profile(model) measures them, with repeats above 0") from error
    finite = all(math.isfinite(cost) and cost >= 0 for cost in costs.in_unit(unit).numbers())
    if not finite or min(map(found.alone, range(len(found.segments)))) <= 0:
        raise UsageError(f"the cost table's {unit} are no costs: each is 0 or more, and no exit is free")
    return found
