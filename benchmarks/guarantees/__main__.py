"""Run the simulations, one after the other."""

from __future__ import annotations

import argparse

import torch

from benchmarks import RESULTS, guarantees, publish
from benchmarks.guarantees.picture import draw
from benchmarks.guarantees.promises import promised, unshuffled
from benchmarks.guarantees.watching import STREAMS, delay, false_alarms
from benchmarks.guarantees.world import World
from offramp.calibration.risk import METHODS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=guarantees.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=1000, help="calibration sets for each row")
    parser.add_argument("--n", type=int, default=2000, help="samples of a calibration set")
    parser.add_argument("--risk", type=float, default=0.05)
    parser.add_argument("--delta", type=float, default=0.05)
    parser.add_argument("--streams", type=int, default=1000, help="streams for each row about false alarms")
    parser.add_argument("--answers", type=int, default=10_000, help="length of such a stream")
    parser.add_argument("--level", type=float, default=0.05, help="of the monitor")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)  # tables this small are slower with more
    orders = (False, True)
    rows = []
    for loss in ("disagreement", "brier"):
        world = World(loss=loss)
        for by_class in orders:
            for method in METHODS:
                rows += promised(world, method, by_class, args.draws, args)
            rows.append(unshuffled(world, by_class, args.draws, args))
    for risk in (0.01, 0.05, 0.3):
        for kind in STREAMS:
            rows.append(false_alarms(kind, risk, args.streams, args.answers, args.level, args.seed))
    for risk in (0.01, 0.05):
        for quiet in (0, 1000, 100_000):
            for factor in (1.5, 2.0, 4.0):
                rows.append(delay(risk, factor, quiet, max(args.streams // 10, 1), args.level, args.seed))
    draw(rows, RESULTS / "guarantees.png")
    publish("guarantees", {"rows": rows})


if __name__ == "__main__":
    main()
