"""What a policy is told and says, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

State = tuple[Tensor, ...]
"""What a policy remembers: tensors whose first dimension is the sample."""

Network = Callable[[Any], Tensor]
"""Images ``(B, C, H, W)`` to outputs ``(B, num_outputs)``."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a policy is told at an exit about the samples that are still in the network.

    Args:
        exit: the index of the exit, 0 for the first.
        output: the head's output, shape ``(n, num_outputs)``.
        score: how sure the exit is, shape ``(n,)``, between 0 and 1, higher is surer.
        task: what an output means: other scores, answers, ensembles of outputs (``offramp.tasks.Task``).
        previous: the output of the exit that ran before, for scores that compare the two; None at the first.
    """

    exit: int
    output: Tensor
    score: Tensor
    task: Any = None
    previous: Tensor | None = None


class Decision(NamedTuple):
    """What a policy says at an exit.

    Args:
        leave: who leaves here, bool ``(n,)``.
        state: what is remembered about all ``n``, leavers included.
        output: what is answered here, ``(n, num_outputs)``, where that is not the head's own output.
    """

    leave: Tensor
    state: State
    output: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Trace:
    """What came out of a run.

    Args:
        output: the output of the exit that each sample left at, shape ``(B, num_outputs)``.
        exit: the index of that exit, shape ``(B,)``; the final exit has the highest index.
        score: the score at that exit, shape ``(B,)``.
        path: the path that this exit stands on, shape ``(B,)``; 0 in a model with one path.
        entry: the path that the sample entered at, shape ``(B,)``; the first if not given.
    """

    output: Tensor
    exit: Tensor
    score: Tensor
    path: Tensor = None  # type: ignore[assignment]
    entry: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name in ("path", "entry"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, torch.zeros_like(self.exit))

    def take(self, rows: Tensor) -> Trace:
        """The same for some of the samples, in the order of ``rows``."""
        return Trace(*(part[rows] for part in self._parts()))

    @staticmethod
    def cat(traces: list[Trace]) -> Trace:
        """Several traces, one after the other."""
        return Trace(*map(torch.cat, zip(*(t._parts() for t in traces), strict=True)))

    def _parts(self) -> tuple[Tensor, ...]:
        return self.output, self.exit, self.score, self.path, self.entry
