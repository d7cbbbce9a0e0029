"""What all protocols of a server share: limits, decoding off the loop, and an answer by its deadline."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from offramp.errors import DataError
from offramp.protocol.form import Form
from offramp.protocol.metrics import Metrics
from offramp.protocol.oip import Asked, Values
from offramp.protocol.states import States
from offramp.serving.answer import Answer
from offramp.serving.service import Service

Gone = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Limits:
    """What is refused before anything is decoded or computed.

    Args:
        body: bytes of a request.
        samples: in a request.
        requests: that are being answered at once.
        seconds: the deadline of a request that says none, and the latest of any.
    """

    body: int = 32 * 2**20
    samples: int = 64
    requests: int = 256
    seconds: float = 30.0


class Refuse(Exception):
    """An answer without a result: a status of HTTP and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Front:
    """A service behind a server.

    Args:
        service: what computes.
        name: the model's name.
        limits: what is refused at once.
        key: that callers have to send, as ``Bearer KEY``; anybody may call if not given.
    """

    def __init__(self, service: Service, name: str, limits: Limits, key: str | None) -> None:
        self.service, self.name, self.limits, self.key = service, name, limits, key
        self.ready, self.answering = True, 0
        self.decoder = ThreadPoolExecutor(1)  # Python's warnings, which decoding holds back, belong to one thread
        self.form = Form(service.model, limits.samples)
        self.states = States(service.model, service.levels[0], service.segments)
        self.metrics = Metrics(name, service)

    async def close(self) -> None:
        """Answer those inside, and nobody else."""
        self.ready = False
        await asyncio.to_thread(self.service.close)
        self.decoder.shutdown()

    def check_key(self, said: str) -> None:
        """Raise ``Refuse`` for another key than the server's."""
        if self.key is not None and not secrets.compare_digest(said.encode(), f"Bearer {self.key}".encode()):
            raise Refuse(401, "this server wants a key: Authorization: Bearer KEY")

    @contextmanager
    def place(self) -> Iterator[None]:
        """Around a request. Raises ``Refuse`` where too many are being answered."""
        if self.answering >= self.limits.requests:
            raise Refuse(503, f"full: {self.answering} requests are being answered")
        self.answering += 1
        try:
            yield
        finally:
            self.answering -= 1

    async def outputs(self, asked: Asked, begun: float, gone: Gone) -> dict[str, Values]:
        """What is answered, by name.

        Args:
            asked: the request.
            begun: the service's clock when it came.
            gone: comes back when its caller has gone away; nothing more is computed for him then.

        Raises:
            Refuse: too late, or nobody waits.
            Refused: the service has no time.
            OfframpError: something is wrong with the request.
        """
        last, threshold = self.form.asked(asked.parameters)
        with self.service.places(self.form.count(asked.inputs), self._limit(asked, begun)) as places:

            def submitted() -> list[Future[Answer]]:
                self._limit(asked, begun)  # whose time is up by now is not decoded
                return self.service.submit(self.form.batch(asked.inputs), places, last, threshold)

            futures = await self._aside(submitted)
        return await self._answered(futures, gone)

    async def resumed(self, asked: Asked, k: int, begun: float, gone: Gone) -> dict[str, Values]:
        """What is answered to samples that stand behind exit ``k``; the rest as for ``outputs``."""
        if self.form.asked(asked.parameters) != (None, None):
            raise DataError("who goes on leaves by the server's policy: max_exit and threshold are not asked there")

        def resumed() -> list[Future[Answer]]:
            cohort, output, score = self.states.read(k, asked.inputs)
            return self.service.resume(k, cohort, output, score, self._limit(asked, begun))

        return await self._answered(await self._aside(resumed), gone)

    def _limit(self, asked: Asked, begun: float) -> float:
        limit = self.form.limit(asked.parameters, self.limits.seconds) - (self.service.clock() - begun)
        if limit <= 0:
            raise Refuse(503, "too short: the time was up before it was read")
        return limit

    async def _aside(self, work: Callable[[], list[Future[Answer]]]) -> list[Future[Answer]]:
        """Decoded and let in on the thread that decodes: the loop is free meanwhile, and nothing waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self.decoder, work)

    async def _answered(self, futures: Sequence[Future[Answer]], gone: Gone) -> dict[str, Values]:
        left: asyncio.Future[Any] = asyncio.ensure_future(gone())
        waiting: asyncio.Future[Any] = asyncio.gather(*map(asyncio.wrap_future, futures))
        try:
            await asyncio.wait({left, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Refuse(499, "the caller went away")
            answers = list(waiting.result())
        finally:
            left.cancel()
            waiting.cancel()
        self.metrics.answered(answers)
        outputs = self.form.outputs(answers)
        self.service.handed(answers)
        return outputs
