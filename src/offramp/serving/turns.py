"""Samples that came at different times: joined to a batch, computed one segment on, and parted again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from offramp._batches import Inputs, cat, take
from offramp.engine.loop import Answered, Arrived, Cohort, Segments, advance, arrive, enter
from offramp.policies import Policy
from offramp.tasks import Task
from offramp.types import Chain, Decision, Evidence, State


class Standing:
    """A sample between two segments.

    Args:
        x: the sample, a batch of one.
        last: the index of the exit at which it leaves at the latest.
        threshold: by which it leaves in place of the policy's word; None where the policy decides.
    """

    __slots__ = ("cohort", "last", "onto", "row", "threshold", "x")

    def __init__(self, x: Inputs, last: int, threshold: float | None = None) -> None:
        self.x, self.last, self.threshold = x, last, threshold
        self.onto: int | None = None
        """The path where it begins, once that is known."""
        self.cohort: Cohort | None = None
        """Those with whom it was computed last; none before its first segment."""
        self.row = 0
        """Its place among them."""


class Turn(NamedTuple):
    """What became of a batch.

    Args:
        computed: the places of those who came to the exit.
        answered: what it says to them, with rows that are places in the batch; None where there are none.
        stays: for each of ``computed`` whether it goes on.
        sent: of samples that begin at another path, behind this exit, their places and that path's first segment.
    """

    computed: list[int]
    answered: Answered | None
    stays: list[bool]
    sent: Mapping[int, int]


@dataclass(frozen=True)
class Bounded:
    """A policy, and for each row of a batch when it leaves in place of the policy's word, and at the latest.

    Args:
        policy: who leaves where.
        last: the exit at which a row leaves at the latest, ``(n,)``.
        thresholds: in place of the policy's word, ``(n,)``; not a number where it has none.
    """

    policy: Policy
    last: Tensor
    thresholds: Tensor
    temperatures: tuple[float, ...]

    @property
    def heads(self) -> tuple[int, ...]:
        """Those that the policy asks."""
        return self.policy.heads

    @property
    def score(self) -> str:
        """The kind that it reads."""
        return self.policy.score

    def init(self, n: int) -> State:
        """What the policy remembers before the first exit."""
        return self.policy.init(n)

    def step(self, state: State, evidence: Evidence) -> Decision:
        """What the policy says, unless the row has a threshold, or leaves here at the latest."""
        said, own = self.policy.step(state, evidence), self.thresholds.to(evidence.score)
        leave = torch.where(own.isnan(), said.leave, evidence.score >= own)
        return said._replace(leave=leave | (self.last.to(leave.device) <= evidence.exit))


def ways(chain: Chain, heads: Sequence[int]) -> tuple[dict[int, list[int]], list[int]]:
    """For each exit that is asked the segments that lead to it from the one before; and the first after each entry."""
    runs, asked = chain.runs(heads), [*sorted(heads), len(chain.after) - 1]
    found = {
        k: [j for j in range(before + 1, k + 1) if runs[j]] for before, k in zip((-1, *asked), asked, strict=False)
    }
    first = [min(k for k in asked if k >= chain.starts[path]) for path in sorted({*chain.entered(heads)})]
    return found, first


def turn(segments: Segments, policy: Policy, task: Task, way: Sequence[int], batch: Sequence[Standing]) -> Turn:
    """Samples that stand before the same segment, on to the next exit that is asked.

    What each is answered does not depend on the others, as for cohorts that are joined.

    Args:
        segments: what computes.
        policy: who enters and leaves where.
        task: what an output means.
        way: the segments to that exit, by index, but for those of which nothing is computed.
        batch: who stands before the first of them.
    """
    here, sent = list(range(len(batch))), dict[int, int]()
    answered, stays = None, list[bool]()
    for k in way:
        here += [place for place, at in sent.items() if at == k]
        sent = {place: at for place, at in sent.items() if at != k}
        if k in segments.chain.starts:
            here, cohort = _enter(segments, policy, k, batch, here, sent)
        else:
            here, cohort = _joined(batch, here)
        if here:
            bounded = _bounded(policy, [batch[place] for place in here], len(segments.chain.after) - 1)
            cohort, answered = advance(segments, bounded, task, k, cohort)
            stays = _stand(batch, here, cohort)
    return Turn(here, answered, stays, sent)


def _bounded(policy: Policy, rows: Sequence[Standing], final: int) -> Any:
    """The policy for these rows; itself where none of them has a threshold or a latest exit of its own."""
    if all(row.threshold is None and row.last == final for row in rows):
        return policy
    return Bounded(
        policy,
        torch.tensor([row.last for row in rows]),
        torch.tensor([math.nan if row.threshold is None else row.threshold for row in rows], dtype=torch.float64),
        getattr(policy, "temperatures", ()),
    )


def _stand(batch: Sequence[Standing], places: Sequence[int], cohort: Cohort) -> list[bool]:
    """Those of a cohort stand in it from now on; for each of the places whether it is among them."""
    rows = cohort.rows.tolist()
    for row, place in enumerate(rows):
        batch[place].cohort, batch[place].row = cohort, row
    stays = {*rows}
    return [place in stays for place in places]


def _enter(
    segments: Segments,
    policy: Policy,
    k: int,
    batch: Sequence[Standing],
    places: Sequence[int],
    sent: dict[int, int],
) -> tuple[list[int], Cohort]:
    """Those who come to a path from the one before, then those who begin there; and who was sent elsewhere."""
    path, starts = segments.chain.paths[k], segments.chain.starts
    coming = [i for i in places if batch[i].cohort is not None]
    new = [i for i in places if batch[i].cohort is None]
    unknown, begun = [i for i in new if batch[i].onto is None], None
    if unknown:
        arrived = arrive(segments, cat([batch[i].x for i in unknown]), policy)
        onto = [arrived.first] * len(unknown) if arrived.onto is None else arrived.onto.tolist()
        for i, there in zip(unknown, onto, strict=True):
            batch[i].onto = there
            if there != path:
                sent[i] = starts[there]
        here = [row for row, there in enumerate(onto) if there == path]
        if arrived.begun is not None and here and len(unknown) == len(new) and path == 0:
            begun = take(arrived.begun, torch.tensor(here, device=arrived.onto.device))  # type: ignore[union-attr]
        new = [i for i in new if i not in sent]
    before = None
    if coming:
        coming, before = _joined(batch, coming)
        before = replace(before, rows=torch.arange(len(coming), device=before.rows.device))
    here = coming + new
    if not here:
        return here, Cohort(torch.empty(0, dtype=torch.long), None, ())
    x = cat([batch[i].x for i in here])
    of = torch.tensor([-1] * len(coming) + [path] * len(new))
    device = _device(x)
    state = tuple(s.to(device) for s in policy.init(len(here)))
    entered = enter(segments, Arrived(x, state, None, of.to(device), path, begun), path, before)
    return here, replace(entered, rows=torch.tensor(here, device=device))


def _joined(batch: Sequence[Standing], places: Sequence[int]) -> tuple[list[int], Cohort]:
    """Samples of several cohorts as one, and their places in its order; its rows are those places."""
    if not places:
        return [], Cohort(torch.empty(0, dtype=torch.long), None, ())
    groups: dict[int, list[int]] = {}
    for place in places:
        groups.setdefault(id(batch[place].cohort), []).append(place)
    order, found = [], []
    for group in groups.values():
        cohort, rows = batch[group[0]].cohort, [batch[place].row for place in group]
        assert cohort is not None
        whole = rows == list(range(len(cohort)))
        found.append(cohort if whole else cohort.take(torch.tensor(rows, device=cohort.rows.device)))
        order += group
    joined = found[0] if len(found) == 1 else Cohort.cat(found)
    return order, replace(joined, rows=torch.tensor(order, device=joined.rows.device))


def _device(x: Inputs) -> torch.device:
    return (x[0] if isinstance(x, tuple) else x).device
