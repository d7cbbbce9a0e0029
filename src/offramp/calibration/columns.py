"""From the two tables to the columns that calibration reads."""

from __future__ import annotations

from itertools import pairwise

import torch

from offramp.calibration.search import Columns
from offramp.errors import DataError, UsageError
from offramp.tasks import Task, get_task
from offramp.types import CostTable, ExitTable


def columns_of(
    table: ExitTable,
    costs: CostTable,
    unit: str = "macs",
    score: str | None = None,
    temperatures: tuple[float, ...] = (),
    task: str | Task | None = None,
) -> Columns:
    """Scores, qualities and costs of a model's exits.

    A score that compares with the exit before (``change``) is taken from exit to exit, all of them on.

    Raises:
        UsageError: tables of different models, no samples, an unknown unit or score.
        DataError: scores that are not finite.
    """
    if len(table) == 0:
        raise UsageError("the exit table holds no samples")
    if table.after[:-1] != costs.after:
        raise UsageError(f"the exit table has exits after {table.after[:-1]}, the cost table after {costs.after}")
    meaning = get_task(table.task if task is None else task)
    kind = meaning.scores[0] if score is None else score
    sign = 1.0 if meaning.higher_is_better else -1.0
    previous, scores = None, []
    for k, output in enumerate(table.outputs[:-1]):
        scaled = output / temperatures[k] if temperatures else output
        scores.append(meaning.score(kind, scaled, previous).double())
        previous = output
    stacked = torch.stack(scores) if scores else torch.zeros(0, len(table), dtype=torch.float64)
    if not torch.isfinite(stacked).all():
        raise DataError("some scores are not finite (NaN or infinity): this table cannot be calibrated on")
    quality = torch.stack([sign * meaning.quality(o, table.targets).double() for o in table.outputs])
    if not torch.isfinite(quality).all():
        raise DataError("some answers or targets are not finite (NaN or infinity): this table cannot be calibrated on")
    parts = costs.parts(unit)
    ends = [0, *costs.after, len(parts.steps)]
    segments = [sum(parts.steps[a:b]) for a, b in pairwise(ends)]
    segments[0] += parts.stem
    segments[-1] += parts.final
    return Columns(stacked, quality, tuple(segments), parts.heads)
