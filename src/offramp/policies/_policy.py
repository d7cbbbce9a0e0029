"""The seam every policy fills, and how a policy becomes JSON and comes back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from offramp.errors import ArtifactError, UsageError
from offramp.registry import POLICIES
from offramp.tasks import Task
from offramp.types import Decision, Evidence, State


class Policy(Protocol):
    """Decides, exit by exit, which samples leave; the final exit always answers and is never asked about."""

    @property
    def heads(self) -> tuple[int, ...]:
        """The indices of the exits that the policy needs; the heads of all others never run."""

    @property
    def score(self) -> str:
        """The kind of score that it reads."""

    def init(self, n: int) -> State:
        """What is remembered about ``n`` samples before the first exit; every tensor has ``n`` rows."""

    def step(self, state: State, evidence: Evidence) -> Decision:
        """Who leaves here, what is remembered, and the answer where it is not the head's own."""


def score_of(policy: Policy, task: Task, exit: int, output: Tensor, previous: Tensor | None) -> Tensor:
    """The score that a policy reads at an exit: of the output at the policy's temperature, where it has some.

    Args:
        policy: the policy; one with ``temperatures`` has one for each exit, the final exit last.
        task: what an output means.
        exit: the index of the exit.
        output: ``(n, num_outputs)``.
        previous: the output of the exit that ran before, or None.
    """
    temperatures: tuple[float, ...] = getattr(policy, "temperatures", ())
    return task.score(policy.score, output / temperatures[exit] if temperatures else output, previous)


def policy_to_json(policy: Policy) -> dict[str, Any]:
    """A policy as plain values, with its name under ``policy``. Raises ``UsageError`` for one that is in no table."""
    name = POLICIES.name_of(type(policy))
    if name is None:
        raise UsageError(f"a {type(policy).__name__} cannot be saved: only policies of the table can")
    return {"policy": name, **dataclasses.asdict(policy)}  # type: ignore[call-overload]


def policy_from_json(values: Mapping[str, Any]) -> Policy:
    """A policy from what ``policy_to_json`` gave. Raises ``ArtifactError`` where the values are those of no policy."""
    try:
        fields = {k: _frozen(v) for k, v in values.items() if k != "policy"}
        policy: Policy = POLICIES.resolve(str(values["policy"]))(**fields)
    except (UsageError, KeyError, TypeError) as error:
        raise ArtifactError(f"this is no policy: {error}") from error
    return policy


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def save_policy(policy: Policy, path: str | Path) -> None:
    """Write a policy as one JSON file."""
    Path(path).write_text(json.dumps(policy_to_json(policy), indent=1) + "\n")


def load_policy(path: str | Path) -> Policy:
    """Read a policy. Raises ``ArtifactError`` for a file that is missing or holds none."""
    try:
        return policy_from_json(json.loads(Path(path).read_text()))
    except (OSError, ValueError, AttributeError) as error:
        raise ArtifactError(f"no policy could be read from {path}: {error}") from error
