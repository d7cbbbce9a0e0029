"""Who is inside a service: samples, and places of those that are still being read."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from torch import Tensor

from offramp._batches import Inputs
from offramp.serving.answer import Answer
from offramp.serving.scheduler import Job
from offramp.serving.turns import Standing


class Held(Standing):
    """A sample inside, and who waits for it."""

    __slots__ = ("arrived", "best", "computed", "future")

    def __init__(self, x: Inputs, last: int, threshold: float | None, arrived: float) -> None:
        super().__init__(x, last, threshold)
        self.arrived, self.computed = arrived, 0.0
        self.future: Future[Answer] = Future()
        self.best: tuple[int, Tensor, float] | None = None
        """The exit that said it, what it said, and how sure it was: one value, so that it is never half new."""


class Places:
    """Of samples that are still being read, in a service.

    Args:
        jobs: one for each.
        since: the service's clock when they were let in.
    """

    __slots__ = ("jobs", "since", "taken")

    def __init__(self, jobs: Sequence[Job], since: float) -> None:
        self.jobs, self.since = jobs, since
        self.taken = False
        """Whether samples have come."""
