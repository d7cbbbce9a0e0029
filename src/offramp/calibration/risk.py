"""Risk control: one threshold for all exits, and a promise about being wrong because of leaving early."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offramp.calibration.bounds import p_value, refuted
from offramp.calibration.losses import check_loss, exit_losses, in_words
from offramp.calibration.order import random_order
from offramp.errors import DataError, GoalError, UsageError
from offramp.registry import unknown
from offramp.search import Columns
from offramp.search.bias import enters
from offramp.search.frontier import Point, evaluate
from offramp.tasks import Task
from offramp.types import ExitTable

METHODS = ("ucb", "ltt", "crc", "naive")
_GRID = 129
"""Thresholds are multiples of 1/128, which every precision holds exactly."""
_LEAST = 1e-12
_COUNTED = 1_000_000


def control(
    columns: Columns,
    table: ExitTable,
    task: Task,
    risk: float,
    delta: float,
    method: str = "ucb",
    loss: str = "disagreement",
    seed: int = 0,
    bias: tuple[float, ...] = (),
) -> tuple[Point, dict[str, Any]]:
    """The lowest threshold, shared by all exits, whose risk is promised to be at most ``risk`` (2405.20915).

    Thresholds are tried from the highest, at which nobody leaves early, downwards, on a grid that is fixed before any
    loss is seen; the walk ends at the first that fails, and the *last that passed* is returned. (The code published
    with the paper returns the first that failed, which breaks the promise.)

    - ``ucb``: the betting bound of Waudby-Smith and Ramdas stays below ``risk``; holds with probability 1 − delta.
    - ``ltt``: Learn-then-Test with fixed sequence (2110.01052); holds with probability 1 − delta.
    - ``crc``: conformal risk control (2208.02814): the mean over calibration sets is at most ``risk``.
    - ``naive``: the mean on the table is at most ``risk``. No promise.

    All but ``naive`` assume that the samples of the table and those to come are exchangeable: drawn from the same
    source, none of them chosen for where it stands. The rows of the table may come in any order, class by class for
    instance. ``ucb`` alone reads them one after the other; it gets them in a random order that follows from ``seed``
    and from what the rows hold, so that the same rows in another order give the same threshold. A seed that was picked
    because it gives a lower one voids the promise.

    Args:
        columns: what calibration reads.
        table: the exit table of the same samples.
        task: what an output means.
        risk: the share that is allowed, between 1e-12 and 1.
        delta: how often the promise of ``ucb`` and ``ltt`` may fail.
        method: one of ``METHODS``.
        loss: one of ``LOSSES``, or for numbers ``off-by-3`` and ``moved-by-3`` with any number;
            ``calibration.losses.loss_of`` says what each is.
        seed: of the order in which ``ucb`` reads the samples.
        bias: with which the router says where samples enter, fixed before this table was seen; everybody enters at the
            cheapest path if not given.

    Returns:
        the point, and the record of the promise, with ``sentence``.

    Raises:
        UsageError: an unknown method or loss, a risk or delta out of its range; a bias for a table without a router's
            word, for another number of paths, or where paths are linked.
        DataError: losses that are not finite.
        GoalError: too few samples for any promise of this size; the sentence names the number needed.
    """
    if method not in METHODS:
        raise UsageError(unknown("method of risk control", method, METHODS))
    check_loss(loss, "loss of risk control")
    if not 0 < delta < 1:
        raise UsageError(f"a confidence of {1 - delta:g} is none; it lies between 0 and 1")
    if not _LEAST <= risk < 1:
        raise UsageError(f"risk is {risk:g}; it is a share of cases, between {_LEAST:g} and 1")
    if bias and (columns.route is None or columns.route.shape[1] != len(bias)):
        raise UsageError(f"a bias for {len(bias)} paths, and the table holds no router's word on so many")
    if bias and columns.costs.chain.linked:
        raise UsageError("paths are linked, so that what an exit says depends on where a sample entered: no promise")
    entry = enters(columns, bias)
    per_exit = exit_losses(table, task, loss, entry)
    if not torch.isfinite(per_exit).all():
        raise DataError("some losses are not finite (NaN or infinity): no promise can be made on this table")
    order, digest = random_order(table, seed)
    scores, per_exit = _met(columns, entry)[:, order], per_exit[:, order]
    grid = np.linspace(1, 0, _GRID)
    chosen = last_passed(grid, lambda threshold: losses_at(scores, per_exit, threshold), risk, delta, method)
    if chosen is None and (own := float(per_exit[-1].mean())) > risk:
        raise GoalError(
            f"a risk of {risk:g} is out of reach: the full model itself gives {in_words(loss)} in {100 * own:.3g} % of "
            "cases"
        )
    if chosen is None:
        needed = samples_needed(risk, delta, method)
        raise GoalError(
            f"{len(table)} samples cannot promise a risk of {risk:g} by {method}: at least {needed} are needed"
        )
    thresholds = tuple(None if chosen >= 1 else chosen for _ in columns.heads)
    point = evaluate(columns, thresholds, bias)
    return point, {
        "method": method,
        "loss": loss,
        "risk": risk,
        "delta": delta,
        "samples": len(table),
        "grid": [1.0, 0.0, _GRID],
        "seed": seed,
        "digest": digest,
        "runtime": table.provenance.get("runtime"),
        "precision": table.provenance.get("precision"),
        "sentence": _sentence(method, loss, risk, delta),
    }


def _met(columns: Columns, entry: Tensor) -> Tensor:
    """The scores of the exits that each sample meets; below all thresholds those on the paths before it entered."""
    if not len(columns.scores):
        return columns.scores
    paths = torch.tensor(columns.costs.chain.paths[:-1])
    return columns.scores.masked_fill(paths[:, None] < entry, -torch.inf)


def last_passed(
    grid: np.ndarray, losses: Callable[[float], np.ndarray], risk: float, delta: float, method: str
) -> float | None:
    """Walk down a grid while the risk is under control; the last threshold that passed, None where none did.

    ``crc`` is a theorem for losses that never fall when the threshold does, and a sample may be right again at an
    earlier exit: it reads the largest loss that each sample has had on the way down.

    Args:
        grid: thresholds, falling.
        losses: from a threshold to the losses of all samples, ``(n,)``, between 0 and 1, always in the same order. For
            ``ucb`` that has to be a random one.
        risk: the risk that is allowed.
        delta: how often a promise may fail.
        method: one of ``METHODS``.
    """
    passed = None
    largest = np.zeros(())
    for threshold in grid:
        found = losses(float(threshold))
        largest = np.maximum(largest, found)
        if not _passes(largest if method == "crc" else found, risk, delta, method):
            break
        passed = float(threshold)
    return passed


def _passes(losses: np.ndarray, risk: float, delta: float, method: str) -> bool:
    n, mean = len(losses), float(losses.mean())
    if method == "ucb":
        return refuted(losses, risk, delta)
    if method == "ltt":
        return p_value(losses, risk) <= delta
    if method == "crc":
        return n / (n + 1) * mean + 1 / (n + 1) <= risk
    return mean <= risk


def losses_at(scores: Tensor, per_exit: Tensor, threshold: float) -> np.ndarray:
    """The loss of each sample when all exits share a threshold, ``(samples,)``; at 1 and above nobody leaves early."""
    if threshold >= 1:
        return per_exit[-1].numpy()
    sure = torch.cat([scores >= threshold, torch.ones(1, scores.shape[1], dtype=torch.bool)])
    first = sure.to(torch.uint8).max(0).indices
    return per_exit.gather(0, first[None])[0].numpy()


def samples_needed(risk: float, delta: float, method: str) -> int:
    """The fewest samples with which a method can pass at all, when no sample loses anything.

    Exact up to a million. Above that it is a lower bound, less than 3 % below for ``ucb`` at 95 % confidence, and takes
    no memory.
    """
    sure = -math.log(delta)
    least = {"ucb": sure / math.log1p(risk), "ltt": sure / -math.log1p(-risk), "crc": 1 / risk - 1, "naive": 1.0}
    needed = max(1, math.ceil(least[method] * (1 - 1e-9)))
    if needed > _COUNTED:
        return needed
    low, high = needed - 1, needed
    while not _passes(np.zeros(high), risk, delta, method):
        if high > _COUNTED:
            return high + 1
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _passes(np.zeros(middle), risk, delta, method) else (middle, high)
    return high


def _sentence(method: str, loss: str, risk: float, delta: float) -> str:
    what = in_words(loss)
    if method == "naive":
        return f"No promise: on the calibration samples, {what} in at most {100 * risk:g} % of cases."
    sure = "on average over calibration sets" if method == "crc" else f"with {100 * (1 - delta):g} % confidence"
    return f"{sure.capitalize()}, {what} in at most {100 * risk:g} % of cases like those it was calibrated on."
