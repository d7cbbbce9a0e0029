"""Errors and costs of every exit, what policies make of them, and who needs no network."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import offramp
from benchmarks._runs import over, table
from benchmarks.counting.plan import EXITS, LEVELS, MORE, OFF, RISK, RULES
from benchmarks.counting.training import build, trained
from offramp.bench.measure import macs_speedup
from offramp.cost import profile
from offramp.data import Splits, loader
from offramp.errors import GoalError
from offramp.inputs import Marked
from offramp.model import EarlyExitModel
from offramp.policies import replay
from offramp.report import bootstrap_interval
from offramp.tasks.density import game
from offramp.types import CostTable, ExitTable


def result(folders: Sequence[Path], splits: Splits) -> dict[str, Any]:
    """Of one split, all seeds.

    Args:
        folders: of finished runs, seed by seed.
        splits: its frames.
    """
    costs = profile(build(0), repeats=0)
    tests = [table(folder, "test") for folder in folders]
    errors = np.stack([_errors(t) for t in tests])  # seeds, exits, frames
    games = np.stack([_games(trained(folder, seed), splits) for seed, folder in enumerate(folders)])
    truth, chain = splits.test.targets, costs.in_chain()
    exits = []
    for k, after in enumerate([*EXITS, "final"]):
        own = errors[:, k]
        exits.append(
            {
                "after": after,
                "macs": chain.alone(k) if k < len(EXITS) else costs.macs.static,
                "mae": over(own.mean(1)),
                "interval": bootstrap_interval(own.mean(0)),
                "rmse": over(np.sqrt((own**2).mean(1))),
                "game": {str(level): over(games[:, k, i]) for i, level in enumerate(LEVELS)},
            }
        )
    mean = float(splits.train.targets.mean())
    trivial = np.abs(truth - mean)
    return {
        "frames": {name: len(part) for name, part in splits.parts.items()},
        "trivial": {"says": mean, "mae": float(trivial.mean()), "rmse": float(np.sqrt((trivial**2).mean()))},
        "exits": exits,
        "policies": [_policy(rule, more, folders, tests, costs) for rule in RULES for more in MORE],
        "promise": [_promise(folder, test, costs) for folder, test in zip(folders, tests, strict=True)],
    }


def _errors(found: ExitTable) -> np.ndarray:
    """Absolute errors ``(exits, frames)``."""
    return np.stack([(output[:, 0] - found.targets).abs().double().numpy() for output in found.each()])


def _games(model: EarlyExitModel, splits: Splits) -> np.ndarray:
    """The mean of GAME of each exit at each level, ``(exits, levels)``."""
    samples, reads = splits.test, model.input
    sums = np.zeros((len(model.after), len(LEVELS)))
    for first, (x, _) in enumerate(loader(samples, reads, 16)):
        frames = [samples.read(16 * first + i) for i in range(len(x))]
        target = torch.stack([_map(frame, reads) for frame in frames])
        with torch.inference_mode():
            for k, output in enumerate(model(x)):
                sums[k] += [float(game(output, target, level).sum()) for level in LEVELS]
    return sums / len(samples)


def _map(frame: Marked, reads: Any) -> torch.Tensor:
    """Where the heads of a whole frame are."""
    assert frame.points is not None
    assert frame.weights is not None
    _, height, width = reads.input_size
    scale = np.array([width / frame.image.width, height / frame.image.height], np.float32)
    inside = frame.points.clip(0, np.array([frame.image.width - 1, frame.image.height - 1]))
    return reads.map_of(torch.from_numpy(inside * scale), torch.from_numpy(frame.weights))


def _policy(
    rule: str, more: float, folders: Sequence[Path], tests: Sequence[ExitTable], costs: CostTable
) -> dict[str, Any]:
    """A rule calibrated for so much more error on validation frames, read on test frames."""
    changes, speedups, statics, shares = [], [], [], []
    for folder, test in zip(folders, tests, strict=True):
        validation = table(folder, "validation")
        drop = more * float(_errors(validation)[-1].mean())
        try:
            policy = offramp.calibrate(validation, costs, max_drop=drop, rule=rule)
        except GoalError as error:
            return {"rule": rule, "more": more, "out_of_reach": str(error)}
        trace = replay(policy, test)
        static = _errors(test)[-1]
        changes.append((trace.output[:, 0] - test.targets).abs().double().numpy() - static)
        statics.append(float(static.mean()))
        speedups.append(macs_speedup(costs, policy, trace))
        shares.append(np.bincount(trace.exit.numpy(), minlength=len(EXITS) + 1) / len(test))
    change = np.stack(changes)
    return {
        "rule": rule,
        "more": more,
        "macs_speedup": over(speedups),
        "change": float(change.mean()),
        "interval": bootstrap_interval(change.mean(0)),
        "change_as_share": float(change.mean()) / statistics.fmean(statics),
        "exit_shares": np.mean(shares, axis=0).tolist(),
    }


def _promise(folder: Path, test: ExitTable, costs: CostTable) -> dict[str, Any]:
    """Off by no more than so many heads: what is promised on validation frames, and what becomes of it."""
    loss = f"off-by-{OFF}"
    own = float((_errors(test)[-1] > OFF).mean())
    try:
        policy = offramp.calibrate(table(folder, "validation"), costs, risk=RISK, loss=loss)
    except GoalError as error:
        return {"loss": loss, "risk": RISK, "static": own, "out_of_reach": str(error)}
    trace = replay(policy, test)
    found = float(((trace.output[:, 0] - test.targets).abs() > OFF).double().mean())
    return {
        "loss": loss,
        "risk": RISK,
        "static": own,
        "found": found,
        "macs_speedup": macs_speedup(costs, policy, trace),
    }
