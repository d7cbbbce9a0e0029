"""The chain of exits: those of all paths through a model, one path behind the other, the cheapest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise


@dataclass(frozen=True)
class Chain:
    """Where the exits of a model stand. A model without paths has one.

    A sample enters at the first exit's segment of some path; where no exit of a path lets it go, it goes over to the
    next path and begins there anew. The last exit of each path is that path's own classifier, the last of all the final
    exit.

    Args:
        after: for each exit the block of its path that it reads, from 1.
        paths: for each exit the number of its path, from 0.
        linked: whether a path takes over what the one before computed, which is then always computed to its end.
        side: the exits that also read another modality, by index. An exit table knows nothing of it, so chains are
            equal without it.

    Raises:
        ValueError: exits in no order, or a side of exits that there are not.
    """

    after: tuple[int, ...]
    paths: tuple[int, ...]
    linked: bool = False
    side: tuple[int, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        places = list(zip(self.paths, self.after, strict=True))
        dense = sorted({*self.paths}) == list(range(len({*self.paths})))
        if not places or not dense or places != sorted(places) or min(self.after) < 1:
            raise ValueError("its exits are in no order")
        if not {*self.side} <= {*range(len(self.paths))}:
            raise ValueError(f"it has {len(self.paths)} exits, and of them {list(self.side)} read another modality")

    @property
    def num_paths(self) -> int:
        """How many paths there are."""
        return self.paths[-1] + 1

    @property
    def starts(self) -> tuple[int, ...]:
        """For each path the index of its first exit."""
        return tuple(self.paths.index(path) for path in range(self.num_paths))

    @property
    def ends(self) -> tuple[int, ...]:
        """For each path the index of its own classifier."""
        return (*(start - 1 for start in self.starts[1:]), len(self.paths) - 1)

    def runs(self, heads: Sequence[int]) -> tuple[bool, ...]:
        """For each exit whether the segment that leads to it is computed for who stands before it.

        What lies behind the last exit that is asked on a path is computed for nobody, but on the last path, and where a
        link reads it.

        Args:
            heads: the indices of the exits that are asked.
        """
        last = {path: max((k for k in heads if self.paths[k] == path), default=-1) for path in range(self.num_paths)}
        whole = {path for path in range(self.num_paths) if self.linked or path == self.num_paths - 1}
        return tuple(path in whole or k <= last[path] for k, path in enumerate(self.paths))

    def entered(self, heads: Sequence[int]) -> tuple[int, ...]:
        """For each path the one where those who enter at it are first computed: the next of which anything runs."""
        running = [path for path, start in enumerate(self.starts) if self.runs(heads)[start]]
        return tuple(next(later for later in running if later >= path) for path in range(self.num_paths))

    def heard(self, heads: Sequence[int]) -> int | None:
        """The exit before which the other modality is encoded, once for all later ones; None where it never is.

        Args:
            heads: the indices of the exits that are asked; the final exit is asked in any case.
        """
        return min((k for k in (*heads, len(self.paths) - 1) if k in self.side), default=None)

    def only(self, heads: Sequence[int]) -> Chain:
        """The chain with some of the early exits, and the final one."""
        kept = (*heads, len(self.paths) - 1)
        number = {path: i for i, path in enumerate(dict.fromkeys(self.paths[k] for k in kept))}
        side = tuple(i for i, k in enumerate(kept) if k in self.side)
        return Chain(tuple(self.after[k] for k in kept), tuple(number[self.paths[k]] for k in kept), self.linked, side)

    @property
    def blocks(self) -> ChainCosts:
        """How many blocks lead to each exit, as costs: what they sum up to is depth."""
        starts = set(self.starts)
        counts = [float(a - (0 if k in starts else self.after[k - 1])) for k, a in enumerate(self.after)]
        none = (0.0,) * (len(counts) - 1)
        return ChainCosts(self, tuple(counts), none, (0.0,) * (self.num_paths - 1))


def chain_of(after: Sequence[int], paths: Sequence[int] = (), linked: bool = False, side: Sequence[int] = ()) -> Chain:
    """A chain; all exits stand on one path if no paths are given."""
    return Chain(tuple(after), tuple(paths) or (0,) * len(after), linked, tuple(side))


@dataclass(frozen=True)
class ChainCosts:
    """What the parts of a chain cost, in one unit.

    Args:
        chain: where the exits stand.
        segments: what leads to each exit from the one before it on its path, a path's stem included, and behind the
            last one the final classifier.
        heads: each early exit's head, the classifiers of the cheaper paths included.
        links: what each path but the first takes to go on from the one before.
        router: what the router takes.
        ahead: what it reads of the cheapest path, which those who enter there do not compute again.
        asks: whether the router is asked whatever the policy is.
        side: what encoding the other modality takes, once for each sample that comes to an exit that reads it.
    """

    chain: Chain
    segments: tuple[float, ...]
    heads: tuple[float, ...]
    links: tuple[float, ...] = ()
    router: float = 0.0
    ahead: float = 0.0
    asks: bool = False
    side: float = 0.0

    @property
    def static(self) -> float:
        """The last path alone, without early exits: the backbone as it was."""
        heard = self.side if self.chain.heard(()) is not None else 0.0
        return sum(self.segments[self.chain.starts[-1] :]) + heard

    def to_exit(self, heads: Sequence[int], entry: int = 0, routed: bool = False) -> tuple[float, ...]:
        """The cost of leaving at each exit, the final exit last.

        Args:
            heads: the indices of the exits that are asked; the heads of others do not run.
            entry: the path where the sample enters; on the paths before, nothing is spent.
            routed: whether the router was asked.
        """
        chain, runs, heard = self.chain, self.chain.runs(heads), self.chain.heard(heads)
        entry = chain.entered(heads)[entry]
        spent = self.router + (self.ahead if entry else 0.0) if routed or self.asks else 0.0
        costs = []
        for k, path in enumerate(chain.paths):
            if path >= entry and runs[k]:
                spent += self.segments[k] + (self.heads[k] if k in heads else 0.0)
                if path > entry and k in chain.starts and chain.linked:
                    spent += self.links[path - 1]
            if k == heard:
                spent += self.side
            costs.append(spent)
        return tuple(costs)

    def alone(self, k: int) -> float:
        """The cost of leaving at an exit where no other is asked."""
        return self.to_exit((k,) if k < len(self.heads) else ())[k]

    def only(self, heads: Sequence[int]) -> ChainCosts:
        """The same for a model that has only some of the early exits."""
        kept = (*heads, len(self.segments) - 1)
        segments = tuple(sum(self.segments[j] for j in _between(self.chain, k, kept)) for k in kept)
        chain = self.chain.only(heads)
        gone = self.chain.num_paths - chain.num_paths
        return replace(
            self, chain=chain, segments=segments, heads=tuple(self.heads[k] for k in heads), links=self.links[gone:]
        )


def _between(chain: Chain, k: int, kept: Sequence[int]) -> list[int]:
    """The segments that lead to exit ``k`` from the one before it of those that are kept on its path."""
    before = max((j for j in kept if j < k and chain.paths[j] == chain.paths[k]), default=-1)
    return [j for j in range(before + 1, k + 1) if chain.paths[j] == chain.paths[k]]


def segment_sums(after: Sequence[int], steps: Sequence[float]) -> list[float]:
    """The cost of the blocks between the exits of one path, those behind the last exit last."""
    return [sum(steps[a:b]) for a, b in pairwise((0, *after, len(steps)))]
