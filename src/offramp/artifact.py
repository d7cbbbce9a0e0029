"""Artifacts: a trained model as a folder of safetensors and JSON. Nothing in it can run code.

config.json        format, backbone (timm name and arguments), exits, task, classes, data configuration, record
model.safetensors  every parameter and buffer; ``backbone.model.*`` are timm's own names
policy.json        the policy, if there is one
validation.safetensors, costs.json   the tables that it was calibrated on, so that calibrating again is instant
card.md            the same for people
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from offramp._files import atomic_folder, write_json
from offramp.card import card
from offramp.errors import ArtifactError, OfframpError, UsageError
from offramp.model import EarlyExitModel, attach
from offramp.policies import Policy, load_policy, save_policy
from offramp.registry import HEADS, MODELS, TASKS
from offramp.types import CostTable, Exit, ExitTable
from offramp.versions import version

FORMAT = 1
_NOT_FROM_A_FILE = {
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "scriptable",
}


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
    """Write an artifact; an artifact that is there already is replaced in one step, or not at all.

    A tensor whose values fp16 holds exactly is written as fp16; what is loaded is the same either way.

    Args:
        model: the model; its backbone must come from ``timm.create_model`` and its heads and task from the tables.
        path: the folder.
        policy: the policy to run it with.
        table: the exit table on validation data.
        costs: the cost table.
        record: JSON values that say where the model comes from.

    Raises:
        UsageError: a head, task or argument that cannot be written as JSON; a folder that holds something else.
        DataError: the disk is full or the place cannot be written; nothing was changed.
    """
    path = Path(path)
    if path.exists() and not (path / "config.json").is_file() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} exists and is no artifact; it is left as it is")
    config = _config(model, record or {})
    try:
        json.dumps(config)
    except TypeError as error:
        raise UsageError(f"this model cannot be saved, one of its arguments is no plain value: {error}") from error
    weights = {k: _smallest(v.detach().contiguous().cpu()) for k, v in model.state_dict().items()}
    with atomic_folder(path) as folder:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        write_json(folder / "config.json", config)
        if policy is not None:
            save_policy(policy, folder / "policy.json")
        if table is not None:
            save_table(table, folder / "validation.safetensors")
        if costs is not None:
            write_json(folder / "costs.json", costs.to_json())
        (folder / "card.md").write_text(card(config, policy))


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
        path: a folder, or the name of a model that comes with Offramp (``offramp list models``).

    Raises:
        ArtifactError: no artifact there; one that is damaged, or of a newer format; weights that do not fit the model.
    """
    path = _place(path)
    config = _read_config(path)
    try:
        model = _build(config)
    except (OfframpError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{path / 'config.json'} does not describe a model: {_first_line(error)}") from error
    weights = _read_tensors(path / "model.safetensors")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ArtifactError(
            f"the weights in {path} do not fit the model that its config.json describes: {detail}"
        ) from error
    policy_file, table_file, costs_file = path / "policy.json", path / "validation.safetensors", path / "costs.json"
    return Artifact(
        model.eval(),
        load_policy(policy_file) if policy_file.exists() else None,
        load_table(table_file) if table_file.exists() else None,
        _load_costs(costs_file) if costs_file.exists() else None,
        config.get("record", {}),
    )


def save_table(table: ExitTable, path: str | Path) -> None:
    """Write an exit table as one safetensors file."""
    about = {"after": table.after, "heads": table.heads, "task": table.task, "provenance": dict(table.provenance)}
    tensors = {"outputs": table.outputs.contiguous().cpu(), "targets": table.targets.contiguous().cpu()}
    save_file(tensors, path, metadata={"exit_table": json.dumps(about)})


def load_table(path: str | Path) -> ExitTable:
    """Read an exit table. Raises ``ArtifactError`` for a file that is missing, damaged or something else."""
    tensors = _read_tensors(Path(path))
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["exit_table"])
        return ExitTable(
            tensors["outputs"],
            tensors["targets"],
            tuple(about["after"]),
            tuple(about["heads"]),
            about["task"],
            about["provenance"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} holds no exit table") from error


def _config(model: EarlyExitModel, record: Mapping[str, Any]) -> dict[str, Any]:
    inner = model.backbone.model
    arguments = {k: v for k, v in getattr(inner, "_model_args", {}).items() if k not in _NOT_FROM_A_FILE}
    architecture = getattr(inner, "pretrained_cfg", {}).get("architecture")
    if architecture is None:
        raise UsageError("only a backbone from timm.create_model can be saved: this one does not know its name")
    task = TASKS.name_of(type(model.task))
    for name in [e.head for e in model.exits]:
        if not isinstance(name, str) or name not in HEADS:
            raise UsageError(f"head {name!r} is in no table; a saved model names its heads")
    if task is None:
        raise UsageError(f"task {type(model.task).__name__} is in no table; a saved model names its task")
    return {
        "format": FORMAT,
        "offramp": version(),
        "backbone": {"name": architecture, "args": {**arguments, "num_classes": inner.num_classes}},
        "exits": [{"after": e.after, "head": e.head, "options": dict(e.options)} for e in model.exits],
        "task": task,
        "classes": None if model.classes is None else list(model.classes),
        "data_config": {k: list(v) if isinstance(v, tuple) else v for k, v in model.data_config.items()},
        "record": dict(record),
    }


def _build(config: Mapping[str, Any]) -> EarlyExitModel:
    name, arguments = config["backbone"]["name"], dict(config["backbone"]["args"])
    if not timm.is_model(name):
        raise UsageError(f"timm {timm.__version__} has no model {name!r}")
    if forbidden := _NOT_FROM_A_FILE & arguments.keys():
        raise UsageError(f"argument {min(forbidden)!r} is not taken from a file")
    data_config = {k: tuple(v) if isinstance(v, list) else v for k, v in config["data_config"].items()}
    inner = timm.create_model(name, pretrained=False, pretrained_cfg_overlay=data_config, **arguments)
    exits = [Exit(int(e["after"]), str(e["head"]), dict(e["options"])) for e in config["exits"]]
    model = attach(inner, exits, str(config["task"]), config["classes"])
    model.data_config = data_config
    return model


def _smallest(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype != torch.float32:
        return tensor
    half = tensor.half()
    return half if torch.equal(half.float(), tensor) else tensor


def _place(path: str | Path) -> Path:
    """The folder at a path; where there is none, that of the model in the box with this name."""
    if not Path(path).exists() and str(path) in MODELS:
        return Path(MODELS.resolve(str(path)))
    return Path(path)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / "config.json").read_text())
        found = config["format"]
    except FileNotFoundError:
        known = f"; models in the box: {', '.join(MODELS)}"
        raise ArtifactError(f"there is no artifact at {path}: it has no config.json{known}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path / 'config.json'} is damaged or not Offramp's") from error
    if not isinstance(found, int) or found > FORMAT:
        raise ArtifactError(
            f"{path} has format {found}, this Offramp {version()} reads up to {FORMAT}: it needs a newer version"
        )
    return config


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing") from None
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is damaged or incomplete: {_first_line(error)}") from error


def _load_costs(path: Path) -> CostTable:
    try:
        return CostTable.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} holds no cost table") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
