"""How far an exit's scores can be trusted."""

from __future__ import annotations

from typing import Any

from torchmetrics.functional.classification import binary_auroc, multiclass_calibration_error

from offramp.tasks import Task
from offramp.types import ExitTable

_BINS = 15


def exit_quality(table: ExitTable, task: Task) -> list[dict[str, Any]]:
    """For each exit, the final exit last, what its scores say of its answers; None for a task without classes.

    ``auroc``: how often a right answer has the higher score of a right and a wrong one (failure prediction; None where
    all answers are right, or all wrong); ``ece``: the mean distance of confidence and accuracy over 15 bins; ``brier``:
    the mean squared distance of the probabilities from the truth, summed over classes.

    Args:
        table: every exit's output on the data.
        task: what an output means.
    """
    if not task.classes:
        return [{"auroc": None, "ece": None, "brier": None} for _ in table.outputs]
    rows = []
    true = task.soft(table.targets, table.outputs.shape[2])
    for output in table.each():
        probabilities = task.probabilities(output)
        right = task.quality(output, table.targets).long()
        mixed = 0 < int(right.sum()) < len(right)
        score = task.score(task.scores[0], output, None)
        error = multiclass_calibration_error(probabilities, table.targets, output.shape[1], n_bins=_BINS)
        rows.append(
            {
                "auroc": float(binary_auroc(score, right)) if mixed else None,
                "ece": float(error),
                "brier": float(((probabilities - true) ** 2).sum(1).mean()),
            }
        )
    return rows
