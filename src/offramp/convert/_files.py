"""Reading a folder in the Hugging Face form: settings and tensors, nothing that can run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from offramp.errors import ArtifactError


def read_config(path: Path) -> dict[str, Any]:
    """The settings in ``config.json``. Raises ``ArtifactError`` where there are none."""
    try:
        config = json.loads((path / "config.json").read_text())
        if not isinstance(config, dict):
            raise ValueError("it holds no settings")
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path / 'config.json'} could not be read: {error}") from error
    return config


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of ``model.safetensors`` or ``pytorch_model.bin``.

    Raises:
        ArtifactError: neither is there, it is damaged, or it holds more than tensors.
    """
    try:
        if (path / "model.safetensors").exists():
            return load_file(path / "model.safetensors")
        weights = torch.load(path / "pytorch_model.bin", map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ArtifactError(f"{path} holds neither model.safetensors nor pytorch_model.bin") from None
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, ModuleNotFoundError) as error:
        raise ArtifactError(f"the weights in {path} could not be read: {str(error).splitlines()[0]}") from error
    except Exception as error:  # the restricted unpickler raises an error of pickle's for what is no tensor
        raise ArtifactError(f"the weights in {path} hold more than tensors and are not opened") from error
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise ArtifactError(f"the weights in {path} are no table of named tensors")
    return weights
