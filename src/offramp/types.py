"""The values that travel down the road: they know how to be taken apart, saved and loaded, and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

State = tuple[Tensor, ...]
"""What a policy remembers: tensors whose first dimension is the sample."""

Network = Callable[[Tensor], Tensor]
"""Images ``(B, C, H, W)`` to outputs ``(B, num_outputs)``."""


@dataclass(frozen=True)
class Exit:
    """A head at a place in the backbone.

    Args:
        after: the 1-based number of the block whose output the exit reads, as the papers count; or the path of its
            module in the timm model, such as ``layers.2.blocks.3``. A model knows its exits by number.
        head: a name from ``offramp list heads``, or anything callable as ``head(tap, num_outputs, **options)``
            that returns a module.
        options: keyword arguments for the head.
    """

    after: int | str
    head: str | Callable[..., nn.Module] = "linear"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tap:
    """A place after a backbone block where an exit can read, and the shape of what it reads there.

    Args:
        after: the 1-based number of the block.
        dim: the width of a token.
        grid: rows and columns of the patch tokens.
        prefix: how many prefix tokens (class, distillation, registers) stand before the patch tokens.
        summary: how many of the prefix tokens, counted from the first, summarise the image (class, distillation).
    """

    after: int
    dim: int
    grid: tuple[int, int]
    prefix: int = 0
    summary: int = 0

    @property
    def tokens(self) -> int:
        """How many tokens a head reads here: prefix tokens and patch tokens together."""
        return self.prefix + self.grid[0] * self.grid[1]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a policy is told at an exit about the samples that are still in the network.

    Args:
        exit: the index of the exit, 0 for the first.
        output: the head's output, shape ``(n, num_outputs)``.
        score: how sure the exit is, shape ``(n,)``, between 0 and 1, higher is surer.
        task: what an output means: other scores, answers, ensembles of outputs (``offramp.tasks.Task``).
        previous: the output of the exit that ran before, for scores that compare the two; None at the first.
    """

    exit: int
    output: Tensor
    score: Tensor
    task: Any = None
    previous: Tensor | None = None


class Decision(NamedTuple):
    """What a policy says at an exit.

    Args:
        leave: who leaves here, bool ``(n,)``.
        state: what is remembered about all ``n``, leavers included.
        output: what is answered here, ``(n, num_outputs)``, where that is not the head's own output.
    """

    leave: Tensor
    state: State
    output: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Trace:
    """What came out of a run.

    Args:
        output: the output of the exit that each sample left at, shape ``(B, num_outputs)``.
        exit: the index of that exit, shape ``(B,)``; the final exit has the highest index.
        score: the score at that exit, shape ``(B,)``.
    """

    output: Tensor
    exit: Tensor
    score: Tensor

    def take(self, rows: Tensor) -> Trace:
        """The same for some of the samples, in the order of ``rows``."""
        return Trace(self.output[rows], self.exit[rows], self.score[rows])

    @staticmethod
    def cat(traces: list[Trace]) -> Trace:
        """Several traces, one after the other."""
        return Trace(
            torch.cat([t.output for t in traces]),
            torch.cat([t.exit for t in traces]),
            torch.cat([t.score for t in traces]),
        )


@dataclass(frozen=True, eq=False)
class ExitTable:
    """Every exit's output for every sample of a data set: all that calibration, replay and reports need.

    Args:
        outputs: float32 ``(exits, samples, num_outputs)``, exits in order, the final exit last; of a compact table
            float16, distances from the largest of each row.
        targets: what is true, shape ``(samples,)``.
        after: for each exit the block that it reads; the final exit has the depth of the backbone.
        heads: for each exit the name of its head; the final exit is called ``final``.
        task: the name of the task that says what an output means.
        provenance: data set, split, runtime, precision, versions: where the numbers come from.
        largest: of each row of a compact table, float32 ``(exits, samples)``.
    """

    outputs: Tensor
    targets: Tensor
    after: tuple[int, ...]
    heads: tuple[str, ...]
    task: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    largest: Tensor | None = None

    def __len__(self) -> int:
        return self.outputs.shape[1]

    def of(self, k: int) -> Tensor:
        """The outputs of one exit, float32 ``(samples, num_outputs)``."""
        own = self.outputs[k].float()
        return own if self.largest is None else own + self.largest[k][:, None]

    def each(self) -> Iterator[Tensor]:
        """The outputs of every exit in turn, as ``of`` gives them."""
        return map(self.of, range(len(self.outputs)))

    def take(self, rows: Tensor | slice) -> ExitTable:
        """The same table for some of the samples, in the order of ``rows``."""
        largest = None if self.largest is None else self.largest[:, rows]
        about = dict(self.provenance)
        return ExitTable(self.outputs[:, rows], self.targets[rows], self.after, self.heads, self.task, about, largest)

    def compact(self) -> ExitTable:
        """The same in half the space.

        The largest output of a row is kept as it is, the others as their distance from it in float16: exact to one part
        in two thousand of the distance, so that what is near the largest is told apart from it, and no answer changes.
        """
        if self.largest is not None:
            return self
        outputs = torch.empty(self.outputs.shape, dtype=torch.float16)
        largest = torch.empty(self.outputs.shape[:2])
        for k, own in enumerate(self.each()):
            outputs[k], largest[k] = distances(own)
        return ExitTable(outputs, self.targets, self.after, self.heads, self.task, dict(self.provenance), largest)


def distances(output: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs ``(n, num_outputs)`` as a compact table keeps them: float16 distances, and the largest ``(n,)``."""
    largest = output.amax(1)
    return (output - largest[:, None]).clamp(min=-65504).half(), largest


@dataclass(frozen=True)
class PartCosts:
    """One number for each part of a model: stem, every backbone block, every head, and the final classifier."""

    stem: float
    steps: tuple[float, ...]
    heads: tuple[float, ...]
    final: float

    @property
    def static(self) -> float:
        """The backbone as it was before exits were attached."""
        return self.stem + sum(self.steps) + self.final


@dataclass(frozen=True)
class CostTable:
    """What every part of a model costs.

    Args:
        after: for each early exit the block that it reads.
        macs: multiply-adds of one sample.
        seconds: median wall-clock seconds of a batch of ``batch_size``; None where nothing was timed.
        p95: the 95th percentile of the same.
        batch_size: the batch that was timed.
        conditions: device, threads, precision, versions.
    """

    after: tuple[int, ...]
    macs: PartCosts
    seconds: PartCosts | None = None
    batch_size: int = 1
    conditions: Mapping[str, Any] = field(default_factory=dict)
    p95: PartCosts | None = None

    def in_unit(self, unit: str) -> PartCosts:
        """The parts in one unit, ``macs``, ``seconds`` or ``p95``; ``ValueError`` where that was not measured."""
        chosen = {"macs": self.macs, "seconds": self.seconds, "p95": self.p95}.get(unit)
        if chosen is None:
            raise ValueError(f"this cost table has no {unit!r}")
        return chosen

    def to_exit(self, heads: tuple[int, ...], unit: str = "macs") -> tuple[float, ...]:
        """The cost of leaving at each exit, the final exit last, when only ``heads`` (indices) run on the way."""
        parts = self.in_unit(unit)
        costs, spent, done = [], parts.stem, 0
        for k, after in enumerate(self.after):
            spent += sum(parts.steps[done:after])
            done = after
            if k in heads:
                spent += parts.heads[k]
            costs.append(spent)
        return (*costs, spent + sum(parts.steps[done:]) + parts.final)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> CostTable:
        """Back from plain values. Raises ``ValueError`` where they are not those of a cost table."""
        found = TypeAdapter(CostTable).validate_json(json.dumps(dict(values)), strict=True)
        depth = len(found.macs.steps)
        if list(found.after) != sorted(found.after) or not all(1 <= after < depth for after in found.after):
            raise ValueError(f"its exits {list(found.after)} are no places after {depth} blocks")
        if found.batch_size < 1:
            raise ValueError(f"its batch size is {found.batch_size}")
        for parts in (found.macs, found.seconds, found.p95):
            if parts is None:
                continue
            if (len(parts.steps), len(parts.heads)) != (depth, len(found.after)):
                raise ValueError(f"it has not one number for each of {depth} blocks and {len(found.after)} heads")
            if not all(0 <= value < math.inf for value in (parts.stem, *parts.steps, *parts.heads, parts.final)):
                raise ValueError("a cost is a number of at least 0")
        return found
