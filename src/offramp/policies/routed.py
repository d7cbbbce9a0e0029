"""Where samples enter, before a policy says where they leave."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from offramp.errors import UsageError
from offramp.policies._policy import Policy
from offramp.policies.forced import Forced
from offramp.search import Seen
from offramp.types import Decision, Evidence, State

_SURELY = 1e6
"""More than any router says."""


@runtime_checkable
class Enters(Protocol):
    """A policy that says where samples enter; all others let everybody enter at the cheapest path."""

    def entry(self, route: Callable[[], Tensor]) -> Tensor | None:
        """The path of each sample, int64 ``(B,)``; None where everybody enters at the cheapest.

        Args:
            route: asks the router, for a number for each path, float32 ``(B, paths)``; it runs only if it is asked.
        """


@dataclass(frozen=True)
class Routed:
    """Enter where the router's number and the path's bias are largest together, and leave by another policy.

    The bias moves samples between paths at run time, without training again; on a model without a router (zeros) it
    picks one path for all. In JSON it stands beside the inner policy's own fields, as ``entry``.

    Args:
        inner: who leaves where.
        bias: one number for each path.

    Raises:
        UsageError: a bias that is not finite, or none; a policy that needs what every exit before said.
    """

    inner: Policy
    bias: tuple[float, ...]

    reads_score: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.bias or not all(map(math.isfinite, self.bias)):
            raise UsageError(f"a bias is a finite number for each path, not {list(self.bias)}")
        # Forced is for the rows of one batch, and says itself where they enter
        if not isinstance(self.inner, Forced) and any(0 in s.shape[1:] for s in self.inner.init(1)):
            raise UsageError(
                f"a {type(self.inner).__name__} needs what every exit before said: nobody can enter in the middle"
            )

    @property
    def heads(self) -> tuple[int, ...]:
        """Those of the inner policy."""
        return self.inner.heads

    @property
    def score(self) -> str:
        """That of the inner policy."""
        return self.inner.score

    @property
    def numbers(self) -> Mapping[str, torch.dtype]:
        """Those of the inner policy, and the bias."""
        return {**self.inner.numbers, "bias": torch.float32}

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Those of the inner policy, where it has some."""
        found: tuple[float, ...] = getattr(self.inner, "temperatures", ())
        return found

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What the inner policy was calibrated for and on."""
        return getattr(self.inner, "provenance", {})

    def init(self, n: int) -> State:
        """As the inner policy."""
        return self.inner.init(n)

    def step(self, state: State, evidence: Evidence) -> Decision:
        """As the inner policy."""
        return self.inner.step(state, evidence)

    @classmethod
    def candidates(cls, seen: Seen) -> Iterable[Policy]:
        """None: ``calibrate`` sets the bias together with the thresholds."""
        return ()

    def entry(self, route: Callable[[], Tensor]) -> Tensor:
        """The path with the largest sum; of equals the cheapest. Raises ``UsageError`` for another number of paths."""
        said = route()
        if said.shape[1] != len(self.bias):
            raise UsageError(f"a bias for {len(self.bias)} paths, and the model has {said.shape[1]}")
        return (said + said.new_tensor(self.bias)).max(1).indices


def inner_of(policy: Policy) -> Policy:
    """The policy that says who leaves where, without what says where to enter."""
    return policy.inner if isinstance(policy, Routed) else policy


def into(policy: Policy, path: int, paths: int) -> Routed:
    """A policy with a bias that no router speaks against: everybody enters at one path of so many."""
    return Routed(policy, tuple(_SURELY * (p == path) for p in range(paths)))


def entries(policy: Policy, route: Callable[[], Tensor]) -> Tensor | None:
    """The path where each sample enters, ``(B,)``; None where everybody enters at the cheapest.

    Args:
        policy: who enters and leaves where.
        route: asks the router.
    """
    return policy.entry(route) if isinstance(policy, Enters) else None


def for_rows(policy: Policy, rows: slice) -> Policy:
    """The policy for some rows of the batch that it was made for; the same one where it knows no rows."""
    inner = inner_of(policy)
    if not isinstance(inner, Forced):
        return policy
    entered = None if inner.entries is None else inner.entries[rows]
    cut = replace(inner, exits=inner.exits[rows], entries=entered)
    return replace(policy, inner=cut) if isinstance(policy, Routed) else cut
