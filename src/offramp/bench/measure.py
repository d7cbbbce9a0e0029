"""Measured speed-up: the backbone as it was and the dynamic model, timed in turn in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from offramp._batches import Inputs, count, parts
from offramp.cost import in_turn
from offramp.engine.runtime import Session
from offramp.policies import Policy, spent
from offramp.types import CostTable, Trace

Seconds = list[list[float]]
"""For each round the seconds of each batch."""
_TURN = 16
"""Samples a turn."""


@dataclass(frozen=True)
class Measurement:
    """What was timed.

    Args:
        static: the static backbone's seconds.
        dynamic: the dynamic model's.
        trace: what the dynamic model answered.
        baselines: the seconds of other networks that were timed in the same run.
    """

    static: Seconds
    dynamic: Seconds
    trace: Trace
    baselines: Mapping[str, Seconds] = field(default_factory=dict)

    @property
    def speedup(self) -> float:
        """Measured speed-up: the median over rounds of static ÷ dynamic."""
        return statistics.median(self.ratios)

    @property
    def ratios(self) -> list[float]:
        """Static ÷ dynamic in each round."""
        return [sum(s) / sum(d) for s, d in zip(self.static, self.dynamic, strict=True)]

    def shares(self, exits: int) -> list[float]:
        """Which share of the samples left at each of so many exits."""
        return (torch.bincount(self.trace.exit.cpu(), minlength=exits).double() / len(self.trace.exit)).tolist()

    def row(self) -> dict[str, Any]:
        """Milliseconds a batch, the measured speed-up and its spread, in MLPerf's words, as JSON values.

        ``single_stream`` are percentiles of the milliseconds of one batch (MLPerf has batches of one), ``offline`` is
        how many samples are answered in a second, a median over rounds.
        """
        ratios = sorted(self.ratios)
        samples = len(self.trace.exit)
        ways = {"static": self.static, "dynamic": self.dynamic, **self.baselines}
        return {
            **{f"{name}_ms": 1000 * statistics.median(map(statistics.mean, way)) for name, way in ways.items()},
            "measured_speedup": self.speedup,
            "measured_speedup_range": [ratios[0], ratios[-1]],
            "rounds": len(ratios),
            "single_stream_ms": {
                name: {f"p{p}": 1000 * float(np.percentile(np.array(way), p)) for p in (50, 90)}
                for name, way in ways.items()
            },
            "offline_per_second": {name: samples / statistics.median(map(sum, way)) for name, way in ways.items()},
        }


def measure(
    static: Callable[[Inputs], Any],
    dynamic: Session,
    work: Sequence[tuple[Inputs, Policy]],
    rounds: int = 5,
    tick: Callable[[int], Any] = lambda n: None,
    baselines: Mapping[str, Callable[[int], Any]] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Measurement:
    """Time the static backbone and the dynamic model on the same batches, in turn.

    Each has 16 samples a turn, or one batch: a service that answers single images runs one network, and finds its
    weights where the last answer left them. So before a turn of several batches the first is run once, uncounted.

    Args:
        static: the backbone without exits.
        dynamic: the model that leaves early.
        work: batches, each with the policy to run it with.
        rounds: how often everything is timed; one more round goes before and is not counted.
        tick: called after each round with the number of rounds done, the uncounted one included.
        baselines: other networks by name, to be called with the number of samples.
        clock: seconds, rising; replaced in tests.
    """
    calls: dict[str, list[Callable[[], Any]]] = {
        "static": [partial(static, x) for x, _ in work],
        "dynamic": [partial(dynamic, x, policy) for x, policy in work],
    }
    for name, call in (baselines or {}).items():
        calls[name] = [partial(call, count(x)) for x, _ in work]
    turn = max(_TURN // count(work[0][0]), 1)
    device = parts(work[0][0])[0].device
    seconds = in_turn(calls, rounds, device, tick, clock, turn, warm=int(turn > 1))
    trace = Trace.cat([dynamic(x, policy) for x, policy in work])
    return Measurement(seconds.pop("static"), seconds.pop("dynamic"), trace, seconds)


def macs_speedup(costs: CostTable, policy: Policy, trace: Trace) -> float:
    """MACs of the static backbone ÷ mean MACs of the dynamic model, heads and router that ran included."""
    return costs.macs.static / float(spent(policy, trace, costs.in_chain()).mean())
