"""Do promises about risk hold? A simulation in which the truth is known.

A sample loses 1 at every threshold below a number of its own, so that the risk at threshold t is known: (1 − t) / 2.
From n samples each method chooses a threshold for a risk of ε, a thousand times and more. A violation is a choice whose
true risk is above ε. UCB and Learn-then-Test promise that violations are rarer than δ; conformal risk control promises
that the mean risk is at most ε; the naive choice promises nothing. *First failed* is the mistake of the code published
with 2405.20915: it returns the first threshold that failed in place of the last that passed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import publish
from offramp._progress import track
from offramp.calibration.risk import METHODS, last_passed

Losses = Callable[[float], np.ndarray]


def first_failed(grid: np.ndarray, losses: Losses, risk: float, delta: float, method: str) -> float:
    """The mistake, put back on purpose."""
    passed = last_passed(grid, losses, risk, delta, method)
    row = 0 if passed is None else int(np.flatnonzero(grid == passed)[0]) + 1
    return float(grid[min(row, len(grid) - 1)])


def simulate(choose: Callable[..., float | None], method: str, points: int, args: argparse.Namespace) -> dict[str, Any]:
    """How often the true risk is above the promise, and the mean true risk."""
    grid = np.linspace(1, 0.8, points)
    true = []
    for draw in track(range(args.draws), f"{method}, {points} points", args.draws):
        own = np.random.default_rng((args.seed, draw)).random(args.n) * 2
        chosen = choose(grid, lambda t, own=own: (own < 1 - t).astype(float), args.risk, args.delta, method)
        true.append(0.0 if chosen is None else (1 - chosen) / 2)
    share = float(np.mean(np.array(true) > args.risk + 1e-12))
    limit = args.delta + 2 * math.sqrt(args.delta * (1 - args.delta) / args.draws)
    mean = float(np.mean(true))
    kept = {"ucb": share <= limit, "ltt": share <= limit, "crc": mean <= args.risk, "naive": None}[method]
    return {
        "method": method,
        "returns": "first failed" if choose is first_failed else "last passed",
        "draws": args.draws,
        "n": args.n,
        "risk": args.risk,
        "delta": args.delta,
        "grid_points": points,
        "violations": share,
        "limit": limit,
        "mean_risk": mean,
        "promise_kept": kept,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--n", type=int, default=500, help="calibration samples in a draw")
    parser.add_argument("--risk", type=float, default=0.05)
    parser.add_argument("--delta", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = [
        simulate(choose, method, points, args)
        for choose in (last_passed, first_failed)
        for method in METHODS
        for points in (6, 101)
    ]
    publish("guarantees", {"rows": rows})


if __name__ == "__main__":
    main()
