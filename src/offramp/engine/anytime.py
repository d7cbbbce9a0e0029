"""Anytime answers: somebody else ends the computation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from offramp.model import EarlyExitModel, evaluating
from offramp.types import Trace


def anytime(model: EarlyExitModel, x: Tensor) -> Iterator[Trace]:
    """The answer so far, exit by exit, for computing under a budget that is not known beforehand (2106.15183).

    A segment runs only when the next answer is asked for: stop asking and nothing more is computed. The answer so far
    is that of the deepest exit that has run.

    Args:
        model: the model; it computes in evaluation mode, whatever mode it is in.
        x: images, ``(B, C, H, W)``.

    Yields:
        One ``Trace`` for each exit, the final exit last; every sample of the batch is at the same exit.

    Raises:
        DataError: images of another shape than the model takes.
    """
    x = x.to(next(model.parameters()).device)
    kind, last, previous, h = model.task.scores[0], len(model.exits), None, None
    for k in range(last + 1):
        with evaluating(model), torch.inference_mode():
            h = model.step(k, model.stem(x) if h is None else h)
            output = model.final(h) if k == last else model.head(k, h)
            score = model.task.score(kind, output, previous)
        yield Trace(output, torch.full((len(x),), k, device=x.device), score)
        previous = output
