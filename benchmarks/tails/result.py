"""The comparison as one JSON object: means over seeds, and paired intervals over test samples."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.tails.methods import CASCADE, LINKED, METHODS, ROUTERS, SPEEDUPS, TWO, Method, Readings, every_exit
from benchmarks.tails.plan import OWN_HEADS, SIZES
from benchmarks.tails.readings import Reading, Tables, at_random, oracle
from offramp.report import bootstrap_interval


def result(found: Readings) -> dict[str, Any]:
    """Everything, from the tables of finished runs."""
    place, seeds = found.place, found.seeds
    own = [found.of("tails", seed) for seed in seeds]
    chain = own[0].test.chain
    tails = {f"{g * g} tokens": [t.alone(k) for t in own] for g, k in zip(place.grids, chain.ends, strict=True)}
    static = {f"{s} px": [found.of(f"static{s}", seed).alone(0) for seed in seeds] for s in place.sides}
    longest, backbone = tails[f"{place.grids[-1] ** 2} tokens"], static[f"{place.sides[-1]} px"]
    chosen = {
        name: {str(budget): _each(found, method, budget) for budget in SPEEDUPS} for name, method in METHODS.items()
    }
    return {
        "tails_alone": {name: row(readings) for name, readings in tails.items()},
        "smaller_images": {name: row(_of(backbone, readings)) for name, readings in static.items()},
        "oracle": row([oracle(found.part(METHODS[CASCADE], seed)) for seed in seeds]),
        "methods": {
            name: {
                budget: None
                if readings is None
                else {
                    **row(readings),
                    "against_longest_tail": paired(readings, longest),
                    "against_backbone": paired(readings, backbone),
                }
                for budget, readings in budgets.items()
            }
            for name, budgets in chosen.items()
        },
        "no_drop": {name: _no_drop(found, method) for name, method in METHODS.items() if method.cascades},
        "routing_against_cascade": _routing(found, chosen),
        "tails_and_exits_against_exits_only": _against(chosen, "tails and exits", "exits only"),
        "linked_against_not": _against(chosen, LINKED, TWO),
        "router_macs": {
            name: found.of(run, 0).costs.macs.router / found.of(run, 0).costs.macs.paths[0].static
            for name, run in ROUTERS.items()
        },
    }


def heads_compared(own: Tables, shared: Tables) -> dict[str, Any]:
    """Exits with a head for each path, and those that share one: accuracy of every exit, one seed."""
    return {
        OWN_HEADS: [own.alone(k).accuracy for k in range(len(own.test.outputs))],
        "shared": [shared.alone(k).accuracy for k in range(len(shared.test.outputs))],
        "after": shared.test.after,
        "paths": shared.test.paths,
    }


def larger_routers(found: Readings) -> dict[str, Any]:
    """Larger predictors alone against the cascade on identical weights, one seed."""
    cascade = found.part(METHODS[CASCADE], 0)
    rows: dict[str, Any] = {}
    for name in SIZES:
        part = found.part(Method(name, every_exit, True, False), 0)
        rows[name] = {"macs": part.costs.macs.router}
        for budget in SPEEDUPS:
            routed, rival = part.routed(budget), cascade.calibrated(target_speedup=budget)
            if routed is not None and rival is not None:
                rows[name][str(budget)] = {
                    "routed": row([routed]),
                    "change": paired([routed], [rival]),
                    "random_at_equal_shares": at_random(part, routed.entries),
                }
    return rows


def row(readings: Sequence[Reading]) -> dict[str, Any]:
    """Mean and deviation over seeds; the interval is that of the mean over seeds, drawn over samples."""
    accuracies, speedups = [r.accuracy for r in readings], [r.macs_speedup for r in readings]
    return {
        "accuracy": _spread(accuracies),
        "interval": bootstrap_interval(_right(readings)),
        "macs_speedup": _spread(speedups),
        "macs": statistics.fmean(float(r.macs.mean()) for r in readings),
        "exit_shares": np.mean([r.shares for r in readings], axis=0).tolist(),
        "entries": np.mean([r.entries for r in readings], axis=0).tolist(),
    }


def paired(ours: Sequence[Reading], theirs: Sequence[Reading]) -> dict[str, Any]:
    """The difference in accuracy on the same samples, mean over seeds, with its interval."""
    difference = _right(ours) - _right(theirs)
    return {"change": float(difference.mean()), "interval": bootstrap_interval(difference)}


def _each(found: Readings, method: Method, budget: float) -> list[Reading] | None:
    readings = [method.choose(found.part(method, seed), budget) for seed in found.seeds]
    known = [reading for reading in readings if reading is not None]
    return known if len(known) == len(readings) else None


def _no_drop(found: Readings, method: Method) -> dict[str, Any] | None:
    """The cheapest policy that loses nothing on validation data against its own longest path."""
    parts = [found.part(method, seed) for seed in found.seeds]
    readings = [part.calibrated(max_drop=0.0) for part in parts]
    known = [reading for reading in readings if reading is not None]
    last = [part.alone(len(part.test.outputs) - 1) for part in parts]
    if len(known) < len(readings):
        return None
    backbone = [found.of(f"static{found.place.sides[-1]}", seed).alone(0) for seed in found.seeds]
    return {**row(known), "against_own_last": paired(known, last), "against_backbone": paired(known, backbone)}


def _routing(found: Readings, chosen: dict[str, Any]) -> dict[str, Any]:
    """Each router alone against the cascade on identical weights, beside random routing with its shares."""
    rows: dict[str, Any] = {}
    for name in ROUTERS:
        budgets: dict[str, Any] = {}
        for budget in map(str, SPEEDUPS):
            routed, cascade = chosen[f"routed: {name}"][budget], chosen[CASCADE][budget]
            both = chosen[f"routed, then cascade: {name}"][budget]
            if routed is None or cascade is None or both is None:
                budgets[budget] = None
                continue
            parts = [found.part(METHODS[f"routed: {name}"], seed) for seed in found.seeds]
            budgets[budget] = {
                "routed": row(routed),
                "cascade": row(cascade),
                "change": paired(routed, cascade),
                "both_against_cascade": paired(both, cascade),
                "random_at_equal_shares": statistics.fmean(
                    at_random(part, reading.entries) for part, reading in zip(parts, routed, strict=True)
                ),
                "dear_share_routed": statistics.fmean(r.entries[-1] for r in routed),
                "dear_share_cascade": statistics.fmean(r.shares[-1] for r in cascade),
            }
        rows[name] = budgets
    return rows


def _against(chosen: dict[str, Any], ours: str, theirs: str) -> dict[str, Any]:
    return {
        budget: None if a is None or (b := chosen[theirs][budget]) is None else paired(a, b)
        for budget, a in chosen[ours].items()
    }


def _of(backbone: Sequence[Reading], readings: Sequence[Reading]) -> list[Reading]:
    """Readings whose speed-up is against the backbone at full size."""
    return [Reading(r.right, r.macs, b.static) for r, b in zip(readings, backbone, strict=True)]


def _right(readings: Sequence[Reading]) -> np.ndarray:
    mean: np.ndarray = torch.stack([reading.right for reading in readings]).mean(0).numpy()
    return mean


def _spread(values: Sequence[float]) -> dict[str, float]:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "deviation": deviation}
