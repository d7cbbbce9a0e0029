"""What a service says of a sample: an answer, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from offramp.errors import OfframpError


class Refused(OfframpError):
    """A request was not let in; the sentence says why, and nothing was computed."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a sample was answered.

    Args:
        output: float32 ``(num_outputs,)``.
        exit: the index of the exit that said it.
        score: how sure it was.
        path: the path of that exit.
        stopped: whether its deadline ended it; else it left by the policy, by what was asked for it, or at the end.
        queued: seconds that it waited.
        computed: seconds that batches took which it was in.
        at: the service's clock when it was given.
    """

    output: Tensor
    exit: int
    score: float
    path: int
    stopped: bool
    queued: float
    computed: float
    at: float
