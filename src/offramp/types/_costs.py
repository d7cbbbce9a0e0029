"""What the parts of a model cost, in multiply-adds and in seconds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter

from offramp.types._chain import Chain, ChainCosts, chain_of, segment_sums


@dataclass(frozen=True)
class PartCosts:
    """One number for each part of a model: stem, every backbone block, every head, and the final classifier.

    Args:
        stem: from a sample to the state before the first block.
        steps: every block.
        heads: every early exit's head on this path.
        final: the path's own classifier.
        link: what it adds to go on from the path before.
        cheaper: the same of the paths before this one, the cheapest first.
        router: what says where a sample enters.
        ahead: what the router reads of the cheapest path: its stem and first blocks.
        side: encoding the other modality, where exits read one.
        hears: whether the final exit reads it.
    """

    stem: float
    steps: tuple[float, ...]
    heads: tuple[float, ...]
    final: float
    link: float = 0.0
    cheaper: tuple[PartCosts, ...] = ()
    router: float = 0.0
    ahead: float = 0.0
    side: float = 0.0
    hears: bool = False

    @property
    def static(self) -> float:
        """The network without early exits and paths: what is needed to answer at the final exit."""
        return self.stem + sum(self.steps) + self.final + (self.side if self.hears else 0.0)

    @property
    def paths(self) -> tuple[PartCosts, ...]:
        """All paths, this one last."""
        return (*self.cheaper, self)

    def numbers(self) -> Iterator[float]:
        """Every number in it."""
        yield from (self.router, self.ahead, self.side)
        for path in self.paths:
            yield from (path.stem, *path.steps, *path.heads, path.final, path.link)


@dataclass(frozen=True)
class CostTable:
    """What every part of a model costs.

    Args:
        after: for each early exit the block of its path that it reads.
        macs: multiply-adds of one sample.
        seconds: median wall-clock seconds of a batch of ``batch_size``; None where nothing was timed.
        batch_size: the batch that was timed.
        conditions: device, threads, precision, versions.
        p95: the 95th percentile of the seconds.
        linked: whether paths are linked.
        asks: whether the router is asked in every run, as in a file that was exported with it.
        side: the exits that read another modality, by index.
    """

    after: tuple[int, ...]
    macs: PartCosts
    seconds: PartCosts | None = None
    batch_size: int = 1
    conditions: Mapping[str, Any] = field(default_factory=dict)
    p95: PartCosts | None = None
    linked: bool = False
    asks: bool = False
    side: tuple[int, ...] = ()

    @property
    def chain(self) -> Chain:
        """Where the exits stand, the final exit last."""
        paths = [p for p, costs in enumerate(self.macs.paths) for _ in range(len(costs.heads) + 1)]
        return chain_of((*self.after, len(self.macs.steps)), paths, self.linked, self.side)

    def in_unit(self, unit: str) -> PartCosts:
        """The parts in one unit, ``macs``, ``seconds`` or ``p95``; ``ValueError`` where that was not measured."""
        chosen = {"macs": self.macs, "seconds": self.seconds, "p95": self.p95}.get(unit)
        if chosen is None:
            raise ValueError(f"this cost table has no {unit!r}")
        return chosen

    def in_chain(self, unit: str = "macs") -> ChainCosts:
        """The costs of the chain of exits; ``ValueError`` where the unit was not measured."""
        parts, chain = self.in_unit(unit), self.chain
        segments: list[float] = []
        heads: list[float] = []
        for path, start, end in zip(parts.paths, chain.starts, chain.ends, strict=True):
            own = segment_sums(chain.after[start:end], path.steps)
            own[0] += path.stem
            segments += own
            heads += [*path.heads, path.final]
        segments[-1] += heads.pop()
        links = tuple(path.link for path in parts.paths[1:])
        return ChainCosts(chain, tuple(segments), tuple(heads), links, parts.router, parts.ahead, self.asks, parts.side)

    def to_exit(
        self, heads: Sequence[int], unit: str = "macs", entry: int = 0, routed: bool = False
    ) -> tuple[float, ...]:
        """The cost of leaving at each exit, the final exit last, when only ``heads`` (indices) run on the way.

        Args:
            heads: the indices of the exits that are asked.
            unit: ``macs``, ``seconds`` or ``p95``.
            entry: the path where a sample enters.
            routed: whether the router was asked where.
        """
        return self.in_chain(unit).to_exit(heads, entry, routed)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> CostTable:
        """Back from plain values. Raises ``ValueError`` where they are not those of a cost table."""
        found = TypeAdapter(CostTable).validate_json(json.dumps(dict(values)), strict=True)
        if found.batch_size < 1:
            raise ValueError(f"its batch size is {found.batch_size}")
        if any(path.cheaper for path in found.macs.cheaper):
            raise ValueError("a path before the last has paths of its own")
        layout = _layout(found.macs)
        for parts in (found.macs, found.seconds, found.p95):
            if parts is None:
                continue
            if _layout(parts) != layout:
                raise ValueError("its units speak of other blocks or heads")
            if not all(0 <= value < math.inf for value in parts.numbers()):
                raise ValueError("a cost is a number of at least 0")
            if parts.hears != (len(found.after) in found.side):
                raise ValueError("it is at odds with itself over what the final exit reads")
        _check_places(found)
        return found


def _layout(parts: PartCosts) -> list[tuple[int, int]]:
    """For each path how many blocks and how many exits it has."""
    return [(len(path.steps), len(path.heads)) for path in parts.paths]


def _check_places(costs: CostTable) -> None:
    """Raise ``ValueError`` unless exits stand behind blocks that there are, in their order, with a head each."""
    if len(costs.after) != sum(heads + 1 for _, heads in _layout(costs.macs)) - 1:
        raise ValueError(f"it has not one number for each of {len(costs.after)} heads")
    chain = costs.chain
    for (depth, _), start, end in zip(_layout(costs.macs), chain.starts, chain.ends, strict=True):
        after = chain.after[start:end]
        if list(after) != sorted(after) or not all(1 <= place < depth for place in after) or chain.after[end] != depth:
            raise ValueError(f"its exits {list(after)} are no places after {depth} blocks")
