"""Accuracy and cost of every exit, what copycat adds, and what the calibrated network saves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import offramp
from benchmarks._runs import answered_right, over
from benchmarks.audio.plan import EQUAL, MAX_DROP, TAUGHT, Heads, Network
from benchmarks.audio.training import Work
from offramp.bench.measure import macs_speedup
from offramp.cost import profile
from offramp.policies import replay
from offramp.report import bootstrap_interval


def result(work: Work, networks: Sequence[Network], heads: Sequence[Heads]) -> dict[str, Any]:
    """Everything but times, from the tables of finished runs."""
    static = [run for run in networks if not run.exits]
    ways = dict.fromkeys((run.kind, run.way) for run in heads)
    right = {way: _right_of(work, [run for run in heads if (run.kind, run.way) == way]) for way in ways}
    others = [kind for kind, way in ways if way == "all" and kind != "sl-vit"]
    return {
        "static": _whole(work, static),
        "heads": [_row(work, heads, *way, found) for way, found in right.items()],
        "sl-vit against": {kind: _compared(right["sl-vit", "all"], right[kind, "all"]) for kind in others},
        "copycat against few": {kind: _compared(right[kind, "copycat"], right[kind, "few"]) for kind in TAUGHT},
        "product": _product(work, [run for run in networks if run.exits], static),
    }


def _right_of(work: Work, runs: Sequence[Network | Heads]) -> np.ndarray:
    """Which share of the seeds was right at each exit on each test clip, all folds joined: ``(exits, clips)``."""
    networks = [run if isinstance(run, Network) else run.network for run in runs]
    folds = list(dict.fromkeys(network.fold for network in networks))
    parts = []
    for fold in folds:
        own = [run for run, network in zip(runs, networks, strict=True) if network.fold == fold]
        parts.append(np.stack([answered_right(work.table(run, "test")) for run in own]).mean(0))
    return np.concatenate(parts, axis=1)


def _compared(ours: np.ndarray, theirs: np.ndarray) -> list[dict[str, Any]]:
    """The difference in accuracy on the same clips, at each early exit."""
    return [
        {"change": float(difference.mean()), "interval": bootstrap_interval(difference)}
        for difference in (ours - theirs)[:-1]
    ]


def _whole(work: Work, runs: Sequence[Network]) -> dict[str, Any]:
    """The networks alone; ``each`` has one number a network, seed by seed, fold by fold."""
    right = _right_of(work, runs)[-1]
    macs = profile(work.network(runs[0]), repeats=0).macs.static
    accuracy = over([float(answered_right(work.table(run, "test"))[-1].mean()) for run in runs])
    return {"accuracy": accuracy, "interval": bootstrap_interval(right), "clips": len(right), "macs": macs}


def _row(work: Work, heads: Sequence[Heads], kind: str, way: str, right: np.ndarray) -> dict[str, Any]:
    own = [run for run in heads if (run.kind, run.way) == (kind, way)]
    model = work.heads(own[0])
    costs = profile(model, repeats=0)
    rows = [answered_right(work.table(run, "test")).mean(1) for run in own]
    exits = [
        {
            "after": place,
            "macs": costs.in_chain().alone(k),
            "head_macs": costs.macs.heads[k],
            "parameters": sum(p.numel() for p in model.heads[k].parameters()),
            "accuracy": over([float(row[k]) for row in rows]),
            "interval": bootstrap_interval(right[k]),
        }
        for k, place in enumerate(work.place.places)
    ]
    options = {"filters": work.filters} if kind == EQUAL else {}
    return {"head": kind, "way": way, "options": options, "exits": exits}


def _product(work: Work, runs: Sequence[Network], static: Sequence[Network]) -> dict[str, Any]:
    """Networks that learned with their exits, calibrated on validation, read on test once."""
    changes, speedups, against, shares = [], [], [], []
    for run, alone in zip(runs, static, strict=True):
        model = work.network(run)
        costs = profile(model, repeats=0)
        policy = offramp.calibrate(work.table(run, "validation"), costs, max_drop=MAX_DROP)
        test = work.table(run, "test")
        trace = replay(policy, test)
        right = (trace.output.argmax(1) == test.targets).double().numpy()
        changes.append(right - answered_right(test)[-1])
        against.append(right - answered_right(work.table(alone, "test"))[-1])
        speedups.append(macs_speedup(costs, policy, trace))
        shares.append(np.bincount(trace.exit.numpy(), minlength=len(model.after)) / len(test))
    right = _right_of(work, runs)
    return {
        "max_drop": MAX_DROP,
        "exits": [{"accuracy": float(row.mean()), "interval": bootstrap_interval(row)} for row in right],
        "change": _change(changes),
        "against_static": _change(against),
        "macs_speedup": over(speedups),
        "exit_shares": np.mean(shares, axis=0).tolist(),
    }


def _change(parts: Sequence[np.ndarray]) -> dict[str, Any]:
    together = np.concatenate(parts)
    each = over([float(part.mean()) for part in parts])
    return {**each, "interval": bootstrap_interval(together)}
