"""A model that answers samples of many callers, each by its own deadline."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any

import torch
from torch import Tensor

from offramp._batches import Inputs, count, single
from offramp.engine import Runtime, open_runtime
from offramp.engine.loop import Cohort, Segments
from offramp.engine.run import check_policy, prepared
from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.policies import Policy, check_fits, inner_of
from offramp.policies.routed import Enters
from offramp.serving.answer import Answer, Refused
from offramp.serving.measure import measure
from offramp.serving.places import Held, Places
from offramp.serving.scheduler import Job, Scheduler
from offramp.serving.turns import turn, ways

_LOG = logging.getLogger("offramp")


class Service:
    """A model behind a scheduler, in this process; one thread computes, one watches the clock.

    Close it, or use it with ``with``: those inside are answered first.

    Args:
        model: the model; it is put into evaluation mode.
        policy: who enters and leaves where.
        relaxed: policies that take its place as pressure rises, the last where there is more to do than time; see
            ``ladder``. All are of one kind, read one score and ask the same exits.
        runtime: a name from ``offramp list runtimes`` that computes segment by segment, or such a runtime.
        largest: samples in a batch.
        most: samples inside at once.
        reserve: seconds between an answer and whoever waits for it, beside what ``handed`` tells of.
        clock: seconds, rising; replaced in tests.

    Raises:
        UsageError: a policy for another model, policies that cannot take each other's place, a runtime that computes
            files alone.
    """

    def __init__(
        self,
        model: EarlyExitModel,
        policy: Policy,
        relaxed: Sequence[Policy] = (),
        runtime: str | Runtime = "torch",
        largest: int = 16,
        most: int = 512,
        reserve: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.model, self.clock = model, clock
        self.levels: tuple[Policy, ...] = (policy,)
        self.heard: Callable[[Inputs, Answer], None] | None = None
        """Told of every answer that the policy gave, with its sample, a batch of one: not where a deadline ended it, or
        a threshold or latest exit of its own."""
        self.set_policies(policy, relaxed)
        opened = open_runtime(runtime)
        segments: Any = getattr(opened, "segments", None)
        if segments is None:
            raise UsageError(f"{opened.name} computes whole files; a service needs one that computes segments: torch")
        self.segments: Segments = segments(model.eval())
        self._ways, first = ways(model.chain, policy.heads)
        if not isinstance(policy, Enters):
            first = first[:1]
        with torch.inference_mode():
            lines = measure(self.segments, model, policy, largest, clock)
        self.scheduler = Scheduler(lines, first, largest, most, reserve)
        self._lock = threading.Lock()
        self._work, self._rung = threading.Condition(self._lock), threading.Condition(self._lock)
        self._closing = self._done = False
        self._batch: list[Job] = []
        """What is being computed."""
        self._since = 0.0
        """When whoever computes was free again: what lies between two batches is part of the second."""
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._compute, self._watch)]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        x: Inputs,
        limit: float | Places = math.inf,
        max_exit: int | None = None,
        threshold: float | None = None,
    ) -> list[Future[Answer]]:
        """Samples that shall be answered within a limit; all of them are let in, or none.

        Args:
            x: a batch as the model's input prepares it, ``(B, …)``.
            limit: seconds from now, or what ``places`` gave, for as many samples.
            max_exit: the index of the exit at which they leave at the latest; the final exit if not given.
            threshold: of the policy's score, by which they leave in its place, from 0 to 1.

        Returns:
            for each sample what will be its answer. One whose first answer comes too late is answered all the same.

        Raises:
            Refused: not in this time, or not as many, or the service is closing, or the places are taken or given back.
            UsageError: a limit that is none, an exit before the first that is asked, a threshold out of range, places
                for another number of samples.
            DataError: samples of another shape than the model takes, or with values that are not finite.
        """
        last = self._last(max_exit)
        if threshold is not None and not 0 <= threshold <= 1:
            raise UsageError(f"the threshold is {threshold}; it lies between 0 and 1")
        if not isinstance(limit, Places):
            return self._let_in(prepared(self.model, x), _above_0(limit), last, threshold)
        if count(x) != len(limit.jobs):
            raise UsageError(f"{count(x)} samples, and places for {len(limit.jobs)}")
        x, now = prepared(self.model, x), self.clock()
        held = [Held(single(x, i), last, threshold, now) for i in range(count(x))]
        with self._lock:
            if self._closing or limit.taken or any(job.gone for job in limit.jobs):
                raise Refused("the service is closing" if self._closing else "the places are taken or given back")
            self.scheduler.read(self.clock() - limit.since)
            for job, each in zip(limit.jobs, held, strict=True):
                job.payload = each
                self.scheduler.enter(job)
            limit.taken = True
            self._work.notify()
            self._rung.notify()
        return [each.future for each in held]

    @contextlib.contextmanager
    def places(self, samples: int, limit: float = math.inf) -> Iterator[Places]:
        """Let samples in before they are there, for whoever has work of his own before he can submit them.

        So who is refused need not be decoded, and who is decoded is not refused. Places that are not taken in the
        context are given back at its end.

        Args:
            samples: how many.
            limit: seconds from now in which they shall be answered.

        Raises:
            Refused: as for ``submit``; UsageError: a limit that is none.
        """
        now = self.clock()
        held = Places([Job(now + _above_0(limit)) for _ in range(samples)], now)
        self._hold(held.jobs, self.scheduler.hold)
        try:
            yield held
        finally:
            with self._lock:
                if not held.taken:
                    for job in held.jobs:
                        self.scheduler.retract(job)
                    self._work.notify()  # who had to wait for them need not any more

    def to_the_end(self, x: Inputs) -> Future[Answer]:
        """What the final exit says of a sample that was answered, whenever there is time.

        Args:
            x: a prepared sample, a batch of one.

        Raises:
            Refused: less than half of the room is free, which is for those who wait, or the service is closing.
        """
        if 2 * (self.scheduler.inside + 1) > self.scheduler.most:
            raise Refused(f"full: {self.scheduler.inside} samples are inside")
        return self._let_in(x, math.inf, self._last(None), math.inf)[0]

    def resume(
        self, k: int, cohort: Cohort, output: Tensor, score: Tensor, limit: float = math.inf
    ) -> list[Future[Answer]]:
        """Samples that were computed up to an exit elsewhere; all of them are let in, or none.

        Args:
            k: the index of that exit, one that is asked.
            cohort: how they stand behind it, on the model's device.
            output: what the exit said, ``(n, num_outputs)``: their answer where there is no time for another.
            score: how sure it was, ``(n,)``.
            limit: seconds from now.

        Returns:
            for each sample what will be its answer.

        Raises:
            Refused: not as many, or the service is closing.
            UsageError: an exit that is not asked, or a limit that is none.
        """
        if k not in self.levels[0].heads:
            raise UsageError(f"exit {k} is not asked; these are: {', '.join(map(str, self.levels[0].heads))}")
        _above_0(limit)
        now, held = self.clock(), []
        for row in range(len(cohort)):
            each = Held(cohort.rows[row], self._last(None), None, now)
            each.cohort, each.row, each.best = cohort, row, (k, output[row], float(score[row]))
            held.append(each)
        return self._enter(held, now + limit, lambda job, at: self.scheduler.resume(job, k, at))

    def _let_in(self, x: Inputs, limit: float, last: int, threshold: float | None) -> list[Future[Answer]]:
        now = self.clock()
        held = [Held(single(x, i), last, threshold, now) for i in range(count(x))]
        return self._enter(held, now + limit, self.scheduler.admit)

    def _enter(
        self, held: Sequence[Held], deadline: float, admit: Callable[[Job, float], str | None]
    ) -> list[Future[Answer]]:
        """Let all of them in, or none."""
        self._hold([Job(deadline, each) for each in held], admit)
        return [each.future for each in held]

    def _hold(self, jobs: Sequence[Job], admit: Callable[[Job, float], str | None]) -> None:
        with self._lock:
            if self._closing:
                raise Refused("the service is closing")
            for number, job in enumerate(jobs):
                if (reason := admit(job, self.clock())) is not None:
                    for other in jobs[:number]:
                        self.scheduler.retract(other)
                    raise Refused(reason)
            self._work.notify()
            self._rung.notify()

    def handed(self, answers: Sequence[Answer]) -> None:
        """These are being sent now: how long that took is learned, so that an answer at its deadline is in time.

        As long again is kept free for what nobody here sees: a request waits for whoever sends answers too, before it
        is read.
        """
        with self._lock:
            self.scheduler.handed(2 * (self.clock() - max(answer.at for answer in answers)))

    def set_policies(self, policy: Policy, relaxed: Sequence[Policy] = ()) -> None:
        """Other policies from the next batch on, for those inside too.

        Args:
            policy: who leaves where; of the kind of the one before, with its score and its exits.
            relaxed: as for the service.

        Raises:
            UsageError: a policy of another kind, or for more exits than the model has.
            ArtifactError: one that does not fit the model otherwise.
        """
        for level in (policy, *relaxed):
            check_policy(self.model, level)
            chain = self.model.chain
            check_fits(level, len(chain.after) - 1, self.model.num_outputs, self.model.task, chain.num_paths)
            if _kind(level) != _kind(self.levels[0]):
                raise UsageError("the policies of one service are of one kind, read one score and ask the same exits")
        self.levels = (policy, *relaxed)

    @property
    def alive(self) -> bool:
        """Whether there is somebody who computes."""
        return all(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """Let nobody in any more, and come back when everybody inside is answered."""
        with self._lock:
            self._closing = True
            self._work.notify_all()
            self._rung.notify_all()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _last(self, max_exit: int | None) -> int:
        """The deepest exit that is asked up to one."""
        final = len(self.model.chain.after) - 1
        if max_exit is None:
            return final
        found = [k for k in (*self.levels[0].heads, final) if k <= max_exit]
        if not found:
            raise UsageError(f"max_exit is {max_exit}; the first exit that is asked is {min(self.levels[0].heads)}")
        return max(found)

    def _compute(self) -> None:
        """What one thread does until the service is closed. Should it ever fail, nobody is left waiting."""
        try:
            with torch.inference_mode():
                while (chosen := self._choose()) is not None:
                    self._turn(*chosen)
        except BaseException as error:
            with self._lock:
                self._closing = True
                lost = [job for job in self._batch if not job.gone] + self.scheduler.clear()
            for job in lost:
                _tell(job.payload.future.set_exception, error)
            raise
        finally:
            with self._lock:
                self._done = True
                self._rung.notify()

    def _choose(self) -> tuple[int, list[Job], Policy] | None:
        """The next batch, once there is one; None when the service is closed and nobody waits."""
        with self._lock:
            while (chosen := self.scheduler.next(self.clock())) is None:
                if self._closing:
                    return None
                self._work.wait()
                self._since = self.clock()
            k, batch, ended = chosen
            self._batch = batch
            for job in batch:
                if job.payload.future.cancelled():
                    self.scheduler.retract(job)
            levels = self.levels  # one value, whoever sets others meanwhile
            level = min(int(self.scheduler.pressure(self.clock()) * len(levels)), len(levels) - 1)
        self._answer(ended, stopped=True)
        return k, [job for job in batch if not job.gone], levels[level]

    def _turn(self, k: int, batch: list[Job], policy: Policy) -> None:
        if not batch:
            return
        begun = self.clock()
        held = [job.payload for job in batch]
        try:
            found = turn(self.segments, policy, self.model.task, self._ways[k], held)
            outputs = () if found.answered is None else found.answered.output.cpu()
            scores = () if found.answered is None else found.answered.score.tolist()
        except Exception as error:  # whatever it was, those who wait are told, and the others go on
            with self._lock:
                for job in batch:
                    self.scheduler.retract(job)
                self._since = self.clock()
            for each in held:
                _tell(each.future.set_exception, error)
            return
        now = self.clock()
        for each in held:
            each.computed += now - begun
        for place, output, score in zip(found.computed, outputs, scores, strict=True):
            held[place].best = (k, output, score)
        with self._lock:
            for place, at in found.sent.items():
                self.scheduler.send(batch[place], min(later for later in self._ways if later >= at))
            computed = [batch[place] for place in found.computed]
            left = self.scheduler.computed(k, computed, found.stays, now, now - self._since)
            self._since = now
        self._answer(left, stopped=False)

    def _watch(self) -> None:
        """What the other thread does: answer those whose time is up with what there is."""
        while True:
            with self._lock:
                if self._done:
                    return
                ended = self.scheduler.expire(self.clock())
                if not ended:
                    due = self.scheduler.due
                    self._rung.wait(None if due == math.inf else max(due - self.clock(), 0.0))
            self._answer(ended, stopped=True)

    def _answer(self, jobs: Iterable[Job], stopped: bool) -> None:
        now = self.clock()
        for job in jobs:
            held: Held = job.payload
            assert held.best is not None
            k, output, score = held.best
            waited = max(now - held.arrived - held.computed, 0.0)
            answer = Answer(output, k, score, self.model.chain.paths[k], stopped, waited, held.computed, now)
            _tell(held.future.set_result, answer)
            if self.heard is not None and not stopped and held.threshold is None and held.last == self._last(None):
                try:
                    self.heard(held.x, answer)
                except Exception:  # whoever listens must not stop those who are answered
                    _LOG.exception("an answer could not be told to whoever listens")


def _above_0(limit: float) -> float:
    if not limit > 0:
        raise UsageError(f"the limit is {limit} s; it is above 0")
    return limit


def _kind(policy: Policy) -> tuple[Any, ...]:
    """What policies have in common whose memories are the same."""
    return type(policy), type(inner_of(policy)), policy.heads, policy.score


def _tell(say: Callable[[Any], None], what: Any) -> None:
    """Tell who waits, unless nobody does any more."""
    with contextlib.suppress(InvalidStateError):
        say(what)
