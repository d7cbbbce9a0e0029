"""The ways compared: every exit's accuracy, what became of the final exit, and what a budget buys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._runs import table
from benchmarks.compare.rows import mean_and_deviation
from benchmarks.pretrained.plan import base, ways
from benchmarks.tails.plan import Field
from benchmarks.tails.readings import Reading, Tables
from benchmarks.tails.result import paired, row
from benchmarks.tails.training import build
from offramp.cost import profile

SPEEDUPS = (1.5, 2.0, 2.5)
DROPS = (0.0, 0.005)


def result(place: Field, work: Path, seeds: int, classes: int) -> dict[str, Any]:
    """Everything, from the tables of finished runs.

    Args:
        place: where the comparison takes place.
        work: where runs are kept.
        seeds: how many there are.
        classes: how many there are.
    """
    start = base(place)
    costs = profile(build(start.seeded(0), place, None, classes), repeats=0)
    static = [Tables(*_read(work, start.name, seed), costs).alone(0) for seed in range(seeds)]
    rows: dict[str, Any] = {"fine-tuned": {**row(static), "validation": _on_validation(work, start.name, seeds)}}
    for name, run in ways(place).items():
        costs = profile(build(run.seeded(0), place, None, classes), repeats=0)
        parts = [Tables(*_read(work, run.name, seed), costs) for seed in range(seeds)]
        exits = [[part.alone(k) for part in parts] for k in range(len(run.exits) + 1)]
        found = {f"speed-up {s}": [part.calibrated(target_speedup=s) for part in parts] for s in SPEEDUPS}
        found |= {f"drop {d}": [part.calibrated(max_drop=d) for part in parts] for d in DROPS}
        rows[name] = {
            "exits": [row(readings)["accuracy"] for readings in exits],
            "validation": _on_validation(work, run.name, seeds),
            "final_against_fine_tuned": paired(exits[-1], static),
            "policies": {goal: _policy(readings, static) for goal, readings in found.items()},
        }
    return rows


def _policy(readings: Sequence[Reading | None], static: Sequence[Reading]) -> dict[str, Any] | None:
    """None where a seed could not reach the goal."""
    known = [reading for reading in readings if reading is not None]
    return None if len(known) < len(readings) else {**row(known), "against_fine_tuned": paired(known, static)}


def _on_validation(work: Path, run: str, seeds: int) -> list[dict[str, float] | None]:
    """The accuracy of each exit on validation images, which is what one way is chosen by."""
    tables = [table(work / f"{run}-{seed}", "validation") for seed in range(seeds)]
    right = [[float((output.argmax(1) == t.targets).double().mean()) for output in t.each()] for t in tables]
    return [mean_and_deviation(column) for column in zip(*right, strict=True)]


def _read(work: Path, run: str, seed: int) -> tuple[Any, Any]:
    return table(work / f"{run}-{seed}", "validation"), table(work / f"{run}-{seed}", "test")
