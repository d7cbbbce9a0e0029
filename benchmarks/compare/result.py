"""The comparison as one JSON object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.compare.plan import BACKBONE, HEADS, METHODS, QUARTERS, SEVEN, Run
from benchmarks.compare.rows import at_speedup, heads_over_seeds, worth
from benchmarks.compare.training import SETTINGS, build, tables
from offramp.cost import profile
from offramp.report import bootstrap_interval


def result(plan: list[Run], work: Path, best: str, tick: Callable[[str], None]) -> dict[str, Any]:
    """Everything, from the tables of finished runs."""
    named = {run.name: run for run in plan}
    seeds = [run for run in plan if run.name.startswith("heads-")]
    per_seed = []
    for run in seeds:
        tick(run.name)
        per_seed.append(_each_head(run, work))
    heads = {head: heads_over_seeds([rows[head] for rows in per_seed]) for head in HEADS}
    methods: dict[str, dict[str, Any]] = {}
    for name in ("linear", "lgvit", best):
        methods[name] = {}
        for method in METHODS:
            tick(f"{name}, {method}")
            methods[name][method] = _whole(named[f"{name}-{method}"], work)
    tick("static alternatives")
    small = next(run for run in plan if run.name.startswith("static-"))
    return {
        "backbone": {"name": BACKBONE.name, "arguments": BACKBONE.args},
        "epochs": {"shared backbone": named["backbone"].settings["epochs"], "after it": seeds[0].settings["epochs"]},
        "settings": SETTINGS,
        "shared_backbone": _static(named["backbone"], work),
        "heads": {"after": QUARTERS, "rows": heads, "best_of_seven": max(SEVEN, key=lambda h: _area(heads[h]))},
        "methods": methods,
        "faithful_lgvit": _whole(named["faithful"], work),
        "recommended": _whole(named["recommended"], work),
        "static": _static(named["static"], work),
        "smaller_static": _smaller(small, named["recommended"], work),
    }


def _each_head(run: Run, work: Path) -> dict[str, dict[str, Any]]:
    """The heads of one pass, each kind as a model of its own."""
    model, (validation, test) = build(run, work), tables(run, work)
    costs = profile(model, repeats=0)
    places = {head: [k for k, name in enumerate(model.head_names) if name == head] for head in HEADS}
    return {head: worth(model, validation, test, costs, keep) for head, keep in places.items()}


def _whole(run: Run, work: Path) -> dict[str, Any]:
    model = build(run, work)
    return worth(model, *tables(run, work), profile(model, repeats=0))


def _static(run: Run, work: Path) -> dict[str, Any]:
    model, (_, test) = build(run, work), tables(run, work)
    right = model.task.quality(test.outputs[-1], test.targets).double()
    return {
        "blocks": model.depth,
        "parameters": sum(p.numel() for p in model.parameters()),
        "macs": profile(model, repeats=0).macs.static,
        "accuracy": float(right.mean()),
        "interval": bootstrap_interval(right.numpy()),
    }


def _smaller(run: Run, dynamic: Run, work: Path) -> dict[str, Any]:
    """A static network of fewer blocks, and the recommended dynamic model calibrated to the same mean MACs."""
    static = _static(run, work)
    model, (validation, test) = build(dynamic, work), tables(dynamic, work)
    costs = profile(model, repeats=0)
    return {**static, "dynamic": at_speedup(model, validation, test, costs, costs.macs.static / static["macs"])}


def _area(row: Mapping[str, Any]) -> float:
    return float(row["area"]["mean"]) if row["area"] else 0.0
