"""Where a model is cut in two: what the way between two machines is like, what each takes, and what is quickest."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from offramp.engine import Runtime, open_runtime
from offramp.engine.loop import Segments
from offramp.errors import UsageError
from offramp.model import EarlyExitModel
from offramp.policies import Policy
from offramp.serving.measure import measure
from offramp.types import Trace

try:
    import httpx
except ImportError as error:
    raise UsageError("asking a server needs one more package: pip install 'offramp[edge]'") from error

FAULT = httpx.HTTPError
"""What goes wrong on the way."""
NOTHING = -1
"""The split at which nothing is computed here."""
_SMALL, _LARGE = 100, 200_000
"""Bytes that are sent to find out what the way is like, each a few times."""
_TIMES = 3


@dataclass(frozen=True)
class Way:
    """What sending takes.

    Args:
        round_trip: seconds of a request of next to nothing.
        per_byte: seconds of each byte more.
    """

    round_trip: float
    per_byte: float

    def seconds(self, size: float) -> float:
        """Of a request of so many bytes and a short answer."""
        return self.round_trip + size * self.per_byte


def way_to(url: str, key: str | None = None) -> Way:
    """Measure what sending takes: a few requests of two sizes, the quickest of each.

    Raises:
        UsageError: nobody answers there as ``offramp serve`` does.
    """
    seconds: dict[int, float] = {}
    try:
        with open_client(url, key) as client:
            for size in (_SMALL, _SMALL, _LARGE):  # the first one opens the connection
                seconds[size] = math.inf
                for _ in range(_TIMES):
                    begun = time.perf_counter()
                    answer = client.post("/v2/probe", content=bytes(size), timeout=60)
                    seconds[size] = min(seconds[size], time.perf_counter() - begun)
                    if answer.status_code != 204:
                        reason = "no server of offramp, or not with this key"
                        raise UsageError(f"{url} answers {answer.status_code}: {reason}")
    except httpx.HTTPError as error:
        raise UsageError(f"nobody answers at {url}: {error}") from error
    return Way(seconds[_SMALL], max((seconds[_LARGE] - seconds[_SMALL]) / (_LARGE - _SMALL), 0.0))


def seconds_there(url: str, name: str, key: str | None = None) -> dict[int, float]:
    """What a sample alone takes on a server from one exit that is asked to the next, by the later one's index.

    Raises:
        UsageError: nobody answers there as ``offramp serve`` does.
    """
    try:
        with open_client(url, key) as client:
            said = client.get(f"/v2/models/{name}/seconds", timeout=30).json()
        return {int(k): float(value) for k, value in said["seconds"].items()}
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{url} does not say what the model {name!r} takes there") from error


def expected_seconds(
    trace: Trace,
    heads: Sequence[int],
    here: Mapping[int, float],
    there: Mapping[int, float],
    sizes: Mapping[int, float],
    way: Way,
) -> dict[int, float]:
    """What a sample takes on average at each split, from tables alone.

    Args:
        trace: where a policy lets samples go, of validation data.
        heads: the exits that it asks.
        here: seconds from one exit that is asked to the next, the final one last, on this machine.
        there: the same on the server.
        sizes: bytes of a request, by split; −1 is the sample itself.
        way: between them.

    Returns:
        by split: −1 where everything is computed on the server, the final exit where nothing is.
    """
    exits = [*heads, max(here)]
    shares = {k: float((trace.exit == k).double().mean()) for k in exits}
    found = {}
    for split in (-1, *exits):
        total = 0.0
        for left, share in shares.items():
            near = sum(here[k] for k in exits if k <= min(left, split))
            far = sum(there[k] for k in exits if split < k <= left)
            total += share * (near + (way.seconds(sizes[split]) + far if left > split else 0.0))
        found[split] = total
    return found


def seconds_here(model: EarlyExitModel, policy: Policy, runtime: str | Runtime = "torch") -> dict[int, float]:
    """What a sample alone takes on this machine from one exit that is asked to the next, measured now."""
    with torch.inference_mode():
        lines = measure(segments_in(model, runtime), model, policy, 1, time.perf_counter)
    return {k: line.seconds(1) for k, line in lines.items()}


def segments_in(model: EarlyExitModel, runtime: str | Runtime) -> Segments:
    """A model in pieces. Raises ``UsageError`` for a runtime that computes files alone."""
    opened = open_runtime(runtime)
    segments: Any = getattr(opened, "segments", None)
    if segments is None:
        raise UsageError(f"{opened.name} computes whole files; a split needs one that computes segments: torch")
    found: Segments = segments(model.eval())
    return found


def open_client(url: str, key: str | None) -> httpx.Client:
    """A client that keeps one connection, with the key that a server wants."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=url.rstrip("/"), headers=headers, limits=httpx.Limits(max_connections=1))
