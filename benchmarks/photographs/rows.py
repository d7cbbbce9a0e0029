"""Accuracy on test images, and time in turn with the network alone, of every file in every runtime and precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import offramp
from benchmarks import COMMIT
from benchmarks.photographs.files import Files
from benchmarks.photographs.kept import kept
from benchmarks.photographs.plan import alone, leaving
from benchmarks.tails.plan import Run
from offramp.bench import macs_speedup, measure, profile_file
from offramp.bench.rows import on_blank, spaced
from offramp.data import Samples, loader
from offramp.engine import open_runtime, tabulate_file
from offramp.engine.runtime import FileRuntime
from offramp.model import EarlyExitModel
from offramp.policies import policy_to_json, replay
from offramp.report import bootstrap_interval
from offramp.versions import host, versions

PLACES = (
    "openvino:fp32",
    "openvino:bf16",
    "openvino:int8",
    "openvino:int8-bf16",
    "onnxruntime:fp32",
    "onnxruntime:int8",
)
REFERENCE = "openvino:bf16"
"""What the network alone is timed in; OpenVINO computes in fp32 instead where the processor has no bf16."""
DROPS = (0.005, 0.0)
"""What may be lost on validation images: half a point, or nothing."""
_BATCHES = (1, 64)
_TIMED_AT = 16
"""The largest batch in which parts of a file are timed; an image of a larger one is taken to cost the same."""
_REPEATS = 10


def rows(
    files: Files, keep: Path, places: Sequence[str], methods: Sequence[str], threads: int, rounds: int, images: int
) -> dict[str, Any]:
    """Rows for each network alone and each method, in each runtime and precision.

    A file has a policy for each batch size and for each share that may be lost, chosen by the seconds that its parts
    take there; what is timed is a file with the exits of that policy alone. Rows that are kept of the same machine,
    code, data and setting are not made again.

    Args:
        files: of one field.
        keep: a folder for its finished rows.
        places: as ``runtime:precision``.
        methods: which of them, the whole network among them in any case.
        threads: of every runtime.
        rounds: how often everything is timed.
        images: how many in a round.
    """
    first = next(iter(alone(files.place)))
    networks, early = (
        {name: run for name, run in known(files.place).items() if name in (first, *methods)}
        for known in (alone, leaving)
    )
    setting = {"reference": REFERENCE, "threads": threads, "rounds": rounds, "timed_images": images}
    timing = Timing(files, threads, rounds, images)
    stamp = {**setting, "data": files.splits.record, "host": host(), "versions": versions(), "commit": COMMIT}
    found: list[dict[str, Any]] = []
    for name in places:
        about = dict(zip(("runtime", "precision"), name.split(":"), strict=True))
        for method, run in (networks | early).items():
            print(f"{name}: {method}", flush=True)
            make = timing.network if method in networks else timing.early
            made = kept(keep / f"{name}-{method}.json", stamp, partial(make, name, run))
            found += [{**about, "method": method, **row} for row in made]
    return {**setting, "rows": found}


class Timing:
    """Makes the rows of one network or method in one place.

    Args:
        files: as in ``rows``.
        threads: as in ``rows``.
        rounds: as in ``rows``.
        images: as in ``rows``.
    """

    def __init__(self, files: Files, threads: int, rounds: int, images: int) -> None:
        self.files, self.threads, self.rounds = files, threads, rounds
        whole = next(iter(alone(files.place).values()))
        test, reads = spaced(files.splits.test, images), files.model(whole).input
        self.timed = {n: [x for x, _ in loader(test, reads, n)][: images // n] for n in _BATCHES}
        self.reference, _ = opened(REFERENCE, threads).open_static(files.static(whole, False))
        self.right = right(self.reference, files.model(whole), files.splits.test)

    def network(self, place: str, run: Run) -> list[dict[str, Any]]:
        """Of a network alone: one row."""
        network, shape = opened(place, self.threads).open_static(self.files.static(run, "int8" in place))
        own = _accuracy(right(network, self.files.model(run), self.files.splits.test), self.right)
        session = as_session(on_blank(network, shape))
        return [{"batches": {n: own | self._measured(session, n) for n in self.timed}}]

    def early(self, place: str, run: Run) -> list[dict[str, Any]]:
        """Of a method: one row for each share that may be lost."""
        runtime, int8, files = opened(place, self.threads), "int8" in place, self.files
        session = runtime.open(files.dynamic(run, int8))
        validation, tested = (
            tabulate_file(session, runtime, loader(files.splits.of(split), session.file.input, 100))
            for split in ("validation", "test")
        )
        last = _accuracy(_hits(tested.outputs[-1], tested.targets), self.right)
        spent = {n: profile_file(session, runtime, min(n, _TIMED_AT), _REPEATS) for n in self.timed}

        def batch(n: int, drop: float) -> dict[str, Any]:
            policy = offramp.calibrate(validation, spent[n], max_drop=drop, unit="seconds")
            trace = replay(policy, tested)
            return {
                **_accuracy(_hits(trace.output, tested.targets), self.right),
                "policy": policy_to_json(policy),
                "macs_speedup": macs_speedup(spent[n], policy, trace),
                "exit_shares": (torch.bincount(trace.exit, minlength=len(tested.after)) / len(tested)).tolist(),
                **self._measured(runtime.open(files.fixed(run, int8, policy)), n, policy),
            }

        return [
            {"max_drop": drop, "last_exit": last, "batches": {n: batch(n, drop) for n in self.timed}} for drop in DROPS
        ]

    def _measured(self, session: Any, n: int, policy: Any = None) -> dict[str, Any]:
        return measure(self.reference, session, [(x, policy) for x in self.timed[n]], self.rounds).row()


def as_session(call: Callable[[int], Tensor]) -> Any:
    """A network alone as a session, to be timed like a model that leaves early."""

    def session(x: Tensor, policy: Any = None) -> offramp.Trace:
        nothing = torch.zeros(len(x), dtype=torch.long)
        return offramp.Trace(call(len(x)), nothing, torch.zeros(len(x)), nothing, None)

    return session


def opened(name: str, threads: int) -> FileRuntime:
    """The runtime of a place."""
    runtime, precision = name.split(":")
    found = open_runtime(runtime, "bf16" if precision.endswith("bf16") else "fp32", threads)
    assert isinstance(found, FileRuntime)
    return found


def right(network: Callable[[Tensor], Tensor], model: EarlyExitModel, samples: Samples) -> Tensor:
    """Which samples a network answers right, 1 or 0, where a model says how they are prepared."""
    return torch.cat([_hits(network(x), y) for x, y in loader(samples, model.input, 100)])


def _hits(output: Tensor, targets: Tensor) -> Tensor:
    return (output.argmax(1) == targets).double()


def _accuracy(own: Tensor, reference: Tensor) -> dict[str, Any]:
    change = own - reference
    return {
        "accuracy": float(own.mean()),
        "interval": bootstrap_interval(own.numpy()),
        "against_reference": {"change": float(change.mean()), "interval": bootstrap_interval(change.numpy())},
    }
