"""A policy for measuring: every row's exit is fixed beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from offramp.errors import UsageError
from offramp.search import Seen
from offramp.types import Decision, Evidence, State


@dataclass(frozen=True)
class Forced:
    """Leave at a given exit, whatever the score; all heads run on the way, as for a rule that reads them all.

    Measures the engine apart from the accuracy of a model.

    Args:
        exits: for each row of the batch the index of its exit; ``num_exits`` is the final exit.
        num_exits: the number of early exits.
        score: the kind of score that is computed on the way.
        asked: the exits whose heads run, as for a rule that leaves others off; all if not given.
        entries: for each row the path where it enters; the cheapest if not given.

    Raises:
        UsageError: a row that shall leave at an exit that is not asked, or entries of another number.
    """

    exits: tuple[int, ...]
    num_exits: int
    score: str = "confidence"
    asked: tuple[int, ...] | None = None
    entries: tuple[int, ...] | None = None

    numbers: ClassVar[Mapping[str, torch.dtype]] = {}
    reads_score: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if missing := {*self.exits} - {*self.heads, self.num_exits}:
            raise UsageError(f"nobody can leave at exit {min(missing)}, which is not asked")
        if self.entries is not None and len(self.entries) != len(self.exits):
            raise UsageError(f"{len(self.entries)} entries for {len(self.exits)} rows")

    @property
    def heads(self) -> tuple[int, ...]:
        """Those that are asked."""
        return tuple(range(self.num_exits)) if self.asked is None else self.asked

    def init(self, n: int) -> State:
        """The exit of each row. Raises ``UsageError`` for a batch of another size."""
        if n != len(self.exits):
            raise UsageError(f"exits are fixed for {len(self.exits)} rows, the batch has {n}")
        return (torch.tensor(self.exits, dtype=torch.long),)

    def entry(self, route: Callable[[], Tensor]) -> Tensor | None:
        """The path of each row."""
        return None if self.entries is None else torch.tensor(self.entries, dtype=torch.long)

    def step(self, state: State, evidence: Evidence) -> Decision:
        """Leave where the exit is the fixed one."""
        return Decision(state[0] == evidence.exit, state)

    @classmethod
    def candidates(cls, seen: Seen) -> Iterable[Forced]:
        """None: it is for measuring."""
        return ()


def forced_shares(shares: Sequence[float], batch: int) -> Forced:
    """Exits for a batch so that exit ``k`` gets ``shares[k]`` of it, the final exit the last share.

    Shares are met as closely as whole samples allow (largest remainder). Raises ``UsageError`` unless they sum to 1.
    """
    if abs(sum(shares) - 1) > 1e-6 or min(shares) < 0:
        raise UsageError(f"shares must be at least 0 and sum to 1; these sum to {sum(shares):g}")
    exact = [share * batch for share in shares]
    counts = [int(e + 1e-9) for e in exact]
    by_remainder = sorted(range(len(shares)), key=lambda k: counts[k] - exact[k])
    for k in by_remainder[: batch - sum(counts)]:
        counts[k] += 1
    return Forced(tuple(k for k, count in enumerate(counts) for _ in range(count)), len(shares) - 1)
