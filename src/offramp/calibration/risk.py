"""Risk control: one threshold for all exits, and a promise about being wrong because of leaving early."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offramp.calibration.bounds import betting_bound, p_value
from offramp.calibration.search import Columns, Point, evaluate
from offramp.errors import GoalError, UsageError
from offramp.registry import unknown
from offramp.tasks import Task
from offramp.types import ExitTable

METHODS = ("ucb", "ltt", "crc", "naive")
LOSSES = ("disagreement", "gap", "brier")
_GRID = 101


def control(
    columns: Columns,
    table: ExitTable,
    task: Task,
    risk: float,
    delta: float,
    method: str = "ucb",
    loss: str = "disagreement",
) -> tuple[Point, dict[str, Any]]:
    """The lowest threshold, shared by all exits, whose risk is promised to be at most ``risk`` (2405.20915).

    Thresholds are tried from the highest, at which nobody leaves early, downwards, on a grid that is fixed before any
    loss is seen; the walk ends at the first that fails, and the *last that passed* is returned. (The code published
    with the paper returns the first that failed, which breaks the promise.)

    - ``ucb``: the betting bound of Waudby-Smith and Ramdas stays below ``risk``; holds with probability 1 − delta.
    - ``ltt``: Learn-then-Test with fixed sequence (2110.01052); holds with probability 1 − delta.
    - ``crc``: conformal risk control (2208.02814): the mean over calibration sets is at most ``risk``.
    - ``naive``: the mean on the table is at most ``risk``. No promise.

    Args:
        columns: what calibration reads.
        table: the exit table of the same samples.
        task: what an output means.
        risk: the share that is allowed, between 0 and 1.
        delta: how often the promise of ``ucb`` and ``ltt`` may fail.
        method: one of ``METHODS``.
        loss: ``disagreement``, 1 where the answer is not the final exit's (needs no labels); ``gap``, 1 where it is
            wrong and the final exit's is right; ``brier``, by how much the Brier score is worse, at least 0 and halved.

    Returns:
        the point, and the record of the promise, with ``sentence``.

    Raises:
        UsageError: an unknown method or loss, a delta outside 0 to 1.
        GoalError: too few samples for any promise of this size; the sentence names the number needed.
    """
    if method not in METHODS:
        raise UsageError(unknown("method of risk control", method, METHODS))
    if loss not in LOSSES:
        raise UsageError(unknown("loss of risk control", loss, LOSSES))
    if not 0 < delta < 1:
        raise UsageError(f"a confidence of {1 - delta:g} is none; it lies between 0 and 1")
    needed = samples_needed(risk, delta, method)
    if len(table) < needed:
        raise GoalError(
            f"{len(table)} samples cannot promise a risk of {risk:g} by {method}: at least {needed} are needed"
        )
    per_exit = exit_losses(table, task, loss)
    grid = np.linspace(1, 0, _GRID)
    chosen = last_passed(grid, lambda threshold: losses_at(columns.scores, per_exit, threshold), risk, delta, method)
    thresholds = tuple(None if chosen is None or chosen >= 1 else chosen for _ in columns.heads)
    point = evaluate(columns, thresholds)
    return point, {
        "method": method,
        "loss": loss,
        "risk": risk,
        "delta": delta,
        "samples": len(table),
        "grid": [1.0, 0.0, _GRID],
        "digest": _digest(table),
        "runtime": table.provenance.get("runtime"),
        "precision": table.provenance.get("precision"),
        "sentence": _sentence(method, loss, risk, delta),
    }


def last_passed(
    grid: np.ndarray, losses: Callable[[float], np.ndarray], risk: float, delta: float, method: str
) -> float | None:
    """Walk down a grid while the risk is under control; the last threshold that passed, None where none did.

    Args:
        grid: thresholds, falling.
        losses: from a threshold to the losses of all samples, ``(n,)``, between 0 and 1.
        risk: the risk that is allowed.
        delta: how often a promise may fail.
        method: one of ``METHODS``.
    """
    passed = None
    for threshold in grid:
        if not _passes(losses(float(threshold)), risk, delta, method):
            break
        passed = float(threshold)
    return passed


def _passes(losses: np.ndarray, risk: float, delta: float, method: str) -> bool:
    n, mean = len(losses), float(losses.mean())
    if method == "ucb":
        return betting_bound(losses, delta) < risk
    if method == "ltt":
        return p_value(losses, risk) <= delta
    if method == "crc":
        return n / (n + 1) * mean + 1 / (n + 1) <= risk
    return mean <= risk


def exit_losses(table: ExitTable, task: Task, loss: str) -> Tensor:
    """What leaving at each exit loses against the final exit, ``(exits + 1, samples)``, between 0 and 1."""
    final = table.outputs[-1]
    if loss == "disagreement":
        return torch.stack([(task.answer(o) != task.answer(final)).double() for o in table.outputs])
    if task.name != "classification":
        raise UsageError(f"the loss {loss!r} is for classes; for {task.name} there is 'disagreement'")
    quality = torch.stack([task.quality(o, table.targets).double() for o in table.outputs])
    if loss == "gap":
        return ((1 - quality) - (1 - quality[-1])).clamp(min=0)
    true = task.soft(table.targets, table.outputs.shape[2]).double()
    brier = torch.stack(
        [((task.taught(table.targets, o, 1.0, 1.0).double() - true) ** 2).sum(1) for o in table.outputs]
    )
    return ((brier - brier[-1]) / 2).clamp(min=0)


def losses_at(scores: Tensor, per_exit: Tensor, threshold: float) -> np.ndarray:
    """The loss of each sample when all exits share a threshold, ``(samples,)``; at 1 and above nobody leaves early."""
    if threshold >= 1:
        return per_exit[-1].numpy()
    sure = torch.cat([scores >= threshold, torch.ones(1, scores.shape[1], dtype=torch.bool)])
    first = sure.to(torch.uint8).argmax(0)
    return per_exit.gather(0, first[None])[0].numpy()


def samples_needed(risk: float, delta: float, method: str) -> int:
    """The fewest samples with which a method can pass at all, when no sample loses anything."""
    if method == "naive":
        return 1
    if method == "crc":
        return math.ceil(1 / risk - 1)
    if method == "ltt":
        return math.ceil(math.log(delta) / math.log(1 - risk))
    n = 1
    while betting_bound(np.zeros(n), delta) >= risk:
        n *= 2
    low = n // 2
    while n - low > 1:
        middle = (n + low) // 2
        low, n = (low, middle) if betting_bound(np.zeros(middle), delta) < risk else (middle, n)
    return n


def _digest(table: ExitTable) -> str:
    digest = hashlib.sha256(table.outputs.contiguous().numpy().tobytes())
    digest.update(table.targets.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _sentence(method: str, loss: str, risk: float, delta: float) -> str:
    what = {
        "disagreement": "another answer than the full model's",
        "gap": "a wrong answer where the full model's is right",
        "brier": "half the Brier score worse than the full model's",
    }[loss]
    if method == "naive":
        return f"No promise: on the calibration samples, {what} in at most {100 * risk:g} % of cases."
    sure = "on average over calibration sets" if method == "crc" else f"with {100 * (1 - delta):g} % confidence"
    return f"{sure.capitalize()}, {what} in at most {100 * risk:g} % of cases like those it was calibrated on."
