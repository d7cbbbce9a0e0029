"""What an exported file says about itself, and reading it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from offramp._files import atomic_file, read_json
from offramp.cost import profile
from offramp.errors import ArtifactError, UsageError
from offramp.export.parts import holds, policy_inputs
from offramp.inputs import Input, input_from_json, input_to_json
from offramp.model import EarlyExitModel
from offramp.policies import Policy, Routed, check_fits, inner_of, into, policy_from_json, policy_to_json
from offramp.policies.threshold import is_gated
from offramp.registry import check_packages, packages
from offramp.tasks import get_task, task_name
from offramp.types import Chain, chain_of
from offramp.versions import versions

ENTRY, DIGEST = "offramp", "offramp.sha256"
_BLANK = "0" * 64
"""What stands in the place of the digest while it is taken."""


class _Section(BaseModel):
    model_config = ConfigDict(strict=True)


class _Exit(_Section):
    after: int = Field(ge=1)
    head: str
    path: int = Field(default=0, ge=0)


class _About(_Section):
    """What the metadata must hold for a file to be opened."""

    task: str
    classes: list[str] | None
    num_outputs: int = Field(ge=1)
    input: dict[str, Any]
    exits: list[_Exit] = Field(min_length=1)
    linked: bool = False
    side: list[int] = []
    policy: dict[str, Any]
    fixed: bool = False
    precision: str
    preprocess: bool
    record: dict[str, Any]


@dataclass(frozen=True)
class ExportedFile:
    """What a self-exiting file that was found whole says of itself.

    Args:
        about: what it says about itself: task, classes, input, exits, precision, versions.
        policy: the policy it was exported with; its numbers are the defaults of the graph's inputs.
        input: what a sample is.
        chain: where its exits stand, the final exit last.
    """

    about: Mapping[str, Any]
    policy: Policy
    input: Input
    chain: Chain

    @property
    def switched(self) -> bool:
        """Whether thresholds switch its heads on and off; else they are those that its policy asks."""
        task = get_task(self.about["task"])
        return not self.about["fixed"] and is_gated(inner_of(self.policy), task, self.about["num_outputs"])


def describe(model: EarlyExitModel, policy: Policy, precision: str = "fp32", fixed: bool = False) -> dict[str, Any]:
    """What a file says about itself, as JSON values. Raises ``UsageError`` for a task or a part that is in no table."""
    task, reads, rule = task_name(model.task), input_to_json(model.input), policy_to_json(policy)
    return {
        "task": task,
        "classes": model.classes,
        "num_outputs": model.num_outputs,
        "input": reads,
        "packages": packages({"tasks": [task], "inputs": [reads["name"]], "policies": [rule["policy"]]}),
        "exits": [
            {"after": a, "head": h, "path": p}
            for a, h, p in zip(model.after, model.head_names, model.chain.paths, strict=True)
        ],
        "side": list(model.chain.side),
        "linked": model.chain.linked,
        "policy": rule,
        "fixed": fixed,
        "precision": precision,
        "costs": replace(profile(model, repeats=0), asks=isinstance(policy, Routed)).to_json(),
        "versions": versions(),
    }


def sealed(proto: onnx.ModelProto, about: Mapping[str, Any]) -> bytes:
    """The bytes of a file that says what it is, with a digest of all of them but the digest itself.

    It tells a file that was damaged or changed by accident; it is no signature.
    """
    for key, value in ((ENTRY, json.dumps(about)), (DIGEST, _BLANK)):
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    blank = proto.SerializeToString()
    place = blank.rindex(_BLANK.encode())
    digest = hashlib.sha256(blank).hexdigest().encode()
    return blank[:place] + digest + blank[place + len(digest) :]


def read_bytes(path: str | Path) -> bytes:
    """What is in a file. Raises ``ArtifactError`` where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} could not be read: {error.strerror}") from error


def read_file(path: str | Path) -> tuple[bytes, ExportedFile]:
    """The bytes of a self-exiting file, checked, and what it says of itself. Raises as ``read_graph``."""
    content = read_bytes(path)
    return content, _checked(content, path)[1]


def read_graph(path: str | Path) -> tuple[onnx.ModelProto, ExportedFile]:
    """Read a self-exiting file with its graph.

    Raises:
        ArtifactError: no file, no ONNX, none of Offramp's, one that was changed after it was exported, or one whose
            weights lie in other files.
    """
    return _checked(read_bytes(path), path)


def _checked(content: bytes, path: str | Path) -> tuple[onnx.ModelProto, ExportedFile]:
    try:
        proto = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own, whose class is no part of its interface
        raise ArtifactError(f"{path} is no ONNX file: {' '.join(str(error).split())}") from error
    entries = {p.key: p.value for p in proto.metadata_props}
    if ENTRY not in entries:
        raise ArtifactError(f"{path} was not exported by Offramp: its metadata has no entry {ENTRY!r}")
    digest = entries.get(DIGEST, "").encode()
    before, found, after = content.rpartition(digest) if len(digest) == len(_BLANK) else (b"", b"", b"")
    if not found or hashlib.sha256(before + _BLANK.encode() + after).hexdigest().encode() != digest:
        raise ArtifactError(f"{path} was changed after it was exported: export it again")
    if _refers_elsewhere(proto):
        raise ArtifactError(f"{path} keeps weights in other files, which no checksum covers: it is not opened")
    try:
        about = read_json(Path(path), entries[ENTRY].encode())
        if "data_config" in about:  # a file from before inputs had names
            about["input"] = {"name": "image", **about.pop("data_config")}
        about.setdefault("fixed", False)  # a file from before it could be
        check_packages(about.get("packages"))
        _About.model_validate(about)
        reads = input_from_json(about["input"])
        policy = policy_from_json(about["policy"])
        chain = chain_of(
            [e["after"] for e in about["exits"]],
            [e.get("path", 0) for e in about["exits"]],
            about.get("linked", False),
            about.get("side", ()),
        )
        check_fits(policy, len(about["exits"]) - 1, about["num_outputs"], get_task(about["task"]), chain.num_paths)
    except (ArtifactError, UsageError, ValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"the metadata of {path} is damaged: {' '.join(str(error).split())}") from error
    return proto, ExportedFile(about, policy, reads, chain)


def _refers_elsewhere(message: Message) -> bool:
    """Whether any tensor in a model, however deep, lies in another file."""
    if isinstance(message, onnx.TensorProto):
        return bool(message.external_data) or message.data_location == onnx.TensorProto.EXTERNAL
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            parts = value if field.is_repeated else (value,)
            if any(_refers_elsewhere(part) for part in parts):
                return True
    return False


def store_policy(path: str | Path, policy: Policy) -> None:
    """Make the numbers of a policy the defaults of a file, in one step.

    Args:
        path: the file.
        policy: of the same kind as the file's, with the same exits. A file that asks its router takes one that does not
            as well: everybody then enters at the cheapest path.

    Raises:
        ArtifactError: no file of Offramp's.
        UsageError: a policy of another kind.
        DataError: the file cannot be written.
    """
    changed, file = read_graph(path)
    if isinstance(file.policy, Routed) and not isinstance(policy, Routed):
        policy = into(policy, 0, file.chain.num_paths)
    if not holds(file.policy, policy, file.switched):
        raise UsageError("the file holds another kind of policy, or other exits: export the model with it")
    numbers = policy_inputs(policy)
    for tensor in changed.graph.initializer:
        if tensor.name in numbers:
            tensor.CopyFrom(onnx.numpy_helper.from_array(numbers[tensor.name].numpy(), tensor.name))
    del changed.metadata_props[:]
    content = sealed(changed, {**file.about, "policy": policy_to_json(policy)})
    with atomic_file(Path(path)) as new:
        new.write_bytes(content)
