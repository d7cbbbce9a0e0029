"""Sight, sound and both at each exit, and what it buys to ask for the sound only where sight is unsure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import offramp
from benchmarks._runs import answered_right, over, table, weights
from benchmarks.audiovisual.pairs import Digits, paired, silent
from benchmarks.audiovisual.plan import MAX_DROP, PLACES
from benchmarks.audiovisual.training import both, hearing, trained
from offramp.cost import profile
from offramp.data import Samples, loader
from offramp.policies import replay, spent
from offramp.policies.threshold import Threshold
from offramp.report import bootstrap_interval
from offramp.search.columns import columns_of
from offramp.search.frontier import frontier, rounded_up
from offramp.types import CostTable, ExitTable

SEES = tuple(range(0, 2 * len(PLACES), 2))
"""The exits that only see; each is followed by one at the same place that hears as well."""
HEARS = tuple(range(1, 2 * len(PLACES), 2))
_CURVE = 9


@dataclass(frozen=True)
class Seed:
    """What the networks of one seed say.

    Args:
        validation: all exits on the pairs that calibrate.
        test: all exits on the pairs that are tested on.
        silent: the same, without their clips.
        sound: whether the network for clips alone is right on each test pair.
    """

    validation: ExitTable
    test: ExitTable
    silent: ExitTable
    sound: np.ndarray


def result(folders: Sequence[Path], given: Digits) -> dict[str, Any]:
    """Everything, from finished runs, seed by seed."""
    seeds = [_read(folder, given, seed) for seed, folder in enumerate(folders)]
    costs = profile(both(0), repeats=0)
    ends = {"always": HEARS, "never": SEES, "where sight is unsure": (*SEES, *HEARS)}
    return {
        "exits": _exits(seeds, costs),
        "sound": _share([seed.sound for seed in seeds], costs.macs.side),
        "at the first exit": {
            "both against sight": _change([answered_right(s.test)[1] - answered_right(s.test)[0] for s in seeds]),
            "both against sound": _change([answered_right(s.test)[1] - s.sound for s in seeds]),
        },
        "policies": {name: _policy(seeds, costs, name, sorted(on)) for name, on in ends.items()},
        "curves": {name: _curve(seeds, costs, name, sorted(on)) for name, on in ends.items()},
    }


def _read(folder: Path, given: Digits, seed: int) -> Seed:
    model, pairs = trained(folder, seed), paired(given, seed).test
    ear = hearing(seed)
    ear.load_state_dict(weights(folder / "sound"))
    alone = Samples(partial(_clip, pairs), pairs.targets)
    said = offramp.tabulate(ear, loader(alone, ear.input, 256))
    without = offramp.tabulate(model, loader(silent(pairs), model.input, 256))
    return Seed(table(folder / "both", "validation"), table(folder / "both", "test"), without, answered_right(said)[-1])


def _clip(samples: Samples, i: int) -> Any:
    return samples.read(i).clip


def _exits(seeds: Sequence[Seed], costs: CostTable) -> list[dict[str, Any]]:
    chain = costs.in_chain()
    heard, unheard = ([answered_right(getattr(s, part)) for s in seeds] for part in ("test", "silent"))
    rows = []
    for k in range(len(costs.after) + 1):
        hears = k in costs.side
        row = {"after": costs.chain.after[k], "reads": "both" if hears else "sight"}
        row |= _share([right[k] for right in heard], chain.alone(k))
        rows.append({**row, "without the clip": _share([right[k] for right in unheard])} if hears else row)
    return rows


def _share(right: Sequence[np.ndarray], macs: float | None = None) -> dict[str, Any]:
    return {
        "accuracy": over([float(r.mean()) for r in right]),
        "interval": bootstrap_interval(np.concatenate(right)),
        **({} if macs is None else {"macs": macs}),
    }


def _change(parts: Sequence[np.ndarray]) -> dict[str, Any]:
    return {**over([float(part.mean()) for part in parts]), "interval": bootstrap_interval(np.concatenate(parts))}


def _thresholds(found: ExitTable, costs: CostTable, name: str, on: Sequence[int]) -> list[Threshold]:
    """Of one way to ask for the sound, from what costs least to what costs most, on validation pairs."""
    if name == "never":  # whoever is not sure before leaves at the last exit that only sees
        rising = np.linspace(0.1, 1.0, 4 * _CURVE)
        return [_threshold({**dict.fromkeys(on[:-1], float(t)), on[-1]: 0.0}, costs) for t in rising]
    points = frontier(columns_of(found, costs), heads=on)
    return [_threshold({k: t for k, t in enumerate(p.thresholds) if t is not None}, costs) for p in points]


def _threshold(values: dict[int, float], costs: CostTable) -> Threshold:
    return Threshold(tuple(rounded_up(values[k]) if k in values else None for k in range(len(costs.after))))


def _policy(seeds: Sequence[Seed], costs: CostTable, name: str, on: Sequence[int]) -> dict[str, Any]:
    """The cheapest within ``MAX_DROP`` on validation pairs of the best that this way has, read on test pairs once."""
    traces, changes = [], []
    for seed in seeds:
        best = on[-1] if name == "never" else len(costs.after)
        wanted = float(answered_right(seed.validation)[best].mean()) - MAX_DROP
        kept = [
            policy
            for policy in _thresholds(seed.validation, costs, name, on)
            if _reading(policy, seed.validation, costs)["accuracy"] >= wanted
        ]
        policy = min(kept, key=lambda p: _reading(p, seed.validation, costs)["macs"])
        traces.append(_reading(policy, seed.test, costs))
        changes.append(traces[-1].pop("right") - answered_right(seed.test)[-1])
    static = costs.macs.static
    return {
        "against": "the last exit that sees" if name == "never" else "the final exit",
        **{key: over([trace[key] for trace in traces]) for key in ("accuracy", "macs", "heard")},
        "macs_speedup": static / statistics.fmean(trace["macs"] for trace in traces),
        "against the final exit": _change(changes),
        "exit_shares": np.mean([trace["shares"] for trace in traces], axis=0).tolist(),
    }


def _reading(policy: Threshold, found: ExitTable, costs: CostTable) -> dict[str, Any]:
    trace, exits = replay(policy, found), len(costs.after) + 1
    right = (trace.output.argmax(1) == found.targets).double().numpy()
    first = costs.chain.heard(policy.heads)
    return {
        "accuracy": float(right.mean()),
        "right": right,
        "macs": float(spent(policy, trace, costs.in_chain()).mean()),
        "heard": 0.0 if first is None else float((trace.exit >= first).double().mean()),
        "shares": (torch.bincount(trace.exit, minlength=exits) / len(found)).numpy(),
    }


def _curve(seeds: Sequence[Seed], costs: CostTable, name: str, on: Sequence[int]) -> list[list[dict[str, float]]]:
    """For each seed points from cheap to dear: thresholds of validation pairs, read on test pairs."""
    curves = []
    for seed in seeds:
        policies = _thresholds(seed.validation, costs, name, on)
        some = [policies[i] for i in np.unique(np.linspace(0, len(policies) - 1, _CURVE).round().astype(int))]
        found = [_reading(policy, seed.test, costs) for policy in some]
        curves.append([{key: row[key] for key in ("macs", "accuracy", "heard")} for row in found])
    return curves
