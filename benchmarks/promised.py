"""Is what was asked for on some samples kept on others?

A validation table is cut in two by seed, again and again. A policy is calibrated on one part for at most so many points
lost, and replayed on the rest. Two searches see the same: that of ``calibrate``, which reads how likely each answer is
to be right given the scores of all exits, and the same one where it reads whether the answer was right.

``python -m benchmarks.promised`` takes the model in the box and the 5,000 validation images in its table; with
``--runs runs/tails/imagenette:tails-exits runs/tails/cifar10:exits …`` also what ``benchmarks.tails`` has trained, half
of each validation table to calibrate on.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import offramp
from benchmarks import _runs, publish
from benchmarks.compare.rows import mean_and_deviation
from benchmarks.tails.plan import FIELDS, runs
from benchmarks.tails.training import build
from offramp.artifact import load_artifact
from offramp.bench import macs_speedup
from offramp.calibration.candidates import candidates
from offramp.calibration.goals import Goal
from offramp.policies.threshold import Threshold
from offramp.search import TableColumns
from offramp.tasks import get_task
from offramp.types import CostTable, ExitTable

ASKED = (0.002, 0.005, 0.01, 0.02)
BOX = "cifar10"
SIZES = (500, 1000, 2500)
"""How many of the box's validation images a policy is calibrated on."""
_CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="*", default=[], help="FOLDER:RUN of benchmarks.tails, all its seeds")
    parser.add_argument("--draws", type=int, default=10, help="of each table and size")
    args = parser.parse_args()
    box = load_artifact(BOX)
    assert box.table is not None
    assert box.costs is not None
    worlds = [("the model in the box", [box.table], box.costs, size) for size in SIZES]
    worlds += [_trained(Path(folder), name) for folder, name in (run.rsplit(":", 1) for run in args.runs)]
    rows = []
    for name, tables, costs, size in worlds:
        print(f"{name}, {size}", file=sys.stderr, flush=True)
        about = {"name": name, "exits": len(costs.after), "calibrated_on": size}
        rows += [{**about, **row} for row in promised(tables, costs, size, args.draws)]
    publish("promised", {"data": "validation tables", "split": "validation", "draws": args.draws, "rows": rows})


def promised(tables: Sequence[ExitTable], costs: CostTable, size: int, draws: int) -> Iterator[dict[str, Any]]:
    """A row for each search and each drop that is asked for.

    Args:
        tables: of networks of one kind, whose costs are the same.
        costs: theirs.
        size: how many samples a policy is calibrated on; it is replayed on the rest.
        draws: of each table.
    """
    found: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for table in tables:
        for seed in range(draws):
            rows = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))
            seen, others = table.take(rows[:size]), table.take(rows[size:])
            for asked in ASKED:
                for search, policy in (
                    ("chances", offramp.calibrate(seen, costs, max_drop=asked)),
                    ("answers", _by_answers(seen, costs, asked)),
                ):
                    found.setdefault((search, asked), []).append(_kept(policy, others, costs))
    for (search, asked), kept in found.items():
        lost, speedups = zip(*kept, strict=True)
        yield {
            "search": search,
            "asked": asked,
            "lost": mean_and_deviation(lost),
            "macs_speedup": statistics.harmonic_mean(speedups),
            "more_lost_than_asked": statistics.fmean(drop > asked + 1e-9 for drop in lost),
        }


def _by_answers(table: ExitTable, costs: CostTable, asked: float) -> offramp.Policy:
    """What ``calibrate`` would choose if it read whether answers were right."""
    goal, task = Goal("max_drop", asked), get_task(table.task)
    for point in candidates(TableColumns(table, costs), goal, shared=False):
        policy = Threshold(point.thresholds)
        if goal.judge(policy, table, costs, task)[0]:
            return policy
    raise AssertionError("nobody leaving early loses nothing")


def _kept(policy: offramp.Policy, table: ExitTable, costs: CostTable) -> tuple[float, float]:
    """What a policy loses on a table, and its MACs speed-up there."""
    trace = offramp.replay(policy, table)
    right, alone = (output.argmax(1) == table.targets for output in (trace.output, table.of(-1)))
    lost = float(alone.double().mean() - right.double().mean())
    return lost, macs_speedup(costs, policy, trace)


def _trained(work: Path, name: str) -> tuple[str, list[ExitTable], CostTable, int]:
    """All seeds of a finished run; what a router said is left aside."""
    place = FIELDS[work.name]
    (run,) = (run for run in runs(place) if run.name == name)
    costs = offramp.profile(build(run.seeded(0), place, None, _CLASSES), repeats=0)
    folders = sorted(folder for folder in work.glob(f"{name}-*") if folder.name.removeprefix(f"{name}-").isdigit())
    tables = [replace(_runs.table(folder, "validation"), route=None) for folder in folders]
    return f"{place.name}, {name}", tables, costs, len(tables[0]) // 2


if __name__ == "__main__":
    main()
