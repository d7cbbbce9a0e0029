"""From tables to numbers: what a set of exits is worth."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks._parts import part_of
from offramp.bench.measure import macs_speedup
from offramp.calibration import calibrate
from offramp.errors import GoalError
from offramp.model import EarlyExitModel
from offramp.policies import replay
from offramp.report import bootstrap_interval
from offramp.types import CostTable, ExitTable

SPEEDUPS = (1.5, 2.0, 2.5)
_SWEEP = (1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5)
_AREA = (0.5, 1.0)


def worth(
    model: EarlyExitModel, validation: ExitTable, test: ExitTable, costs: CostTable, keep: Sequence[int] | None = None
) -> dict[str, Any]:
    """Accuracy of each exit, and of thresholds chosen on validation data for several speed-ups, read on test data.

    ``macs`` of an exit counts its own head and no other. ``area`` is the mean accuracy over the cost of an image, from
    half the static backbone's MACs to all of them.
    """
    early = len(costs.after)
    keep = tuple(range(early) if keep is None else keep)
    exits = [
        {
            "after": test.after[k],
            "head": test.heads[k],
            "accuracy": float(model.task.quality(test.outputs[k], test.targets).double().mean()),
            "macs": costs.to_exit((k,) if k < early else ())[k],
        }
        for k in (*keep, early)
    ]
    validation, own = part_of(validation, costs, (*keep, early))
    test, _ = part_of(test, costs, (*keep, early))
    points = {s: at_speedup(model, validation, test, own, s) for s in _SWEEP}
    return {
        "exits": exits,
        "head_parameters": sum(p.numel() for k in keep for p in model.heads[k].parameters()),
        "area": area_of([point for point in points.values() if point is not None]),
        "at_macs_speedup": {str(s): points[s] for s in SPEEDUPS},
        "curve": [point for point in points.values() if point is not None],
    }


def at_speedup(
    model: EarlyExitModel, validation: ExitTable, test: ExitTable, costs: CostTable, speedup: float
) -> dict[str, Any] | None:
    """Thresholds calibrated on validation data for a MACs speed-up, read on test data; None where out of reach."""
    try:
        policy = calibrate(validation, costs, target_speedup=speedup)
    except GoalError:
        return None  # the first exit is dearer than that
    trace = replay(policy, test, model.task)
    right = model.task.quality(trace.output, test.targets).double()
    blocks = torch.tensor(test.after, dtype=torch.float64)[trace.exit]
    return {
        "accuracy": float(right.mean()),
        "interval": bootstrap_interval(right.numpy()),
        "macs_speedup": macs_speedup(costs, policy, trace),
        "layers_speedup": float(test.after[-1] / blocks.mean()),
        "exit_shares": (torch.bincount(trace.exit, minlength=len(test.outputs)) / len(test)).tolist(),
    }


def area_of(points: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean accuracy over relative MACs; None where the points do not reach down to half."""
    found = sorted((1 / p["macs_speedup"], p["accuracy"]) for p in points)
    costs, accuracies = np.array(found).T
    if costs[0] > _AREA[0] + 0.02:
        return None
    grid = np.linspace(*_AREA, 101)
    return float(np.interp(grid, costs, accuracies).mean())


def mean_and_deviation(values: Sequence[float | None]) -> dict[str, float] | None:
    """Mean and sample standard deviation over seeds; None where a seed has no value."""
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return None
    return {"mean": statistics.fmean(known), "deviation": statistics.stdev(known) if len(known) > 1 else 0.0}


def heads_over_seeds(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One head's rows of several seeds as one: each number as mean and standard deviation."""
    first = rows[0]
    return {
        "exits": [
            {**e, "accuracy": mean_and_deviation([r["exits"][i]["accuracy"] for r in rows])}
            for i, e in enumerate(first["exits"])
        ],
        "head_parameters": first["head_parameters"],
        "area": mean_and_deviation([r["area"] for r in rows]),
        "at_macs_speedup": {
            s: mean_and_deviation([r["at_macs_speedup"][s] and r["at_macs_speedup"][s]["accuracy"] for r in rows])
            for s in first["at_macs_speedup"]
        },
        "seeds": len(rows),
    }
