"""Measured speed-up: the backbone as it was and the dynamic model, timed in turn in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from offramp.cost import in_turn
from offramp.engine.loop import run_policy
from offramp.engine.torch import TorchRuntime
from offramp.model import EarlyExitModel, evaluating
from offramp.policies import Policy
from offramp.types import CostTable, Trace


@dataclass(frozen=True)
class Measurement:
    """What was timed.

    Args:
        static_seconds: for each round the seconds of the static backbone, all pieces of work together.
        dynamic_seconds: the same for the dynamic model.
        pieces: how many batches a round has.
        trace: what the dynamic model answered.
    """

    static_seconds: tuple[float, ...]
    dynamic_seconds: tuple[float, ...]
    pieces: int
    trace: Trace

    @property
    def speedup(self) -> float:
        """Measured speed-up: the median over rounds of static ÷ dynamic."""
        return statistics.median(self.ratios)

    @property
    def ratios(self) -> list[float]:
        """Static ÷ dynamic in each round."""
        return [s / d for s, d in zip(self.static_seconds, self.dynamic_seconds, strict=True)]

    def row(self) -> dict[str, Any]:
        """Milliseconds a batch, the measured speed-up and its spread, as JSON values."""
        ratios = sorted(self.ratios)
        return {
            "static_ms": 1000 * statistics.median(self.static_seconds) / self.pieces,
            "dynamic_ms": 1000 * statistics.median(self.dynamic_seconds) / self.pieces,
            "measured_speedup": self.speedup,
            "measured_speedup_range": [ratios[0], ratios[-1]],
            "rounds": len(ratios),
        }


def measure(
    model: EarlyExitModel,
    pieces: Sequence[tuple[Tensor, Policy]],
    rounds: int = 5,
    tick: Callable[[int], Any] = lambda n: None,
) -> Measurement:
    """Time the timm model itself and the dynamic model on the same batches, batch by batch in turn.

    Args:
        model: the model; it computes in evaluation mode.
        pieces: batches ``(B, C, H, W)`` on the model's device, each with the policy to run it with.
        rounds: how often everything is timed; one more round goes before and is not counted.
        tick: called after each round with the number of rounds done, the uncounted one included.
    """
    runtime = TorchRuntime(model)
    static = model.backbone.model

    with evaluating(model), torch.inference_mode():
        static_calls = [partial(static, x) for x, _ in pieces]
        dynamic_calls = [partial(run_policy, runtime, x, policy, model.task) for x, policy in pieces]
        seconds = in_turn({"static": static_calls, "dynamic": dynamic_calls}, rounds, pieces[0][0].device, tick)
        trace = Trace.cat([call() for call in dynamic_calls])
    return Measurement(tuple(seconds["static"]), tuple(seconds["dynamic"]), len(pieces), trace)


def macs_speedup(costs: CostTable, heads: tuple[int, ...], trace: Trace) -> float:
    """MACs of the static backbone ÷ mean MACs of the dynamic model, the heads that ran included."""
    to_exit = torch.tensor(costs.to_exit(heads), dtype=torch.float64)
    return costs.macs.static / float(to_exit[trace.exit.cpu()].mean())
