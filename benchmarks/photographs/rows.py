"""Accuracy on test images, and time in turn with the network alone, of every file in every runtime and precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

import offramp
from benchmarks.photographs.files import METHODS, Files
from offramp.bench import macs_speedup, measure
from offramp.bench.rows import spaced
from offramp.cost import profile
from offramp.data import loader
from offramp.engine import open_runtime, tabulate_file
from offramp.engine.runtime import FileRuntime
from offramp.errors import UsageError
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
REFERENCES = ("openvino:bf16", "openvino:fp32")
"""What the network alone is timed in, the first that the processor has."""
_BATCHES = (1, 64)


def rows(files: Files, places: Sequence[str], threads: int, rounds: int, images: int) -> dict[str, Any]:
    """A row for each network alone and each method, in each runtime and precision.

    Args:
        files: of one field.
        places: as ``runtime:precision``; those that the processor has not are left out.
        threads: of every runtime.
        rounds: how often everything is timed.
        images: how many in a round.
    """
    *smaller, whole = files.place.sides
    test, model = files.splits.test, files.model(f"static{whole}")
    batches = {n: [x for x, _ in loader(spaced(test, images), model.input, n)][: images // n] for n in _BATCHES}
    kept: dict[str, FileRuntime] = {}
    for name in dict.fromkeys((*places, *REFERENCES)):
        if (opened := _opened(name, threads)) is not None:
            kept[name] = opened
    against = next(name for name in REFERENCES if name in kept)
    reference, _ = kept[against].open_static(files.static(whole, False))
    right = _right(reference, files, whole)
    found: list[dict[str, Any]] = []
    for name in (name for name in places if name in kept):
        runtime, int8 = kept[name], "int8" in name
        about = dict(zip(("runtime", "precision"), name.split(":"), strict=True))
        for side in (whole, *smaller):
            print(f"{name}: {side} px", flush=True)
            network, shape = runtime.open_static(files.static(side, int8))
            own = _right(network, files, side)
            found.append({**about, "method": f"{side} px", **_accuracy(own, right)})
            found[-1]["batches"] = {
                n: _times(measure(reference, _Nobody(network, shape), [(x, None) for x in work], rounds))
                for n, work in batches.items()
            }
        for method, run in METHODS.items():
            print(f"{name}: {method}", flush=True)
            session, costs = runtime.open(files.dynamic(method, int8)), profile(files.model(run), repeats=0)
            tables = {
                split: tabulate_file(session, runtime, loader(files.splits.of(split), session.file.input, 100))
                for split in ("validation", "test")
            }
            policy = offramp.calibrate(tables["validation"], costs, max_drop=0.0)
            trace = replay(policy, tables["test"])
            own = _hits(trace.output, tables["test"].targets)
            row = {**about, "method": method, **_accuracy(own, right), "policy": policy_to_json(policy)}
            row |= {
                "macs_speedup": macs_speedup(costs, policy, trace),
                "exit_shares": (torch.bincount(trace.exit, minlength=len(costs.after) + 1) / len(own)).tolist(),
                "batches": {
                    n: _times(measure(reference, session, [(x, policy) for x in work], rounds))
                    for n, work in batches.items()
                },
            }
            found.append(row)
    return {"reference": against, "threads": threads, "rounds": rounds, "timed_images": images, "rows": found}


class _Nobody:
    """A network alone in the place of a model that leaves early, to be timed, on blank images that are made once."""

    def __init__(self, network: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
        self._network = network
        self._blank = cache(lambda samples: torch.zeros(samples, *shape))

    def __call__(self, x: Tensor, policy: Any = None) -> Any:
        output, nothing = self._network(self._blank(len(x))), torch.zeros(len(x), dtype=torch.long)
        return offramp.Trace(output, nothing, torch.zeros(len(x)), nothing, None)


def _opened(name: str, threads: int) -> FileRuntime | None:
    runtime, precision = name.split(":")
    rest = "bf16" if precision.endswith("bf16") else "fp32"
    try:
        opened = open_runtime(runtime, rest, threads)
    except UsageError as error:
        print(f"{name} is left out: {error}", flush=True)
        return None
    assert isinstance(opened, FileRuntime)
    return opened


def _right(network: Any, files: Files, side: int) -> Tensor:
    reads: Iterable[tuple[Tensor, Tensor]] = loader(files.splits.test, files.model(f"static{side}").input, 100)
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


def _times(timed: Any) -> dict[str, Any]:
    found: dict[str, Any] = timed.row()
    return found
