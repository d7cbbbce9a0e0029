"""What the chosen policies take in the runtimes that people deploy, timed in turn with the backbone alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.tails.merging import Merging, macs
from benchmarks.tails.methods import METHODS, Readings
from benchmarks.tails.plan import runs
from benchmarks.tails.readings import Reading
from benchmarks.tails.result import row
from benchmarks.tails.training import trained
from offramp.bench import bench_policy
from offramp.data import Splits, loader
from offramp.engine import open_runtime
from offramp.engine.runtime import Runtime
from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.policies import Policy, Routed
from offramp.policies.threshold import Threshold
from offramp.types import Network

TIMED = (
    "cascade of paths",
    "cascade of two paths, linked",
    "routed: cnn, labels",
    "routed: exit, labels",
    "routed, then cascade: cnn, labels",
    "exits only",
    "tails and exits",
)
RUNTIMES = ("onnxruntime:fp32", "openvino:fp32", "openvino:bf16")
MERGED = (8, 13)
"""Tokens that each block merges."""
_BATCHES = (1, 64)


def times(found: Readings, splits: Splits, work: Path, threads: int, rounds: int, images: int) -> list[dict[str, Any]]:
    """For each method at a budget, each runtime and batch: MACs speed-up and measured speed-up, of the first seed.

    The backbone at smaller images and with merged tokens is timed in the same turns as the first method.
    """
    place, classes = found.place, len(splits.classes or ())
    named = {run.name: run.seeded(0) for run in runs(place)}
    models = {name: trained(named[name], place, work, classes) for name in {METHODS[name].run for name in TIMED}}
    rows: list[dict[str, Any]] = []
    for runtime in _runtimes(threads):
        others = _others(runtime, {s: trained(named[f"static{s}"], place, work, classes) for s in place.sides})
        for name in TIMED:
            method = METHODS[name]
            model = models[method.run]
            reading = method.choose(found.part(method, 0), 2.5)
            if reading is None or reading.policy is None:
                continue
            policy = widened(reading.policy, method.keep(model.chain), len(model.exits))
            print(f"{runtime.name}, {runtime.precision}: {name}", flush=True)
            own = bench_policy(model, policy, splits.test, _BATCHES, images, rounds, True, runtime, others)
            rows += [{"method": name, **row} for row in own]
            others = {}
    return rows


def merged(found: Readings, splits: Splits, work: Path) -> list[dict[str, Any]]:
    """Accuracy and MACs of the backbone with merged tokens, mean over seeds, without training for it."""
    place = found.place
    run = next(run for run in runs(place) if run.name == f"static{place.sides[-1]}")
    rows: dict[int, list[Reading]] = {r: [] for r in MERGED}
    for seed in found.seeds:
        model = trained(run.seeded(seed), place, work, len(splits.classes or ()))
        whole = found.of(run.name, seed).costs.macs.static
        for r, readings in rows.items():
            network = Merging(model.backbone.model, r).eval()
            readings.append(_read(network, model, splits, whole))
    return [{"r": r, **row(readings)} for r, readings in rows.items()]


def widened(policy: Policy, keep: Sequence[int], exits: int) -> Policy:
    """The same policy for the model that has all exits, the others off."""
    inner = policy.inner if isinstance(policy, Routed) else policy
    assert isinstance(inner, Threshold)
    thresholds: list[float | None] = [None] * exits
    for k, threshold in zip(keep[:-1], inner.thresholds, strict=True):
        thresholds[k] = threshold
    whole = replace(inner, thresholds=tuple(thresholds))
    return Routed(whole, policy.bias) if isinstance(policy, Routed) else whole


def _read(network: Merging, model: EarlyExitModel, splits: Splits, whole: float) -> Reading:
    right, spent = [], macs(network, model.input.example(1))
    with torch.inference_mode():
        for x, targets in loader(splits.test, model.input, 64):
            right.append(model.task.quality(network(x), targets).double())
    together = torch.cat(right)
    return Reading(together, torch.full_like(together, spent), whole)


def _runtimes(threads: int) -> list[Runtime]:
    found = []
    for name in RUNTIMES:
        try:
            found.append(open_runtime(*name.split(":"), threads))
        except UsageError as error:
            print(f"{name} is left out: {error}", flush=True)
    return found


def _others(runtime: Runtime, alone: dict[int, EarlyExitModel]) -> dict[str, tuple[Network, tuple[int, ...]]]:
    """The rivals of the same run: the backbone at smaller images, and with merged tokens."""
    *smaller, largest = sorted(alone)
    found = {}
    for side in smaller:
        example = alone[side].input.example(2)
        found[f"{side} px"] = (runtime.static(alone[side].static, example), tuple(example.shape[1:]))
    example = alone[largest].input.example(2)
    for r in MERGED:
        network = Merging(alone[largest].backbone.model, r).eval()
        found[f"merging {r}"] = (runtime.static(network, example), tuple(example.shape[1:]))
    return found
