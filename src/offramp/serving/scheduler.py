"""Who is let in, and which samples are computed next: queues before exits, under a clock that the caller reads."""

from __future__ import annotations

import math
from bisect import bisect_right, insort_right
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from itertools import pairwise
from typing import Any

from offramp.errors import UsageError
from offramp.serving.line import Delay, Line

_INSTANT = 1e-3
"""Seconds: less time than that is none."""
_ROUNDING = 1e-9


class Job:
    """A sample inside; nothing of it but its deadline and its number decides when its turn is.

    Args:
        deadline: the clock's reading at which its answer is due, in seconds.
        payload: what the caller keeps with it.
    """

    __slots__ = ("answer", "deadline", "gone", "number", "payload", "since")

    def __init__(self, deadline: float, payload: Any = None) -> None:
        self.deadline, self.payload = deadline, payload
        self.number = -1
        self.answer = -1
        """The exit that answered last; −1 before the first."""
        self.since = 0.0
        """The clock's reading when it did."""
        self.gone = False
        """Whether it has been answered for good."""


class Scheduler:
    """Queues of samples before each exit of a model that is asked, earliest deadline first.

    Our own; that samples leave batches and others join is from E3 (10.1145/3694715.3695978) and DREX (2512.15705).
    It keeps no clock and computes nothing: a service asks it with the time of day, a simulation with a time of its own.
    Between two calls of ``next`` at most one batch is computed.

    - **Admission**: whoever waits for a first answer has a place in a plan, batch by batch, as if nothing else were
      computed from now on; so has who must still be read, for instance decoded. A sample is let in if by careful
      estimates everybody in it is still in time.
    - **Choice**: the deepest exit with a full batch, else the deepest before which anybody stands, as long as the plan
      can wait so long and for as many again as are in it, who may come meanwhile; else the plan's next batch, or
      nothing while all of them are read. No batch is larger than its most urgent sample can wait for.
    - **Deadlines**: who has an answer and no time for the next is answered with the one there is.

    So a sample that is let in is late only if the batches up to its first answer take longer than a careful estimate of
    all of them says, or what hands it over does.

    Args:
        lines: for each exit that is asked, by its index, what batches take from the one before it.
        first: the exits that may be somebody's first; the lowest if not given.
        largest: samples in a batch.
        most: samples inside at once.
        reserve: seconds between an answer and whoever waits for it, beside what ``handed`` tells of.

    Raises:
        UsageError: no exits, sizes below 1, or a reserve below 0.
    """

    def __init__(
        self,
        lines: Mapping[int, Line],
        first: Sequence[int] = (),
        largest: int = 16,
        most: int = 1024,
        reserve: float = 0.0,
    ) -> None:
        if not lines or min(largest, most) < 1 or not reserve >= 0:
            raise UsageError("a scheduler has exits, batches of one sample or more, and no reserve below 0")
        self.lines, self.largest, self.most = dict(sorted(lines.items())), largest, most
        self._reserve, self._handing, self._reading = reserve, Delay(), Delay()
        exits = list(self.lines)
        self._onward = dict(pairwise(exits))
        self._to_end = {k: [self.lines[j] for j in exits if j >= k] for k in exits}
        self._first = tuple(first) or (exits[0],)
        self._queues: dict[int, list[tuple[float, int, Job]]] = {k: [] for k in exits}
        self._due: list[tuple[float, int, Job]] = []
        self._unanswered: list[float] = []
        """Deadlines of those without an answer, in order."""
        self._deadlines, self._with_deadline = 0.0, 0
        self._numbers = 0
        self._free_at = 0.0
        """When the batch that is being computed is done, by a careful estimate."""
        self.inside = 0
        """Samples that have been let in and are not answered for good."""

    @property
    def reserve(self) -> float:
        """Seconds between an answer and whoever waits for it, by a careful estimate."""
        return self._reserve + self._handing.mean + self._handing.doubt

    @property
    def ahead(self) -> float:
        """Seconds before its deadline at which who has an answer gets it: more, for it costs depth and no answer."""
        return self.reserve + self._handing.doubt

    def handed(self, seconds: float) -> None:
        """So long it took from an answer to its being sent; at a deadline they are given that much earlier now."""
        self._handing.saw(max(seconds, 0.0))

    def read(self, seconds: float) -> None:
        """So long it took from ``hold`` to ``enter``; whoever is held from now on has that much less time."""
        self._reading.saw(max(seconds, 0.0))

    def _refusal(self, deadline: float, now: float, reading: Delay) -> str | None:
        """Why a sample that is due then is not let in now, in a few words; None if it is."""
        if self.inside >= self.most:
            return f"full: {self.inside} samples are inside"
        free = max(now, self._free_at)
        soonest = sum(self._until(max(now + reading.mean, free), reading.doubt)) + self._slowest().careful(1)
        if soonest <= deadline + _ROUNDING:  # it alone would be in time
            place = bisect_right(self._unanswered, deadline)
            self._unanswered.insert(place, deadline)
            in_time = self._in_time(free)
            del self._unanswered[place]
            return None if in_time else f"busy: {len(self._unanswered)} wait for a first answer"
        for k in self._first:
            if not self.inside and now + self.lines[k].at_first(1) + self._reserve <= deadline:
                for each in (self.lines[k], self._handing, reading):
                    each.believe_less()
        return f"too short: a first answer takes {1e3 * (soonest - now):.3g} ms now"

    def admit(self, job: Job, now: float) -> str | None:
        """Let a sample in before the lowest of the first exits, or say in a few words why not."""
        reason = self._hold(job, now, Delay())
        if reason is None:
            self.enter(job)
        return reason

    def hold(self, job: Job, now: float) -> str | None:
        """Let a sample in that has still to be read, and stands nowhere until ``enter``; or say in a few words why not.

        It has its place in the plan, so who is let in after it does not take its time.
        """
        return self._hold(job, now, self._reading)

    def enter(self, job: Job) -> None:
        """A sample that was held stands before the lowest of the first exits."""
        self.send(job, self._first[0])
        heappush(self._due, (job.deadline, job.number, job))

    def _hold(self, job: Job, now: float, reading: Delay) -> str | None:
        if (reason := self._refusal(job.deadline, now, reading)) is not None:
            return reason
        insort_right(self._unanswered, job.deadline)
        job.number, self._numbers = self._numbers, self._numbers + 1
        self.inside += 1
        self._timed(job, 1)
        return None

    def resume(self, job: Job, k: int, now: float) -> str | None:
        """Let a sample in that has the answer of exit ``k``, before the next; or say in a few words why not."""
        if self.inside >= self.most:
            return f"full: {self.inside} samples are inside"
        job.number, self._numbers = self._numbers, self._numbers + 1
        self.inside += 1
        job.answer, job.since = k, now
        self._timed(job, 1)
        self.send(job, self._onward[k])
        heappush(self._due, (job.deadline, job.number, job))
        return None

    def next(self, now: float) -> tuple[int, list[Job], list[Job]] | None:
        """The exit to compute up to and for whom, and who is answered with what there is; None where nobody waits."""
        ended = self.expire(now)
        while (k := self._choose(now)) is not None:
            if batch := self._batch(k, now, ended):
                self._free_at = now + self.lines[k].careful(len(batch))
                return k, batch, ended
        return (next(iter(self.lines)), [], ended) if ended else None

    def expire(self, now: float) -> list[Job]:
        """Who has an answer, and whose time is up."""
        found = []
        while self._due and (self._due[0][2].gone or self._due[0][0] - self.ahead <= now):
            job = heappop(self._due)[2]
            if not job.gone and job.answer >= 0:
                self._leave(job)
                found.append(job)
        return found

    def computed(self, k: int, batch: Sequence[Job], stays: Sequence[bool], now: float, seconds: float) -> list[Job]:
        """A batch has an answer of an exit; those who stay stand before the next.

        Args:
            k: the exit.
            batch: for whom.
            stays: whether each goes on.
            now: the clock's reading.
            seconds: what it took.

        Returns:
            who leaves with this answer.
        """
        if batch:
            self.lines[k].saw(len(batch), seconds)
        self._free_at = now
        left = []
        for job, on in zip(batch, stays, strict=True):
            if job.gone:
                continue
            if job.answer < 0:
                self._is_answered(job)
                if job.deadline - self.ahead <= now:  # its time was up, and it had to wait for this
                    heappush(self._due, (job.deadline, job.number, job))
            job.answer, job.since = k, now
            if on:
                self.send(job, self._onward[k])
            else:
                self._leave(job)
                left.append(job)
        return left

    def send(self, job: Job, k: int) -> None:
        """A sample stands before an exit."""
        heappush(self._queues[k], (job.deadline, job.number, job))

    def retract(self, job: Job) -> None:
        """A sample that was let in is not there any more."""
        if not job.gone:
            self._leave(job)

    def clear(self) -> list[Job]:
        """Everybody who waits is there no more; returns them."""
        found = [job for queue in self._queues.values() for _, _, job in queue if not job.gone]
        for job in found:
            self._leave(job)
        return found

    @property
    def due(self) -> float:
        """The clock's reading when somebody's time is up next; infinity where nobody's is."""
        return self._due[0][0] - self.ahead if self._due else math.inf

    def pressure(self, now: float) -> float:
        """What everybody who waits would take to the end, over the time that those with a deadline have on average."""
        if not self._with_deadline:
            return 0.0
        work = sum(line.seconds(len(queue)) for k, queue in self._queues.items() if queue for line in self._to_end[k])
        return work / max(self._deadlines / self._with_deadline - self.reserve - now, _INSTANT)

    def _choose(self, now: float) -> int | None:
        """The exit whose turn it is."""
        standing = []
        for k, queue in self._queues.items():
            while queue and queue[0][2].gone:
                heappop(queue)
            if queue:
                standing.append(k)
        if not standing:
            return None
        full = [k for k in standing if len(self._queues[k]) >= self.largest]
        deepest = (full or standing)[-1]
        urgent = [k for k in standing if self._queues[k][0][2].answer < 0]
        if not self._unanswered or deepest in urgent:
            return deepest
        takes = self.lines[deepest].careful(min(len(self._queues[deepest]), self.largest))
        others = self._slowest().careful(min(len(self._unanswered), self.largest))  # who come meanwhile
        if self._in_time(now + takes + others):
            return deepest
        return min(urgent, key=lambda k: self._queues[k][0], default=None)  # none: they are being read

    def _batch(self, k: int, now: float, ended: list[Job]) -> list[Job]:
        """The most urgent before an exit, as many as the first of them can wait for; who has no time for it ends."""
        batch: list[Job] = []
        queue, room = self._queues[k], 0
        while queue and (not batch or len(batch) < room):
            deadline, _, job = heappop(queue)
            if job.gone:
                continue
            if not batch:
                line = self.lines[k]
                left = deadline - (self.reserve if job.answer < 0 else self.ahead) - now
                room = self._room(left, line.careful(1), line.careful(2))
                if room == 0 and job.answer >= 0:
                    if left >= line.at_first(1):
                        line.believe_less()
                    self._leave(job)
                    ended.append(job)
                    continue
                room = room or self.largest  # too late for a first answer, which it gets all the same
            batch.append(job)
        return batch

    def _slowest(self) -> Line:
        """Of batches to a first answer, the one that may take longest."""
        return max((self.lines[k] for k in self._first), key=lambda line: line.careful(1))

    def _in_time(self, free: float) -> bool:
        """Whether the plan of first answers holds if it begins then.

        Each batch may take as long as it hardly ever does; what those before it may take beyond their means adds up as
        the square root of the sum of squares, as it does where they are independent.
        """
        line = self._slowest()
        one, two = line.careful(1), line.careful(2)
        (end, doubt), waiting, place = self._until(free), self._unanswered, 0
        while place < len(waiting):
            room = self._room(waiting[place] - end - doubt, one, two)
            if room == 0:
                return False
            room = min(room, len(waiting) - place)
            end += line.seconds(room)
            doubt = math.hypot(doubt, line.doubtful(room))
            place += room
        return True

    def _until(self, free: float, doubt: float = 0.0) -> tuple[float, float]:
        """When a first answer that takes nothing would be there, and how much later by a careful estimate."""
        return free + self._reserve + self._handing.mean, math.hypot(doubt, self._handing.doubt)

    def _room(self, left: float, one: float, two: float) -> int:
        """The largest batch that takes no longer than the time that is left, from what one sample and two take."""
        if left + _ROUNDING < one:
            return 0
        if left == math.inf:
            return self.largest
        return min(self.largest, 1 + int((left + _ROUNDING - one) / (two - one)))

    def _timed(self, job: Job, sign: int) -> None:
        if job.deadline < math.inf:
            self._with_deadline += sign
            self._deadlines = self._deadlines + sign * job.deadline if self._with_deadline else 0.0

    def _is_answered(self, job: Job) -> None:
        del self._unanswered[bisect_right(self._unanswered, job.deadline) - 1]

    def _leave(self, job: Job) -> None:
        job.gone = True
        if job.answer < 0:
            self._is_answered(job)
        self.inside -= 1
        self._timed(job, -1)
