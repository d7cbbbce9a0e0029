"""A policy as JSON and back, and whether it fits a model."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from offramp._files import read_json, write_json
from offramp.errors import ArtifactError, UsageError
from offramp.policies._policy import Policy, score_of
from offramp.policies.routed import Routed, inner_of
from offramp.registry import POLICIES
from offramp.tasks import Task
from offramp.types import Evidence


def policy_to_json(policy: Policy) -> dict[str, Any]:
    """A policy as plain values, with its name under ``policy``. Raises ``UsageError`` for one that is in no table."""
    inner = inner_of(policy)
    name = POLICIES.name_of(type(inner))
    if name is None:
        raise UsageError(f"a {type(inner).__name__} cannot be saved: only policies of the table can")
    where = {"entry": list(policy.bias)} if isinstance(policy, Routed) else {}
    return {"policy": name, **dataclasses.asdict(inner), **where}  # type: ignore[call-overload]


def policy_from_json(values: Mapping[str, Any]) -> Policy:
    """A policy from what ``policy_to_json`` gave.

    Raises:
        ArtifactError: the values are those of no policy: an unknown name or field, another type, a number that is not
            finite, exits that do not rise.
    """
    given = dict(values)
    try:
        name, bias = given.pop("policy"), given.pop("entry", None)
        kind: Any = POLICIES.resolve(name) if isinstance(name, str) else None
        if kind is None:
            raise UsageError(f"its name is {name!r}")
        if foreign := given.keys() - {field.name for field in dataclasses.fields(kind)}:
            raise UsageError(f"a {name} policy has no {min(foreign)!r}")
        _check_numbers({key: value for key, value in given.items() if key != "provenance"})
        policy: Policy = TypeAdapter(kind).validate_json(json.dumps(given), strict=True)
        if list(policy.heads) != sorted({*policy.heads}) or min(policy.heads, default=0) < 0:
            raise UsageError(f"its exits {list(policy.heads)} do not rise from 0")
        return policy if bias is None else Routed(policy, TypeAdapter(tuple[float, ...]).validate_python(bias))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise ArtifactError(f"this is no policy: {where}{': ' if where else ''}{fault['msg']}") from error
    except KeyError as error:
        raise ArtifactError(f"this is no policy: it has no {error}") from error
    except UsageError as error:
        raise ArtifactError(f"this is no policy: {error}") from error


def check_fits(policy: Policy, exits: int, num_outputs: int, task: Task, paths: int = 1) -> None:
    """Raise ``ArtifactError`` unless a policy fits a model; it is tried on a few samples of zeros.

    Args:
        policy: the policy.
        exits: the number of the model's early exits.
        num_outputs: of each exit.
        task: what an output means.
        paths: how many paths the model has.
    """
    if isinstance(policy, Routed) and len(policy.bias) != paths:
        raise ArtifactError(f"the policy has a bias for {len(policy.bias)} paths, the model has {paths}")
    policy = inner_of(policy)
    heads = policy.heads
    if heads and max(heads) >= exits:
        raise ArtifactError(f"the policy needs exits {list(heads)}, the model has {exits} early exits")
    try:
        samples = len(getattr(policy, "exits", ())) or 2  # exits that are fixed are fixed for so many
        state, previous = policy.init(samples), None
        for k in range(exits):
            output = torch.zeros(samples, num_outputs)
            if k in heads:
                score = score_of(policy, task, k, output, previous)
                state = policy.step(state, Evidence(k, output, score, task, previous)).state
                previous = output
    except (UsageError, IndexError, RuntimeError, ValueError, TypeError) as error:
        raise ArtifactError(f"the policy does not fit this model: {' '.join(str(error).split())}") from error
    # thresholds that are one per exit, and not one per exit that is asked
    if "heads" not in {field.name for field in dataclasses.fields(policy)}:  # type: ignore[arg-type]
        given = len(getattr(policy, "thresholds", ())) or getattr(policy, "num_exits", 0)
        if given != exits:
            raise ArtifactError(f"the policy is for {given} early exits, the model has {exits}")


def _check_numbers(value: Any) -> None:
    """Raise ``UsageError`` for a number that is not finite, however deep it stands."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"it holds the number {value}")
    if isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            _check_numbers(inner)


def save_policy(policy: Policy, path: str | Path) -> None:
    """Write a policy as one JSON file, in one step. Raises ``DataError`` where it cannot be written."""
    write_json(Path(path), policy_to_json(policy))


def load_policy(path: str | Path) -> Policy:
    """Read a policy. Raises ``ArtifactError`` for a file that is missing or holds none."""
    try:
        return policy_from_json(read_json(Path(path)))
    except ArtifactError as error:
        raise ArtifactError(f"no policy could be read from {path}: {error}") from error
