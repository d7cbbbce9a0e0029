"""A model in two places: the first segments here, the rest on a server, for those who are not sure here."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from offramp._batches import Inputs, count, parts
from offramp.engine import Runtime
from offramp.engine.loop import Walk
from offramp.engine.run import check_policy, prepared
from offramp.errors import DataError, UsageError
from offramp.model import EarlyExitModel
from offramp.policies import Policy
from offramp.protocol.form import Form
from offramp.protocol.oip import Values, read_response, write_request
from offramp.protocol.split import FAULT, NOTHING, open_client, segments_in
from offramp.protocol.states import States

Said = tuple[Tensor, int, float]
"""An output, the exit that said it, and how sure it was."""


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
        self._segments = segments_in(model, runtime)
        self._states = States(model, policy, self._segments)
        self._form, whole = Form(model, 1), f"/v2/models/{name}"
        self._path = f"{whole}/infer" if split == NOTHING else f"{whole}/from/{split}/infer"
        self._client = open_client(url, key)

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
        assert stay.previous is not None
        return len(write_request(self._states.write(stay, stay.previous, torch.zeros(1)), {"deadline_ms": 1e3})[0])

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
        except (FAULT, DataError, KeyError, IndexError, TypeError, ValueError):
            return len(body), None
