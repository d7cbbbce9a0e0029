"""Errors and costs of every exit by frame, and what policies make of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

import offramp
from benchmarks._runs import over
from benchmarks.audio.plan import SEVEN
from benchmarks.counting.plan import MORE, RULES
from benchmarks.crops.plan import GRID, PLACES, SPEEDUP
from benchmarks.crops.training import Work
from offramp.bench.measure import macs_speedup
from offramp.cost import profile
from offramp.errors import GoalError
from offramp.policies import replay
from offramp.report import bootstrap_interval
from offramp.types import ExitTable


def best_of(splits: Sequence[Sequence[Work]]) -> str:
    """The kind of head whose early exits are off by the least on validation frames, over all splits and seeds."""
    runs = [run for own in splits for run in own]
    said = {kind: statistics.fmean(errors(run.calibrating(kind))[:-1].mean() for run in runs) for kind in SEVEN}
    return min(said, key=said.__getitem__)


def result(runs: Sequence[Work], best: str) -> dict[str, Any]:
    """Of one split, all seeds.

    Args:
        runs: finished.
        best: the kind of head of policies.
    """
    splits = runs[0].splits
    trained, tested = (by_frame(torch.from_numpy(part.targets)) for part in (splits.train, splits.test))
    trivial = np.abs(tested - trained.mean())
    finals = np.stack([errors(run.tests[SEVEN[0]])[-1] for run in runs])
    goals = [*({"more": more} for more in MORE), {"target_speedup": SPEEDUP}]
    return {
        "frames": {name: len(part) // (GRID[0] * GRID[1]) for name, part in splits.parts.items()},
        "trivial": {"mae": float(trivial.mean()), "rmse": float(np.sqrt((trivial**2).mean()))},
        "final": _said(finals),
        "macs_of_a_frame": GRID[0] * GRID[1] * profile(runs[0].build(), repeats=0).macs.static,
        "exits": {kind: _exits(kind, runs) for kind in SEVEN},
        "policies": [_policy(rule, goal, best, runs) for rule in RULES for goal in goals],
    }


def _exits(kind: str, runs: Sequence[Work]) -> list[dict[str, Any]]:
    costs = profile(runs[0].build(kind), repeats=0)
    own, chain = np.stack([errors(run.tests[kind]) for run in runs]), costs.in_chain()
    crops = GRID[0] * GRID[1]
    return [
        {"after": after, "macs_of_a_frame": crops * chain.alone(k), **_said(own[:, k])}
        for k, after in enumerate(PLACES)
    ]


def _said(found: np.ndarray) -> dict[str, Any]:
    """Of errors ``(seeds, frames)``."""
    interval = bootstrap_interval(found.mean(0))
    return {"mae": over(found.mean(1)), "interval": interval, "rmse": over(np.sqrt((found**2).mean(1)))}


def _policy(rule: str, goal: Mapping[str, float], kind: str, runs: Sequence[Work]) -> dict[str, Any]:
    """A rule calibrated on crops of validation frames, for more error or a MACs speed-up, read on test frames."""
    costs, about = profile(runs[0].build(kind), repeats=0), {"rule": rule, **goal, "head": kind}
    changes, statics, speedups, shares = [], [], [], []
    for run in runs:
        validation, test = run.calibrating(kind), run.tests[kind]
        own = [(output[:, 0] - validation.targets).abs() for output in validation.each()][-1]
        asked = {"max_drop": goal["more"] * float(own.mean())} if "more" in goal else goal
        try:
            policy = offramp.calibrate(validation, costs, rule=rule, **asked)
        except GoalError as error:
            return {**about, "out_of_reach": str(error)}
        trace, static = replay(policy, test), errors(test)[-1]
        changes.append(np.abs(by_frame(trace.output[:, 0]) - by_frame(test.targets)) - static)
        statics.append(float(static.mean()))
        speedups.append(macs_speedup(costs, policy, trace))
        shares.append(np.bincount(trace.exit.numpy(), minlength=len(PLACES) + 1) / len(test))
    change = np.stack(changes)
    return {
        **about,
        "macs_speedup": over(speedups),
        "change": float(change.mean()),
        "interval": bootstrap_interval(change.mean(0)),
        "change_as_share": float(change.mean()) / statistics.fmean(statics),
        "exit_shares": np.mean(shares, axis=0).tolist(),
    }


def by_frame(numbers: torch.Tensor) -> np.ndarray:
    """Numbers of crops ``(crops,)`` as those of frames."""
    sums: np.ndarray = numbers.double().numpy().reshape(-1, GRID[0] * GRID[1]).sum(1)
    return sums


def errors(found: ExitTable) -> np.ndarray:
    """Absolute errors ``(exits, frames)``."""
    truth = by_frame(found.targets)
    return np.stack([np.abs(by_frame(output[:, 0]) - truth) for output in found.each()])
