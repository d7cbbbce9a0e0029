"""Watching a promise while it is served: a share of answers is compared with what the whole model says."""

from __future__ import annotations

import logging
import random
import threading
import time
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from offramp._batches import Inputs
from offramp._files import read_json, write_json
from offramp.calibration import Monitor
from offramp.errors import OfframpError, UsageError
from offramp.policies.threshold import Threshold
from offramp.serving.answer import Answer, Refused
from offramp.serving.service import Service

_LOG = logging.getLogger("offramp")
_SECONDS = 10.0
"""Between two states that are written."""


class Watch:
    """A monitor of a service's promise, fed with a share of what it answers.

    Of each answer that the policy gave (none that a deadline ended, or a request's own threshold or latest exit) it is
    decided by lot, whatever the load, whether it is compared. Who left early is computed once more, to the end and
    without a deadline, so that nobody who has one waits for it; who was there already lost nothing.

    Args:
        service: whose answers; its policy holds thresholds.
        monitor: of the promise, with what it has seen so far; its loss asks for nothing but the whole model's answer.
        share: of the answers, above 0 and at most 1.
        stricter: after an alarm, let nobody leave who is not wholly sure.
        state: a file that what has been seen is written to, now and then and at the end.
        seed: of the lot.

    Raises:
        UsageError: a policy of another kind, a loss that asks what is true, a share out of range.
    """

    def __init__(
        self,
        service: Service,
        monitor: Monitor,
        share: float,
        stricter: bool = False,
        state: Path | None = None,
        seed: int = 0,
    ) -> None:
        if not all(isinstance(level, Threshold) for level in service.levels):
            raise UsageError("a promise is watched where thresholds decide: other policies may change the last answer")
        if not monitor.loss.startswith(("disagreement", "moved-by-")):
            raise UsageError(f"nobody knows what is true of requests, and the loss {monitor.loss!r} asks for it")
        if not 0 < share <= 1:
            raise UsageError(f"the share that is watched is {share:g}; it is above 0 and at most 1")
        self.service, self.monitor, self.share, self.stricter, self.state = service, monitor, share, stricter, state
        self.dropped = 0
        """Samples that the lot fell on and that there was no room for, or whose computation failed."""
        self._lot, self._lock = random.Random(seed), threading.Lock()
        self._written, self._told = time.monotonic(), monitor.alarm
        service.heard = self._hear

    def close(self) -> None:
        """Write what has been seen; the service was closed before, so that nothing is left to come."""
        with self._lock:
            self._write()

    def _hear(self, x: Inputs, answer: Answer) -> None:
        if self._lot.random() >= self.share:
            return
        if answer.exit == len(self.service.model.exits):
            self._see(answer.output, answer.output)
            return
        try:
            future = self.service.to_the_end(x)
        except Refused:
            with self._lock:
                self.dropped += 1
            return
        future.add_done_callback(lambda done: self._compare(answer.output, done))

    def _compare(self, output: Tensor, done: Future[Answer]) -> None:
        try:
            full = done.result().output
        except (CancelledError, Exception):  # told to whoever asked for the sample's own answer
            with self._lock:
                self.dropped += 1
            return
        self._see(output, full)

    def _see(self, output: Tensor, full: Tensor) -> None:
        with self._lock:
            try:
                self.monitor = self.monitor.see(output[None], full[None], task=self.service.model.task)
            except OfframpError:  # an answer that is no number
                self.dropped += 1
                return
            news = self.monitor.alarm and not self._told
            self._told = self.monitor.alarm
            if news or time.monotonic() - self._written > _SECONDS:
                self._write()
        if news:
            _LOG.warning("offramp: %s", self.monitor.sentence)
            if self.stricter:
                self.service.set_policies(_strict(self.service.levels[0]))

    def _write(self) -> None:
        self._written = time.monotonic()
        if self.state is not None:
            write_json(self.state, self.monitor.to_json())


def open_watch(
    service: Service, monitor: Monitor, share: float, stricter: bool = False, state: Path | None = None
) -> Watch:
    """A watch that goes on from its file, where there is one.

    Raises:
        UsageError: a file of another promise, and what ``Watch`` raises.
        ArtifactError: a file that is no monitor.
    """
    if state is not None and state.exists():
        found = Monitor.from_json(read_json(state))
        found.check_same(monitor, str(state))
        monitor = found
    return Watch(service, monitor, share, stricter, state)


def _strict(policy: object) -> Threshold:
    """Thresholds of 1 where there are any."""
    assert isinstance(policy, Threshold)
    return replace(policy, thresholds=tuple(None if t is None else 1.0 for t in policy.thresholds), provenance={})
