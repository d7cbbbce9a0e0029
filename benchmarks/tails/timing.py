"""What the chosen policies take in the runtimes that people deploy, timed in turn with the backbone alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks._runs import has_weights
from benchmarks.tails.files import MERGED, export_all
from benchmarks.tails.merging import Merging, macs
from benchmarks.tails.methods import METHODS, Readings
from benchmarks.tails.plan import runs
from benchmarks.tails.readings import Reading
from benchmarks.tails.result import row
from benchmarks.tails.training import trained
from offramp.bench.rows import Work, spaced, timed_rows
from offramp.data import Splits, loader
from offramp.engine import open_runtime
from offramp.engine.runtime import Runtime
from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.types import CostTable

TIMED = (
    "cascade of paths",
    "cascade of two paths, linked",
    "routed: cnn, labels",
    "routed: exit, labels",
    "routed, then cascade: cnn, labels",
    "exits only",
    "tails and exits",
)
BUDGET = 2.5
"""The MACs speed-up whose policies are timed."""
RUNTIMES = ("onnxruntime:fp32", "openvino:fp32", "openvino:bf16")
_BATCHES = (1, 64)


def times(
    found: Readings,
    splits: Splits,
    work: Path,
    merging: Sequence[dict[str, Any]],
    threads: int,
    rounds: int,
    images: int,
) -> list[dict[str, Any]]:
    """For each method at a budget, each runtime and batch: accuracy and measured speed-up, of the first seed.

    The backbone at smaller images and with merged tokens (``merging``, the rows of ``merged``) is timed in the same
    turns as the first method. bf16 stands in for fp32 in OpenVINO where the processor has it. What was trained
    elsewhere may have come as tables alone: methods whose weights are not there are left out.
    """
    place = found.place
    accuracies = {f"{side} px": found.of(f"static{side}", 0).alone(0).accuracy for side in place.sides}
    accuracies |= {f"merging {row['r']}": row["first_seed"] for row in merging}
    chosen = {
        name: METHODS[name].choose(found.part(METHODS[name], 0), BUDGET)
        for name in TIMED
        if has_weights(work / f"{METHODS[name].run}-0")
    }
    policies = {k: reading.policy for k, reading in chosen.items() if reading is not None and reading.policy}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        files, static = export_all(place, work, len(splits.classes or ()), policies, Path(folder))
        for runtime in _runtimes(threads):
            (_, (whole, _)), *others = [(name, runtime.open_static(file)) for name, file in static.items()]
            rivals = dict(others)
            for name, file in files.items():
                print(f"{runtime.name}, {runtime.precision}: {name}", flush=True)
                session = runtime.open(file)
                reads, policy = session.file.input, session.file.policy

                def work_of(batch: int, reads: Any = reads, policy: Any = policy) -> Iterable[Work]:
                    return ((x, policy) for x, _ in loader(spaced(splits.test, images), reads, batch))

                costs = CostTable.from_json(session.file.about["costs"])
                about = {"runtime": runtime.name, "precision": runtime.precision, "threads": runtime.threads}
                own = timed_rows(whole, session, costs, work_of, _BATCHES, images, rounds, about, True, rivals)
                right = {rival: accuracies[rival] for rival in rivals}
                rows += [{"method": name, "accuracy": chosen[name].accuracy, "rivals": right, **row} for row in own]
                rivals = {}
    return rows


def seconds_of(row: dict[str, Any]) -> dict[str, Any]:
    """A row without its multiply-adds, which are those that the versions counted which timed it."""
    return {name: value for name, value in row.items() if name not in ("macs_speedup", "efficiency")}


def merged(found: Readings, splits: Splits, work: Path) -> list[dict[str, Any]]:
    """Accuracy and MACs of the backbone with merged tokens, untrained; mean over seeds whose weights are there."""
    place = found.place
    run = next(run for run in runs(place) if run.name == f"static{place.sides[-1]}")
    rows: dict[int, list[Reading]] = {r: [] for r in MERGED}
    for seed in (seed for seed in found.seeds if has_weights(work / f"{run.name}-{seed}")):
        model = trained(run.seeded(seed), place, work, len(splits.classes or ()))
        whole = found.of(run.name, seed).costs.macs.static
        for r, readings in rows.items():
            network = Merging(model.backbone.model, r).eval()
            readings.append(_read(network, model, splits, whole))
    return [
        {"r": r, **row(readings), "first_seed": readings[0].accuracy, "seeds": len(readings)}
        for r, readings in rows.items()
    ]


def _read(network: Merging, model: EarlyExitModel, splits: Splits, whole: float) -> Reading:
    right, spent = [], macs(network, model.input.example(1))
    with torch.inference_mode():
        for x, targets in loader(splits.test, model.input, 64):
            right.append(model.task.quality(network(x), targets).double())
    together = torch.cat(right)
    return Reading(together, torch.full_like(together, spent), whole)


def _runtimes(threads: int) -> list[Runtime]:
    """Those that this machine has; OpenVINO in bf16 where it can."""
    found: dict[str, Runtime] = {}
    for name in RUNTIMES:
        try:
            found[name.split(":")[0]] = open_runtime(*name.split(":"), threads)
        except UsageError as error:
            print(f"{name} is left out: {error}", flush=True)
    return list(found.values())
