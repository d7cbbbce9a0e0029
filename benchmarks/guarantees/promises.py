"""How often promises about risk are broken, where the truth is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.guarantees.world import COSTS, World
from offramp._progress import track
from offramp.calibration import columns_of, control
from offramp.calibration.bounds import refuted
from offramp.calibration.losses import exit_losses
from offramp.calibration.risk import losses_at
from offramp.tasks import Classification


def promised(world: World, method: str, by_class: bool, draws: int, args: Any) -> list[dict[str, Any]]:
    """Draw tables, let ``control`` choose a threshold from each, and look up its true risk.

    Returns:
        two rows: for what it returns, and for the threshold after it, the first that failed.
    """
    chosen, after = [], []
    name = f"{method}, {world.loss}, {'by class' if by_class else 'shuffled'}"
    for draw in track(range(draws), name, draws):
        table = world.table(np.random.default_rng((args.seed, draw)), args.n, by_class)
        task = Classification()
        point, record = control(columns_of(table, COSTS), table, task, args.risk, args.delta, method, world.loss)
        threshold = point.thresholds[0]
        high, low, points = record["grid"]
        step = (high - low) / (points - 1)
        chosen.append(world.risk(threshold))
        after.append(world.risk((1.0 if threshold is None else threshold) - step))
    return [
        _row(world, method, by_class, "last passed", np.array(chosen), args),
        _row(world, method, by_class, "first failed", np.array(after), args),
    ]


def unshuffled(world: World, by_class: bool, draws: int, args: Any) -> dict[str, Any]:
    """The mistake of reading the rows in the order in which they come, put back on purpose, for ``ucb``."""
    true = []
    for draw in track(range(draws), "ucb, order of the rows", draws):
        table = world.table(np.random.default_rng((args.seed, draw)), args.n, by_class)
        scores = columns_of(table, COSTS).scores
        per_exit = exit_losses(table, Classification(), world.loss)
        passed = None
        for threshold in np.linspace(1, 0, 129):
            if not refuted(losses_at(scores, per_exit, threshold), args.risk, args.delta):
                break
            passed = None if threshold >= 1 else float(threshold)
        true.append(world.risk(passed))
    return _row(world, "ucb", by_class, "last passed, rows in the order in which they came", np.array(true), args)


def _row(world: World, method: str, by_class: bool, returns: str, true: np.ndarray, args: Any) -> dict[str, Any]:
    share, mean = float((true > args.risk + 1e-9).mean()), float(true.mean())
    limit = args.delta + 2 * math.sqrt(args.delta * (1 - args.delta) / len(true))
    mean_limit = args.risk + 2 * float(true.std()) / math.sqrt(len(true))
    kept = {"ucb": share <= limit, "ltt": share <= limit, "crc": mean <= mean_limit, "naive": None}[method]
    return {
        "about": "promise",
        "method": method,
        "loss": world.loss,
        "order": "class by class" if by_class else "shuffled",
        "returns": returns,
        "draws": len(true),
        "n": args.n,
        "risk": args.risk,
        "delta": args.delta,
        "violations": share,
        "limit": limit,
        "mean_risk": mean,
        "promise_kept": kept,
    }
