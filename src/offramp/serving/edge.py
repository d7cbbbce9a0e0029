"""A model in two places: the first segments here, the rest on a server, for those who are not sure here."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from offramp._batches import Inputs, count, parts
from offramp.engine import Runtime, open_runtime
from offramp.engine.loop import Segments, Walk
from offramp.engine.run import check_policy, prepared
from offramp.errors import DataError, UsageError
from offramp.model import EarlyExitModel
from offramp.policies import Policy
from offramp.serving.form import Form
from offramp.serving.line import Line
from offramp.serving.measure import measure
from offramp.serving.oip import Values, read_response, write_request
from offramp.serving.states import States
from offramp.types import Trace

try:
    import httpx
except ImportError as error:
    raise UsageError("asking a server needs one more package: pip install 'offramp[edge]'") from error

NOTHING = -1
"""The split at which nothing is computed here."""
Said = tuple[Tensor, int, float]
"""An output, the exit that said it, and how sure it was."""

_PROBES = (1_000, 50_000, 200_000)
"""Bytes that are sent to find out what the way is like, each a few times."""
_TIMES = 3


@dataclass(frozen=True, eq=False)
class EdgeAnswer:
    """What a sample was answered.

    Args:
        output: float32 ``(num_outputs,)``.
        exit: the index of the exit that said it.
        score: how sure it was.
        where: ``here``, ``server``, or ``cut off``: it should have gone on, and nobody answered in time.
        sent: bytes of the request.
        seconds: from the sample to the answer.
    """

    output: Tensor
    exit: int
    score: float
    where: str
    sent: int
    seconds: float


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


class Edge:
    """The first segments of a model here, and a server of ``offramp serve`` with the same model for the rest.

    Samples that leave by the policy up to the exit ``split`` are answered here. Of the others the tokens behind that
    exit are sent in int8 (``States``), with what the exit said; the server goes on from there, and answers at the
    latest with that. Where nobody answers within the limit, or with anything but an answer, the answer is the last one
    from here.

    Args:
        model: of one path.
        policy: who leaves where; the server's own decides there.
        url: the server's address, such as ``http://10.0.0.5:8000``.
        name: the model's name there.
        split: the index of the last exit here, one that is asked; the final exit to send nothing, −1 to compute nothing
            here as long as somebody answers.
        runtime: a name from ``offramp list runtimes`` that computes segment by segment, or such a runtime.
        key: that the server wants.

    Raises:
        UsageError: a model of several paths, a split that is not asked, a runtime that computes files alone.
    """

    def __init__(
        self,
        model: EarlyExitModel,
        policy: Policy,
        url: str,
        name: str,
        split: int,
        runtime: str | Runtime = "torch",
        key: str | None = None,
    ) -> None:
        check_policy(model, policy)
        if model.chain.num_paths > 1:
            raise UsageError("only models of one path are split: on others a sample may begin anew behind a path's end")
        if split not in (NOTHING, *policy.heads, len(model.exits)):
            raise UsageError(
                f"the split is exit {split}; the policy asks {', '.join(map(str, policy.heads)) or 'none'}"
            )
        self.model, self.policy, self.split = model, policy, split
        self._segments = _segments(model, runtime)
        self._states = States(model, policy, self._segments)
        self._form, whole = Form(model, 1), f"/v2/models/{name}"
        self._path = f"{whole}/infer" if split == NOTHING else f"{whole}/from/{split}/infer"
        self._client = _client(url, key)

    def __enter__(self) -> Edge:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def answer(self, x: Inputs, limit: float = 30.0, file: bytes | None = None) -> EdgeAnswer:
        """What a sample is answered.

        Args:
            x: a batch of one, as the model's input prepares it.
            limit: seconds from now.
            file: what it was read from, which is sent where nothing is computed here; the prepared sample if not given.

        Raises:
            DataError: another shape than the model takes, values that are not finite, or more than one sample.
            UsageError: a limit that is none.
        """
        begun = time.perf_counter()
        if not 0 < limit < math.inf:
            raise UsageError(f"the limit is {limit} s; it is above 0, and finite")
        x = prepared(self.model, x)
        if count(x) != 1:
            raise DataError(f"one sample at a time, not {count(x)}")
        size, found, last = 0, None, None
        if self.split == NOTHING:
            names = self.model.input.shapes
            given: dict[str, Values] = dict(zip(names, (part.cpu().numpy() for part in parts(x)), strict=True))
            size, found = self._ask(given if file is None else {self._form.file: [file]}, begun + limit)
            if found is None:
                last = self._compute(x)[0]
        else:
            last, inputs = self._compute(x)
            if inputs is not None:
                size, found = self._ask(inputs, begun + limit)
        where = "server" if found is not None else "cut off" if size else "here"
        told = found or last
        assert told is not None
        return EdgeAnswer(*told, where, size, time.perf_counter() - begun)

    def _compute(self, x: Inputs) -> tuple[Said, dict[str, Values] | None]:
        """What the last exit here says of a sample, and what is sent where it goes on."""
        with torch.inference_mode():
            walk, said, at = Walk(self._segments, x, self.policy, self.model.task), None, 0
            for k, answered in walk:
                if answered is not None:
                    said, at = answered, k
                if k == self.split:
                    break
            assert walk.cohort is not None
            assert said is not None
            here = said.output[0].cpu(), at, float(said.score[0])
            goes_on = len(walk.cohort) > 0 and at == self.split
            return here, self._states.write(walk.cohort, said.output, said.score) if goes_on else None

    def size(self) -> int:
        """Bytes of a request at this split."""
        stay = self._states.blank(self.split)
        output = torch.zeros(1, self.model.num_outputs)
        return len(write_request(self._states.write(stay, output, torch.zeros(1)), {"deadline_ms": 1e3})[0])

    def _ask(self, inputs: Mapping[str, Values], due: float) -> tuple[int, Said | None]:
        """Bytes of the request, and what the server says; None where it says nothing that helps."""
        left = due - time.perf_counter()
        body, headers = write_request(inputs, {"deadline_ms": 1e3 * max(left, 1e-3)})
        if left <= 0:
            return len(body), None
        try:
            answer = self._client.post(self._path, content=body, headers=headers, timeout=left)
            if answer.status_code != 200:
                return len(body), None
            said = read_response(answer.content)
            output = torch.tensor(said["output"], dtype=torch.float32)
            if output.shape != (self.model.num_outputs,):
                return len(body), None
            return len(body), (output, int(said["exit"][0]), float(said["score"][0]))
        except (httpx.HTTPError, DataError, KeyError, IndexError, TypeError, ValueError):
            return len(body), None


def way_to(url: str, key: str | None = None) -> Way:
    """Measure what sending takes: a few requests of several sizes, the quickest of each.

    Raises:
        UsageError: nobody answers there as ``offramp serve`` does.
    """
    points = []
    try:
        with _client(url, key) as client:
            for size in (_PROBES[0], *_PROBES):  # the first one opens the connection
                seconds = []
                for _ in range(_TIMES):
                    begun = time.perf_counter()
                    answer = client.post("/v2/probe", content=bytes(size), timeout=60)
                    seconds.append(time.perf_counter() - begun)
                    if answer.status_code != 204:
                        raise UsageError(
                            f"{url} answers {answer.status_code}: no server of offramp, or not with this key"
                        )
                points.append((size, min(seconds)))
    except httpx.HTTPError as error:
        raise UsageError(f"nobody answers at {url}: {error}") from error
    line = Line.through(points[1:])
    return Way(line.b, line.a)


def seconds_there(url: str, name: str, key: str | None = None) -> dict[int, float]:
    """What a sample alone takes on a server from one exit that is asked to the next, by the later one's index.

    Raises:
        UsageError: nobody answers there as ``offramp serve`` does.
    """
    try:
        with _client(url, key) as client:
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
        lines = measure(_segments(model, runtime), model, policy, 1, time.perf_counter)
    return {k: line.seconds(1) for k, line in lines.items()}


def _segments(model: EarlyExitModel, runtime: str | Runtime) -> Segments:
    opened = open_runtime(runtime)
    segments: Any = getattr(opened, "segments", None)
    if segments is None:
        raise UsageError(f"{opened.name} computes whole files; a split needs one that computes segments: torch")
    found: Segments = segments(model.eval())
    return found


def _client(url: str, key: str | None) -> httpx.Client:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=url.rstrip("/"), headers=headers, limits=httpx.Limits(max_connections=1))
