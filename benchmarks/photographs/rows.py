"""Accuracy on test images, and time in turn with the network alone, of every file in every runtime and precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

import offramp
from benchmarks.photographs.files import Files
from benchmarks.photographs.plan import alone, leaving
from benchmarks.tails.plan import Run
from offramp.bench import macs_speedup, measure, profile_file
from offramp.bench.rows import on_blank, spaced
from offramp.data import loader
from offramp.engine import open_runtime, tabulate_file
from offramp.engine.runtime import FileRuntime
from offramp.policies import policy_to_json, replay
from offramp.report import bootstrap_interval

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
    files: Files, places: Sequence[str], methods: Sequence[str], threads: int, rounds: int, images: int
) -> dict[str, Any]:
    """A row for each network alone and each method, in each runtime and precision.

    A file has a policy for each batch size and for each share that may be lost, chosen by the seconds that its parts
    take there; what is timed is a file with the exits of that policy alone.

    Args:
        files: of one field.
        places: as ``runtime:precision``.
        methods: which of them, the whole network among them in any case.
        threads: of every runtime.
        rounds: how often everything is timed.
        images: how many in a round.
    """
    (first, whole), *_ = alone(files.place).items()
    networks, early = (
        {name: run for name, run in known(files.place).items() if name in (first, *methods)}
        for known in (alone, leaving)
    )
    test, model = files.splits.test, files.model(whole)
    timed = {n: [x for x, _ in loader(spaced(test, images), model.input, n)][: images // n] for n in _BATCHES}
    reference, _ = _opened(REFERENCE, threads).open_static(files.static(whole, False))
    right = _right(reference, files, whole)
    found: list[dict[str, Any]] = []
    for name in places:
        runtime, int8 = _opened(name, threads), "int8" in name
        about = dict(zip(("runtime", "precision"), name.split(":"), strict=True))
        for method, run in networks.items():
            print(f"{name}: {method}", flush=True)
            network, shape = runtime.open_static(files.static(run, int8))
            alone_here, own = _as_session(on_blank(network, shape)), _right(network, files, run)
            batches = {
                n: _accuracy(own, right) | measure(reference, alone_here, [(x, None) for x in work], rounds).row()
                for n, work in timed.items()
            }
            found.append({**about, "method": method, "batches": batches})
        for method, run in early.items():
            print(f"{name}: {method}", flush=True)
            session = runtime.open(files.dynamic(run, int8))
            validation, tested = (
                tabulate_file(session, runtime, loader(files.splits.of(split), session.file.input, 100))
                for split in ("validation", "test")
            )
            last = _accuracy(_hits(tested.outputs[-1], tested.targets), right)
            spent = {n: profile_file(session, runtime, min(n, _TIMED_AT), _REPEATS) for n in timed}
            for drop in DROPS:
                batches = {}
                for n, work in timed.items():
                    policy = offramp.calibrate(validation, spent[n], max_drop=drop, unit="seconds")
                    trace = replay(policy, tested)
                    deployed = runtime.open(files.fixed(run, int8, policy))
                    batches[n] = {
                        **_accuracy(_hits(trace.output, tested.targets), right),
                        "policy": policy_to_json(policy),
                        "macs_speedup": macs_speedup(spent[n], policy, trace),
                        "exit_shares": (torch.bincount(trace.exit, minlength=len(tested.after)) / len(tested)).tolist(),
                        **measure(reference, deployed, [(x, policy) for x in work], rounds).row(),
                    }
                found.append({**about, "method": method, "max_drop": drop, "last_exit": last, "batches": batches})
    return {
        "reference": REFERENCE,
        "threads": threads,
        "rounds": rounds,
        "timed_images": images,
        "rows": found,
    }


def _as_session(call: Callable[[int], Tensor]) -> Any:
    """A network alone as a session, to be timed like a model that leaves early."""

    def session(x: Tensor, policy: Any = None) -> offramp.Trace:
        nothing = torch.zeros(len(x), dtype=torch.long)
        return offramp.Trace(call(len(x)), nothing, torch.zeros(len(x)), nothing, None)

    return session


def _opened(name: str, threads: int) -> FileRuntime:
    runtime, precision = name.split(":")
    opened = open_runtime(runtime, "bf16" if precision.endswith("bf16") else "fp32", threads)
    assert isinstance(opened, FileRuntime)
    return opened


def _right(network: Any, files: Files, run: Run) -> Tensor:
    reads: Iterable[tuple[Tensor, Tensor]] = loader(files.splits.test, files.model(run).input, 100)
    return torch.cat([_hits(network(x), y) for x, y in reads])


def _hits(output: Tensor, targets: Tensor) -> Tensor:
    return (output.argmax(1) == targets).double()


def _accuracy(own: Tensor, reference: Tensor) -> dict[str, Any]:
    change = own - reference
    return {
        "accuracy": float(own.mean()),
        "interval": bootstrap_interval(own.numpy()),
        "against_reference": {"change": float(change.mean()), "interval": bootstrap_interval(change.numpy())},
    }
