"""Checkpoints: a run is a function of weights, their average, optimiser and step; nothing else is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from offramp._files import atomic_folder, write_json
from offramp.errors import ArtifactError

_KEEP = 2


def save_checkpoint(
    folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, kept: nn.Module
) -> None:
    """Write ``folder/checkpoint-STEP`` in one step and delete all but the last two. Raises ``DataError``: disk full.

    ``kept`` is the model, or the moving average of its weights.
    """
    moments = {
        f"{i}.{name}": torch.as_tensor(value).detach().contiguous().cpu()
        for i, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    with atomic_folder(folder / f"checkpoint-{step:08d}") as new:
        save_file(_weights(model), new / "model.safetensors")
        if kept is not model:
            save_file(_weights(kept), new / "average.safetensors")
        save_file(moments, new / "optimizer.safetensors")
        write_json(new / "step.json", {"step": step})
    for old in checkpoints(folder)[:-_KEEP]:
        shutil.rmtree(old)


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, kept: nn.Module) -> int:
    """Put weights, their average and the optimiser's state back; the step. Raises ``ArtifactError``: no fit."""
    try:
        step = int(json.loads((path / "step.json").read_text())["step"])
        model.load_state_dict(load_file(path / "model.safetensors"))
        if kept is not model:
            kept.load_state_dict(load_file(path / "average.safetensors"))
        state: dict[int, dict[str, Any]] = {}
        for key, value in load_file(path / "optimizer.safetensors").items():
            i, _, name = key.partition(".")
            state.setdefault(int(i), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except Exception as error:
        raise ArtifactError(f"{path} does not fit this model: {str(error).splitlines()[0]}") from error
    return step


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.detach().contiguous().cpu() for k, v in model.state_dict().items()}


def checkpoints(folder: Path) -> list[Path]:
    """All complete checkpoints, the newest last; a folder gets its name only when it is complete."""
    return sorted(folder.glob("checkpoint-*"))
