"""Requests at given times, whatever becomes of those before: what a server answers, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from offramp.errors import DataError, UsageError
from offramp.protocol.oip import read_response, write_request
from offramp.report import bootstrap_interval

try:
    import aiohttp
except ImportError as error:
    raise UsageError("asking a server needs one more package: pip install 'offramp[serve]'") from error

FAILED = 0
"""In place of a status where there was no answer: the connection broke, or nothing came in time."""
_DIFFERENT = 16
"""Requests that are made at random; then the first comes again."""
_PATIENCE = 120.0
"""Seconds in which a server says what it has; one that was just started may still be loading."""
REFUSALS = (408, 429, 503, 504)
"""Statuses by which servers say that they have no time."""


@dataclass(frozen=True)
class Parcel:
    """A request that is ready to be sent.

    Args:
        body: as ``write_request`` makes it.
        headers: of HTTP.
        truth: what would be right for each sample, as the output ``label`` says it; empty where nobody knows.
    """

    body: bytes
    headers: Mapping[str, str]
    truth: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Replies:
    """What came back, ``(requests,)`` each, in the order of the arrivals.

    Args:
        due: seconds from the start at which each was to be sent.
        lag: seconds that it was sent later, because this machine was busy or all connections were.
        seconds: from when it was due to its answer; not a number where none came.
        status: of HTTP, 0 where none came.
        bodies: the answers.
        parcels: what was sent.
        elapsed: seconds from the start to the last answer.
    """

    due: np.ndarray
    lag: np.ndarray
    seconds: np.ndarray
    status: np.ndarray
    bodies: Sequence[bytes]
    parcels: Sequence[Parcel]
    elapsed: float

    def skip(self, first: int) -> Replies:
        """Without the first ones, which warm up."""
        own = slice(first, None)
        return replace(
            self,
            due=self.due[own],
            lag=self.lag[own],
            seconds=self.seconds[own],
            status=self.status[own],
            bodies=self.bodies[own],
            parcels=self.parcels[own],
        )


def parcels_of(
    about: Mapping[str, Any],
    files: Sequence[tuple[bytes, str | None]],
    samples: int,
    parameters: Mapping[str, Any],
    seed: int = 0,
) -> list[Parcel]:
    """Requests for a model.

    Args:
        about: its metadata.
        files: each with what would be right, where that is known; if there are none, prepared samples at random.
        samples: in each request.
        parameters: of each request.
        seed: of random samples.

    Raises:
        DataError: a model that takes no files, or no samples of a known shape.
    """
    inputs = about.get("inputs", [])
    if files:
        names = [i["name"] for i in inputs if i["datatype"] == "BYTES"]
        if not names:
            raise DataError(f"the model {about.get('name')} takes no files; give none, and it gets random samples")
        found = []
        for first in range(0, len(files), samples):
            own = [files[k % len(files)] for k in range(first, first + samples)]
            truth = [said for _, said in own if said is not None]
            request = write_request({names[0]: [file for file, _ in own]}, parameters)
            found.append(Parcel(*request, truth if len(truth) == len(own) else ()))
        return found
    shapes = {i["name"]: i["shape"][1:] for i in inputs if i["datatype"] == "FP32"}
    if not shapes or any(size < 1 for shape in shapes.values() for size in shape):
        raise DataError(f"the model {about.get('name')} takes no float32 samples of one shape: give files")
    rng = np.random.default_rng(seed)
    many = range(_DIFFERENT)
    parts = [{name: rng.standard_normal((samples, *shape), np.float32) for name, shape in shapes.items()} for _ in many]
    return [Parcel(*write_request(part, parameters)) for part in parts]


async def describe(url: str, model: str | None, key: str | None = None) -> dict[str, Any]:
    """The metadata of a server's model.

    Args:
        url: of the server, such as ``http://127.0.0.1:8000``.
        model: its name; the only one there is if not given.
        key: that the server wants.

    Raises:
        UsageError: no such model, several of which none was named, or no server of the protocol.
    """
    async with aiohttp.ClientSession(headers=_key(key), timeout=aiohttp.ClientTimeout(_PATIENCE)) as session:
        if model is None:
            names = (await _get(session, f"{url}/v2/models")).get("models")
            if not isinstance(names, list) or len(names) != 1:
                raise UsageError(f"{url} does not say that it has one model: name it with --model")
            model = names[0]
        return await _get(session, f"{url}/v2/models/{model}")


async def send(
    url: str,
    parcels: Sequence[Parcel],
    arrivals: np.ndarray,
    patience: float,
    connections: int = 512,
    key: str | None = None,
    told: Callable[[int], None] = lambda done: None,
) -> Replies:
    """Send requests when they are due: an open loop, in which a slow server does not slow its callers.

    Args:
        url: where to, ``…/infer``.
        parcels: taken in turn.
        arrivals: seconds from the start, rising, ``(requests,)``.
        patience: seconds after which an answer is not waited for any longer.
        connections: at once; a request that finds none waits, and the wait counts.
        key: that the server wants.
        told: called with the number of those that have ended.
    """
    n = len(arrivals)
    lag, seconds, status = np.zeros(n), np.full(n, np.nan), np.full(n, FAILED)
    bodies, sent = [b""] * n, [parcels[i % len(parcels)] for i in range(n)]
    done = 0

    async def ask(i: int) -> None:
        nonlocal done
        lag[i] = time.perf_counter() - begun - arrivals[i]
        try:
            async with session.post(url, data=sent[i].body, headers=sent[i].headers) as answer:
                bodies[i] = await answer.read()
                status[i] = answer.status
                seconds[i] = time.perf_counter() - begun - arrivals[i]
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass
        done += 1
        told(done)

    connector = aiohttp.TCPConnector(limit=connections)
    within = aiohttp.ClientTimeout(patience)
    async with aiohttp.ClientSession(connector=connector, headers=_key(key), timeout=within) as session:
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for i, due in enumerate(arrivals.tolist()):
                if (left := due - (time.perf_counter() - begun)) > 0:
                    await asyncio.sleep(left)
                group.create_task(ask(i))
        elapsed = time.perf_counter() - begun
    return Replies(arrivals, lag, seconds, status, bodies, sent, elapsed)


def summary(replies: Replies, limit: float) -> dict[str, Any]:
    """What a server did.

    Args:
        replies: of ``send``.
        limit: seconds within which an answer is in time.

    Returns:
        ``requests``; ``offered`` and ``goodput`` (answered in time) a second; the shares ``in_time``, ``late``,
        ``refused`` and ``failed``, which sum to 1; ``accepted_in_time``, of those that were answered; ``latency_ms``
        and ``lag_ms`` with ``p50``, ``p95``, ``p99``; ``exits`` by their number and ``accuracy`` with its interval,
        where answers tell.
    """
    answered = replies.status == 200
    in_time = answered & (np.nan_to_num(replies.seconds, nan=np.inf) <= limit)
    refused = np.isin(replies.status, REFUSALS)
    n, lasted = len(replies.due), max(float(np.ptp(replies.due)), 1e-9)
    found: dict[str, Any] = {
        "requests": n,
        "offered": (n - 1) / lasted,
        "goodput": float(in_time.sum()) / lasted,
        "in_time": float(in_time.mean()),
        "late": float((answered & ~in_time).mean()),
        "refused": float(refused.mean()),
        "failed": float((~answered & ~refused).mean()),
        "accepted_in_time": float(in_time.sum() / answered.sum()) if answered.any() else None,
        "latency_ms": _quantiles(replies.seconds[answered]),
        "lag_ms": _quantiles(replies.lag),
    }
    exits: dict[int, int] = {}
    right: list[bool] = []
    for i in np.flatnonzero(answered).tolist():
        said = read_response(replies.bodies[i])
        for exit_ in said.get("exit", []):
            exits[exit_] = exits.get(exit_, 0) + 1
        if truth := replies.parcels[i].truth:
            right += [label == truth for label, truth in zip(said.get("label", []), truth, strict=False)]
    if exits:
        found["exits"] = {str(k): exits[k] / sum(exits.values()) for k in sorted(exits)}
    if right:
        values = np.array(right, dtype=np.float64)
        found["accuracy"], found["accuracy_interval"] = float(values.mean()), bootstrap_interval(values)
    return found


def _quantiles(seconds: np.ndarray) -> dict[str, float] | None:
    if not len(seconds):
        return None
    return {f"p{q}": 1e3 * float(np.quantile(seconds, q / 100)) for q in (50, 95, 99)}


def _key(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


async def _get(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    try:
        async with session.get(url) as answer:
            said = await answer.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise UsageError(f"nobody answers at {url}, or not in JSON: {error}") from error
    if answer.status != 200 or not isinstance(said, dict):
        reason = said.get("error") if isinstance(said, dict) else None
        raise UsageError(f"{url} answers {answer.status}{f': {reason}' if reason else ''}")
    return said
