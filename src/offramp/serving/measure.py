"""What batches take, exit by exit, before the first request."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

from offramp._batches import to
from offramp.engine.loop import Segments, Walk
from offramp.model import EarlyExitModel
from offramp.policies import Policy
from offramp.policies.forced import Forced
from offramp.serving.line import Line

_REPEATS = 5
_LEAST = 1e-9


def measure(
    segments: Segments, model: EarlyExitModel, policy: Policy, largest: int, clock: Callable[[], float]
) -> dict[int, Line]:
    """For each exit that is asked the line through what batches of several sizes take to it from the one before.

    Args:
        segments: what computes.
        model: whose segments they are.
        policy: whose exits are asked; nobody leaves.
        largest: samples in a batch.
        clock: seconds, rising.
    """
    final = len(model.exits)
    points: dict[int, list[tuple[int, float]]] = {k: [] for k in (*policy.heads, final)}
    device = next(model.parameters()).device
    for n in sorted({1, max(1, largest // 4), largest}):
        x = to(model.input.example(n, torch.Generator().manual_seed(0)), device)
        stay = Forced((final,) * n, final, policy.score, policy.heads)
        found: dict[int, list[float]] = {k: [] for k in points}
        for repeat in range(_REPEATS + 1):
            begun = clock()
            for k, answered in Walk(segments, x, stay, model.task):
                if answered is not None:
                    answered.score.sum().item()  # waits for the device
                    if repeat:  # the first is slower
                        found[k].append(clock() - begun)
                    begun = clock()
        for k, times in found.items():
            points[k].append((n, max(statistics.median(times), _LEAST)))
    return {k: Line.through(own) for k, own in points.items()}
