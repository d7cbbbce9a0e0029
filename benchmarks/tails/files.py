"""What is timed, as files: the chosen policies, and the static networks beside them; exported side by side."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks._runs import has_weights
from benchmarks.tails.merging import Merging
from benchmarks.tails.methods import METHODS
from benchmarks.tails.plan import Field, runs
from benchmarks.tails.training import trained
from offramp.export import export_onnx, export_static_onnx
from offramp.policies import Policy, Routed
from offramp.policies.threshold import Threshold

MERGED = (8, 13)
"""Tokens that each block merges."""


def export_all(
    place: Field, work: Path, classes: int, policies: dict[str, Policy], folder: Path
) -> tuple[dict[str, Path], dict[str, Path]]:
    """A file of each method with its policy, and one of each static network, the backbone at full size first.

    The backbone at smaller images is there where its weights are.

    Args:
        place: where the comparison takes place.
        work: where runs are kept; the first seed's are exported.
        classes: how many there are.
        policies: by the names of methods, for the exits that a method has.
        folder: for the files.
    """
    sides = [side for side in sorted(place.sides, reverse=True) if has_weights(work / f"static{side}-0")]
    static = [(f"{side} px", side, 0) for side in sides]
    static += [(f"merging {r}", place.sides[-1], r) for r in MERGED]
    workers = min(os.cpu_count() or 1, len(policies) + len(static))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, torch.set_num_threads, (1,)) as pool:
        own = {
            name: pool.submit(_method, name, policy, place, work, classes, folder / f"{i}.onnx")
            for i, (name, policy) in enumerate(policies.items())
        }
        others = {
            name: pool.submit(_static, side, r, place, work, classes, folder / f"static-{side}-{r}.onnx")
            for name, side, r in static
        }
        return {k: f.result() for k, f in own.items()}, {k: f.result() for k, f in others.items()}


def widened(policy: Policy, keep: Sequence[int], exits: int) -> Policy:
    """The same policy for the model that has all exits, the others off."""
    inner = policy.inner if isinstance(policy, Routed) else policy
    assert isinstance(inner, Threshold)
    thresholds: list[float | None] = [None] * exits
    for k, threshold in zip(keep[:-1], inner.thresholds, strict=True):
        thresholds[k] = threshold
    whole = replace(inner, thresholds=tuple(thresholds))
    return Routed(whole, policy.bias) if isinstance(policy, Routed) else whole


def _method(name: str, policy: Policy, place: Field, work: Path, classes: int, file: Path) -> Path:
    method = METHODS[name]
    run = next(run for run in runs(place) if run.name == method.run)
    model = trained(run.seeded(0), place, work, classes)
    export_onnx(model, file, widened(policy, method.keep(model.chain), len(model.exits)))
    return file


def _static(side: int, r: int, place: Field, work: Path, classes: int, file: Path) -> Path:
    run = next(run for run in runs(place) if run.name == f"static{side}")
    model = trained(run.seeded(0), place, work, classes)
    network = Merging(model.backbone.model, r).eval() if r else model.static
    export_static_onnx(network, model.input.example(2), file)
    return file
