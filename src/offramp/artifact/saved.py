"""A model with its policy, tables and record as a folder.

config.json        format, backbone (timm name and arguments), exits, task, classes, input, record; and the
                   SHA-256 of itself and of the files below, against accidents: it is a checksum and no signature
model.safetensors  every parameter and buffer; ``backbone.model.*`` are timm's own names
policy.json        the policy, if there is one
validation.safetensors, costs.json   the tables that it was calibrated on, so that calibrating again is instant
card.md            the same for people; it has no checksum
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from offramp._files import read_json, write_json
from offramp._folders import others, read_whole, replacing
from offramp.artifact.described import build, describe
from offramp.artifact.tables import save_table, table_in, tensors_in
from offramp.card import card
from offramp.errors import ArtifactError, UsageError
from offramp.model import EarlyExitModel
from offramp.policies import Policy, check_fits, policy_from_json, policy_to_json, save_policy
from offramp.registry import MODELS, packages
from offramp.types import CostTable, ExitTable
from offramp.versions import version

FORMAT = 3
"""Format 1 had no checksums, and formats 1 and 2 knew no input but images; both are still read."""
_CONFIG, _WEIGHTS, _POLICY = "config.json", "model.safetensors", "policy.json"
_TABLE, _COSTS, CARD = "validation.safetensors", "costs.json", "card.md"
OWN = (_CONFIG, _WEIGHTS, _POLICY, _TABLE, _COSTS, CARD)
"""The files of an artifact."""


@dataclass(frozen=True)
class Artifact:
    """All that a folder holds.

    Args:
        model: the model, in evaluation mode.
        policy: the policy, or None.
        table: every exit's output on validation data, or None.
        costs: the cost table, or None.
        record: where the model comes from: recipe, data set and splits, training.
    """

    model: EarlyExitModel
    policy: Policy | None = None
    table: ExitTable | None = None
    costs: CostTable | None = None
    record: Mapping[str, Any] = field(default_factory=dict)


def save(
    model: EarlyExitModel,
    path: str | Path,
    policy: Policy | None = None,
    table: ExitTable | None = None,
    costs: CostTable | None = None,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Write an artifact; one that is there already is replaced as a whole, or not at all.

    Files of others in the folder (``.git``, ``README.md``, notes) stay as they are. A tensor whose values fp16 holds
    exactly is written as fp16; what is loaded is the same either way.

    Args:
        model: the model; its backbone must come from ``timm.create_model`` and its heads and task from the tables.
        path: the folder.
        policy: the policy to run it with.
        table: the exit table on validation data.
        costs: the cost table.
        record: JSON values that say where the model comes from.

    Raises:
        UsageError: a head, task or argument that cannot be written as JSON; a folder that holds something else and no
            artifact.
        DataError: the disk is full or the place cannot be written; nothing was changed.
    """
    path = Path(path)
    refuse_foreign(path)
    config = {"format": FORMAT, "offramp": version(), **describe(model), "record": dict(record or {})}
    if policy is not None:
        config["packages"] |= packages({"policies": [policy_to_json(policy)["policy"]]})
    try:
        json.dumps(config, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"this model cannot be saved, one of its arguments is no plain value: {error}") from error
    weights = {k: _smallest(v.detach().contiguous().cpu()) for k, v in model.state_dict().items()}
    with replacing(path, OWN) as folder:
        save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
        if policy is not None:
            save_policy(policy, folder / _POLICY)
        if table is not None:
            save_table(table, folder / _TABLE)
        if costs is not None:
            write_json(folder / _COSTS, costs.to_json())
        files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}
        write_json(folder / _CONFIG, sealed(config, files))
        (folder / CARD).write_text(card(config, policy))


def refuse_foreign(path: str | Path) -> None:
    """Raise ``UsageError`` unless a place is free, empty, or holds an artifact, beside which other files may stand."""
    path = Path(path)
    if str(path).startswith("hf-hub:"):
        raise UsageError(f"{path} is a place on the hub: offramp.push uploads a model")
    if not path.exists() or (path.is_dir() and not others(path, ())):
        return
    try:
        config = read_json(path / _CONFIG, read_whole(path, (_CONFIG,))[_CONFIG])
        ours = isinstance(config.get("format"), int) and "offramp" in config
    except (ArtifactError, OSError, KeyError):
        ours = False
    if not ours:
        raise UsageError(f"{path} exists and is no artifact; it is left as it is")


def sealed(config: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """A configuration with the SHA-256 of the files beside it and of itself."""
    plain: dict[str, Any] = json.loads(json.dumps({**config, "sha256": {"files": dict(files)}}))
    plain["sha256"]["config"] = _digest(plain)
    return plain


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def round_to_fp16(model: EarlyExitModel) -> None:
    """Round all parameters to the nearest values that fp16 holds: the artifact has half the size then."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.half())


def load(path: str | Path) -> tuple[EarlyExitModel, Policy | None]:
    """The model of an artifact, in evaluation mode, and its policy or None; as ``load_artifact``."""
    artifact = load_artifact(path)
    return artifact.model, artifact.policy


def load_artifact(path: str | Path) -> Artifact:
    """All that an artifact holds.

    Args:
        path: a folder; the name of a model that comes with Offramp (``offramp list models``); or ``hf-hub:owner/name``,
            an artifact on the hub (``offramp.push``).

    Raises:
        ArtifactError: no artifact there; one that is damaged, was changed, or is of a newer format; parts that do not
            fit each other.
    """
    path = _place(path)
    try:
        files = read_whole(path, OWN)
    except OSError as error:
        raise ArtifactError(f"{path} could not be read: {error.strerror or error}") from error
    config = _current(_checked(path, files))
    if _WEIGHTS not in files:
        raise ArtifactError(f"{path / _WEIGHTS} is missing")
    weights = tensors_in(files.pop(_WEIGHTS), path / _WEIGHTS)
    try:
        model = build(config, weights)
    except UsageError as error:
        raise ArtifactError(f"{path / _CONFIG} does not describe the model beside it: {error}") from error
    del weights
    policy = table = costs = None
    if _POLICY in files:
        policy = policy_from_json(read_json(path / _POLICY, files[_POLICY]))
        check_fits(policy, len(model.exits), model.num_outputs, model.task, model.chain.num_paths)
    if _TABLE in files:
        table = table_in(files[_TABLE], path / _TABLE)
        if table.chain != model.chain or table.outputs.shape[2] != model.num_outputs or table.task != config["task"]:
            raise ArtifactError(f"{path / _TABLE} is the table of another model")
    if _COSTS in files:
        costs = _costs(path / _COSTS, files[_COSTS])
        same = costs.chain == model.chain and costs.chain.side == model.chain.side
        if not same or len(costs.macs.steps) != model.depth:
            raise ArtifactError(f"{path / _COSTS} has the costs of another model")
    record = config.get("record", {})
    return Artifact(model, policy, table, costs, record if isinstance(record, dict) else {})


def _checked(path: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    """The configuration, after its checksums were compared with the files."""
    if _CONFIG not in files:
        known = f"; models in the box: {', '.join(MODELS)}"
        raise ArtifactError(f"there is no artifact at {path}: it has no config.json{known}")
    try:
        config = read_json(path / _CONFIG, files[_CONFIG])
    except ArtifactError as error:
        raise ArtifactError(f"{path / _CONFIG} is damaged or not Offramp's: {error}") from error
    found = config.get("format")
    if type(found) is not int or found < 1:
        raise ArtifactError(f"{path / _CONFIG} is damaged or not Offramp's: its format is {found!r}")
    if found > FORMAT:
        raise ArtifactError(
            f"{path} has format {found}, this Offramp {version()} reads up to {FORMAT}: it needs a newer version"
        )
    if found == 1:
        return config
    sums = config.get("sha256")
    listed = sums.get("files") if isinstance(sums, dict) else None
    if not isinstance(sums, dict) or not isinstance(listed, dict):
        raise ArtifactError(f"{path / _CONFIG} is damaged or not Offramp's: it has no checksums")
    if sums.get("config") != _digest({**config, "sha256": {"files": listed}}):
        raise ArtifactError(f"{path / _CONFIG} was changed after it was saved: its checksum is another")
    for name in sorted({*listed, *files} - {_CONFIG, CARD}):
        if name not in files:
            raise ArtifactError(f"{path / name} is missing")
        if listed.get(name) != hashlib.sha256(files[name]).hexdigest():
            raise ArtifactError(f"{path / name} is damaged or was changed after it was saved: its checksum is another")
    return config


def _current(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as this format has it."""
    images = config.get("data_config")
    if config["format"] >= 3 or not isinstance(images, dict):
        return config
    return {**config, "input": {"name": "image", **images}}


def _costs(path: Path, content: bytes) -> CostTable:
    try:
        return CostTable.from_json(read_json(path, content))
    except ValueError as error:
        raise ArtifactError(f"{path} holds no cost table: {str(error).splitlines()[0]}") from error


def _smallest(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype != torch.float32:
        return tensor
    half = tensor.half()
    return half if torch.equal(half.float(), tensor) else tensor


def _place(path: str | Path) -> Path:
    """The folder at a path; where there is none, that of the model in the box, or on the hub, with this name."""
    if str(path).startswith("hf-hub:"):
        from offramp.artifact._fetch import fetched  # slow to import, and seldom needed

        return fetched(str(path), OWN)
    if not Path(path).exists() and str(path) in MODELS:
        return Path(MODELS.resolve(str(path)))
    return Path(path)
