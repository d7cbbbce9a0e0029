"""What leaving early saves in a runtime: calibrated there, in the seconds that the parts take there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import offramp
from benchmarks._runs import answered_right
from benchmarks.deploy import Files
from offramp.bench import macs_speedup, measure
from offramp.bench.profile import profile_file
from offramp.bench.rows import spaced
from offramp.data import Splits, loader
from offramp.engine import open_runtime, tabulate_file
from offramp.engine.runtime import FileRuntime
from offramp.policies import policy_to_json, replay
from offramp.report import bootstrap_interval

_LARGEST, _REPEATS = 16, 10
"""The largest batch in which parts are timed, a sample of a larger one being taken to cost the same; and how often."""


def timed(
    name: str,
    files: Files,
    splits: Splits,
    max_drop: float,
    threads: int,
    batches: Sequence[int],
    clips: int,
    rounds: int,
) -> dict[str, Any]:
    """A policy for each batch size, and a file with its exits alone beside the network without exits.

    Args:
        name: the runtime, which computes in fp32.
        files: the network's.
        splits: the data.
        max_drop: the accuracy that may be lost on validation data.
        threads: of the runtime.
        batches: to time with.
        clips: in a round.
        rounds: how often everything is timed.
    """
    runtime = open_runtime(name, "fp32", threads)
    assert isinstance(runtime, FileRuntime)
    session = runtime.open(files.at("fp32", True))
    static, _ = runtime.open_static(files.at("fp32", False))
    validation, test = (
        tabulate_file(session, runtime, loader(splits.of(split), files.model.input, 128))
        for split in ("validation", "test")
    )
    whole = answered_right(test)[-1]

    def row(batch: int) -> dict[str, Any]:
        print(f"{name}, batch {batch}", flush=True)
        costs = profile_file(session, runtime, min(batch, _LARGEST), _REPEATS)
        policy = offramp.calibrate(validation, costs, max_drop=max_drop, unit="seconds")
        trace = replay(policy, test)
        change = (trace.output.argmax(1) == test.targets).double().numpy() - whole
        fixed = files.folder / f"{name}-{batch}.onnx"
        offramp.export_onnx(files.model, fixed, policy, fixed=True)
        samples = spaced(splits.test, max(clips, batch))
        work = [(x, policy) for x, _ in loader(samples, files.model.input, batch)]
        return {
            "policy": policy_to_json(policy),
            "change": {"mean": float(change.mean()), "interval": bootstrap_interval(change)},
            "macs_speedup": macs_speedup(costs, policy, trace),
            "exit_shares": (torch.bincount(trace.exit, minlength=len(test.after)) / len(test)).tolist(),
            **measure(static, runtime.open(fixed), work, rounds).row(),
        }

    return {
        "runtime": name,
        "precision": "fp32",
        "threads": threads,
        "static": {"accuracy": float(whole.mean()), "interval": bootstrap_interval(whole)},
        "batches": {str(batch): row(batch) for batch in batches},
    }
