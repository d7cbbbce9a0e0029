"""A model that is opened, and its answers to files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from offramp._batches import Inputs, loaded
from offramp.engine.runtime import Runtime, Session
from offramp.errors import DataError
from offramp.inputs import Input, cut
from offramp.model import EarlyExitModel
from offramp.policies import Policy
from offramp.tasks import Task, get_task
from offramp.types import Chain, Trace

if TYPE_CHECKING:
    from offramp.engine.file import FileSession


class Opened(NamedTuple):
    """What answers, and what its answers mean.

    Args:
        session: the model, opened in a runtime.
        policy: the policy to run it with; None for its own.
        task: what an output means.
        input: what a file holds, and how it is prepared.
        classes: the names of the classes.
        chain: where the exits stand.
        raw: whether the session takes samples as they are.
    """

    session: Session
    policy: Policy | None
    task: Task
    input: Input
    classes: Sequence[str] | None
    chain: Chain
    raw: bool = False

    def warm(self) -> Trace:
        """What is said of noise: the first run is slow, and no file's own."""
        return self.session(self.input.example(1, raw=self.raw), self.policy)


def open_model(model: EarlyExitModel, policy: Policy, runtime: Runtime) -> Opened:
    """A model with a policy."""
    session = runtime.dynamic(model, policy)
    return Opened(session, None, model.task, model.input, model.classes, model.chain)


def open_file(session: FileSession, policy: Policy | None = None) -> Opened:
    """An exported file, with its own policy or the numbers of another."""
    file = session.file
    classes = file.about["classes"]
    return Opened(session, policy, get_task(file.about["task"]), file.input, classes, file.chain, session.raw)


def answered(opened: Opened, names: Sequence[str], read: Callable[[str], Any]) -> list[dict[str, Any]]:
    """Samples, read and computed as one batch; raw ones, which may differ in size, one after the other.

    Args:
        opened: what answers.
        names: of the samples.
        read: from a name to the sample, or a ``DataError``.

    Returns:
        in their order, for each ``input``, its name, and ``label``, ``score``, ``exit``, ``after`` (the block behind
        which it left), ``path`` where the model has several, and ``ms``, what computing its batch took by sample; or
        ``input`` and ``error``, one sentence, where it could not be read. Of a model that counts in crops: the sum over
        the crops, the lowest of their scores, the last of their exits, and what all of them took.
    """
    rows: list[dict[str, Any]] = [{"input": name} for name in names]
    prepare = opened.input.raw if opened.raw else opened.input.transform()
    ready: list[tuple[dict[str, Any], Inputs]] = []
    crops: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    for row, name in zip(rows, names, strict=True):
        try:
            parts = [prepare(crop) for crop in cut(read(name), opened.input.crops)]
            own = [row] if len(parts) == 1 else [{} for _ in parts]
            ready += zip(own, parts, strict=True)
            crops.append((row, own))
        except DataError as error:
            row["error"] = str(error)
    if opened.raw:
        batches = [([row], x) for row, x in ready]
    elif ready:
        batches = [([row for row, _ in ready], loaded(torch.utils.data.default_collate([x for _, x in ready])))]
    else:
        batches = []
    for those, x in batches:
        try:
            _fill(opened, those, x)
        except DataError as error:  # a raw sample of a size that the file does not take
            for row in those:
                row["error"] = str(error)
    for row, own in crops:
        if len(own) > 1:
            row.update(_summed(own))
    return rows


def _summed(crops: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """An image's row from those of its crops: their sum, the least sure score, the last exit that one left at."""
    last = max(crops, key=lambda crop: crop["exit"])
    return {
        **last,
        "label": sum(crop["label"] for crop in crops),
        "score": min(crop["score"] for crop in crops),
        "ms": sum(crop["ms"] for crop in crops),
    }


def _fill(opened: Opened, rows: Sequence[dict[str, Any]], x: Inputs) -> None:
    start = time.perf_counter()
    trace = opened.session(x, opened.policy)
    labels = opened.task.answer(trace.output).tolist()
    spent = 1000 * (time.perf_counter() - start) / len(rows)
    paths = opened.chain.paths if opened.chain.num_paths > 1 else None
    for row, label, score, left in zip(rows, labels, trace.score.tolist(), trace.exit.tolist(), strict=True):
        row["label"] = label if opened.classes is None else opened.classes[int(label)]
        row.update(score=score, exit=left, after=opened.chain.after[left])
        if paths is not None:
            row["path"] = paths[left]
        row["ms"] = spent
