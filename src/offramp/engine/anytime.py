"""Anytime answers: somebody else ends the computation."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from offramp._batches import Inputs, count
from offramp.engine.loop import Walk
from offramp.engine.run import prepared
from offramp.engine.torch import TorchSegments
from offramp.model import EarlyExitModel, evaluating
from offramp.policies.forced import Forced
from offramp.types import Trace


def anytime(model: EarlyExitModel, x: Inputs) -> Iterator[Trace]:
    """The answer so far, exit by exit, for computing under a budget that is not known beforehand (2106.15183).

    A segment runs only when the next answer is asked for: stop asking and nothing more is computed. The answer so far
    is that of the last exit that has run, on the cheapest path first.

    Args:
        model: the model; it computes in evaluation mode, whatever mode it is in.
        x: a batch as the model's input prepares it.

    Yields:
        One ``Trace`` for each exit, the final exit last; every sample of the batch is at the same exit.

    Raises:
        DataError: samples of another shape than the model takes, or with values that are not finite.
    """
    x = prepared(model, x)
    last, segments = len(model.exits), TorchSegments(model)
    everything = Forced((last,) * count(x), last, model.task.scores[0])  # every head is asked, nobody leaves early
    walk = iter(Walk(segments, x, everything, model.task))
    for k in range(last + 1):
        with evaluating(model), torch.inference_mode():
            _, answered = next(walk)
        assert answered is not None
        path = torch.full_like(answered.rows, model.chain.paths[k])
        yield Trace(answered.output, torch.full_like(answered.rows, k), answered.score, path)
