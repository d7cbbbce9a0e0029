"""What an exported file says about itself, and reading it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from offramp._files import atomic_file
from offramp.cost import profile
from offramp.errors import ArtifactError, UsageError
from offramp.export.parts import only_numbers_differ, policy_inputs
from offramp.model import EarlyExitModel
from offramp.policies import Policy, policy_from_json, policy_to_json
from offramp.versions import versions

ENTRY = "offramp"


@dataclass(frozen=True)
class ExportedFile:
    """What a self-exiting file that was found whole says of itself.

    Args:
        about: what it says about itself: task, classes, data_config, exits, precision, versions.
        policy: the policy it was exported with; its numbers are the defaults of the graph's inputs.
    """

    about: Mapping[str, Any]
    policy: Policy


def describe(model: EarlyExitModel, policy: Policy, precision: str = "fp32") -> dict[str, Any]:
    """What a file says about itself, as JSON values."""
    return {
        "task": model.task.name,
        "classes": model.classes,
        "num_outputs": model.num_outputs,
        "data_config": dict(model.data_config),
        "exits": [{"after": a, "head": h} for a, h in zip(model.after, model.head_names, strict=True)],
        "policy": policy_to_json(policy),
        "precision": precision,
        "costs": profile(model, repeats=0).to_json(),
        "versions": versions(),
    }


def sign(proto: onnx.ModelProto, about: Mapping[str, Any]) -> None:
    """Put what a file says about itself into it, with a digest of its graph."""
    entry = proto.metadata_props.add()
    entry.key, entry.value = ENTRY, json.dumps({**about, "digest": _digest(proto)})


def read_bytes(path: str | Path) -> bytes:
    """What is in a file. Raises ``ArtifactError`` where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} could not be read: {error.strerror}") from error


def read_file(path: str | Path) -> ExportedFile:
    """Check a self-exiting file and read what it says of itself; the graph is not kept. Raises as ``read_graph``."""
    return read_graph(path)[1]


def read_graph(path: str | Path) -> tuple[onnx.ModelProto, ExportedFile]:
    """Read a self-exiting file with its graph.

    Raises:
        ArtifactError: no file, no ONNX, none of Offramp's, or one that was changed after it was exported.
    """
    content = read_bytes(path)
    try:
        proto = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own, whose class is no part of its interface
        raise ArtifactError(f"{path} is no ONNX file: {' '.join(str(error).split())}") from error
    entries = {p.key: p.value for p in proto.metadata_props}
    if ENTRY not in entries:
        raise ArtifactError(f"{path} was not exported by Offramp: its metadata has no entry {ENTRY!r}")
    try:
        about = json.loads(entries[ENTRY])
        digest, policy = about.pop("digest"), policy_from_json(about["policy"])
    except (ValueError, KeyError, AttributeError) as error:
        raise ArtifactError(f"the metadata of {path} is damaged: {error}") from error
    if digest != _digest(proto):
        raise ArtifactError(f"{path} was changed after it was exported: export it again")
    return proto, ExportedFile(about, policy)


def store_policy(path: str | Path, policy: Policy) -> None:
    """Make the numbers of a policy the defaults of a file, in one step.

    Args:
        path: the file.
        policy: of the same kind as the file's, with the same exits.

    Raises:
        ArtifactError: no file of Offramp's.
        UsageError: a policy of another kind.
        DataError: the file cannot be written.
    """
    changed, file = read_graph(path)
    if not only_numbers_differ(policy, file.policy):
        raise UsageError("the file holds another kind of policy, or other exits: export the model with it")
    numbers = policy_inputs(policy)
    for tensor in changed.graph.initializer:
        if tensor.name in numbers:
            tensor.CopyFrom(onnx.numpy_helper.from_array(numbers[tensor.name].numpy(), tensor.name))
    del changed.metadata_props[:]
    sign(changed, {**file.about, "policy": policy_to_json(policy)})
    with atomic_file(Path(path)) as new:
        new.write_bytes(changed.SerializeToString())


def _digest(proto: onnx.ModelProto) -> str:
    return hashlib.sha256(proto.graph.SerializeToString(deterministic=True)).hexdigest()
