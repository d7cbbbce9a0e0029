"""What a policy may look at when it says which of its kind are worth trying."""

from __future__ import annotations

from dataclasses import dataclass

from offramp.search.columns import Columns, columns_of
from offramp.tasks import Task
from offramp.types import CostTable, ExitTable


@dataclass(frozen=True)
class Seen:
    """Two halves of an exit table, and what its outputs mean and cost.

    Args:
        fitted: the half to learn from.
        chosen: the half on which one of the candidates is chosen; a candidate's own numbers may be taken from it.
        costs: what the parts of the model cost.
        task: what an output means.
        unit: what cost means: ``macs`` or ``seconds``.
        score: the kind of score to read.
    """

    fitted: ExitTable
    chosen: ExitTable
    costs: CostTable
    task: Task
    unit: str
    score: str

    @property
    def heads(self) -> tuple[int, ...]:
        """The indices of all early exits."""
        return tuple(range(len(self.costs.after)))

    def columns(self, table: ExitTable) -> Columns:
        """Scores, qualities and costs of one of the two halves, all exits on."""
        return columns_of(table, self.costs, self.unit, self.score, task=self.task)
