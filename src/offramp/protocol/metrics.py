"""What a server counts, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from offramp.serving.answer import Answer
from offramp.serving.service import Service
from offramp.serving.watch import Watch

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Told:
    """What became of a request; an error unless somebody says otherwise."""

    outcome = "error"


class Metrics:
    """Counters of one server, in a registry of its own.

    Args:
        model: the model's name, a label of all.
        service: whose queue is shown.
    """

    def __init__(self, model: str, service: Service) -> None:
        self._registry = kept = CollectorRegistry()
        self._model, exits = model, list(service.scheduler.lines)
        self._requests = Counter(
            "offramp_requests", "Requests, by what became of them.", ["model", "outcome"], registry=kept
        )
        self._exits = Counter("offramp_exits", "Samples, by the exit that answered.", ["model", "exit"], registry=kept)
        self._stopped = Counter(
            "offramp_deadline_exits", "Samples that their deadline ended.", ["model"], registry=kept
        )
        self._seconds = Histogram(
            "offramp_request_duration_seconds", "Of requests.", ["model"], buckets=_SECONDS, registry=kept
        )
        self._queued = Histogram(
            "offramp_queue_duration_seconds", "Of samples.", ["model"], buckets=_SECONDS, registry=kept
        )
        inside = Gauge("offramp_inflight_samples", "Samples inside.", ["model"], registry=kept)
        inside.labels(model).set_function(lambda: service.scheduler.inside)
        for outcome in ("ok", "rejected", "error"):
            self._requests.labels(model, outcome)
        for k in exits:
            self._exits.labels(model, str(k))

    def watch(self, watch: Watch) -> None:
        """Also show what became of a promise."""
        shown = {
            "offramp_shadow_samples": (
                "Answers that were compared with the whole model's.",
                lambda: watch.monitor.samples,
            ),
            "offramp_shadow_losses": ("The sum of what they lost.", lambda: watch.monitor.total),
            "offramp_shadow_dropped": ("Answers that could not be compared.", lambda: watch.dropped),
            "offramp_promise_doubt_ratio": (
                "How sure it is that the promise is broken.",
                lambda: watch.monitor.confidence,
            ),
            "offramp_promise_alarm": ("1 after an alarm.", lambda: float(watch.monitor.alarm)),
        }
        for name, (about, value) in shown.items():
            Gauge(name, about, ["model"], registry=self._registry).labels(self._model).set_function(value)

    @contextmanager
    def request(self) -> Iterator[Told]:
        """Around a request: counted and timed by what it is told."""
        begun, told = time.perf_counter(), Told()
        try:
            yield told
        finally:
            self._requests.labels(self._model, told.outcome).inc()
            self._seconds.labels(self._model).observe(time.perf_counter() - begun)

    def answered(self, answers: Sequence[Answer]) -> None:
        """Samples have been answered."""
        for answer in answers:
            self._exits.labels(self._model, str(answer.exit)).inc()
            self._queued.labels(self._model).observe(answer.queued)
            self._stopped.labels(self._model).inc(answer.stopped)

    def text(self) -> tuple[bytes, str]:
        """All of them in Prometheus' format, and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
