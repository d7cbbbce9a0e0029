"""A local file of weights, read as timm reads the weights that it downloads."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from timm.models import load_checkpoint, load_state_dict
from torch import Tensor

from offramp.backbones._maps import input_size
from offramp.errors import DataError, Notice


def read_checkpoint(model: Any, file: Path, create: Callable[..., Any]) -> None:
    """Give a new timm model the weights of a local file.

    The file is read by timm's own loader with the family's own rules: older names, position tables of another size,
    images with another number of channels. A classifier with another number of classes, or none, is left out, and the
    model keeps the one that it was made with; a ``Notice`` says so. Files of JAX weights (``.npz``) are left to timm
    altogether, which says nothing.

    Args:
        model: the model, as timm made it.
        file: safetensors, or what ``torch.save`` wrote (tensors only).
        create: called as ``create(pretrained, overlay, **changed)``, it makes this model by ``timm.create_model`` once
            more, with another overlay of its pretrained configuration and some arguments changed.

    Raises:
        DataError: no such file, one that is damaged, or weights of another model.
    """
    name = model.pretrained_cfg.get("architecture")
    if not file.is_file():
        raise DataError(f"the weights in {file} could not be read: there is no such file")
    try:
        if file.suffix in (".npz", ".npy"):
            load_checkpoint(model, str(file))
            return
        weights = load_state_dict(str(file))
        found = _classes(model, weights)
    except Exception as error:  # timm, torch and safetensors raise whatever the bytes make them raise
        raise DataError(f"the weights in {file} could not be read: {_said(error)}") from error
    # declared for timm: what the file holds, where it is, and that it is in timm's form
    source = {
        "file": str(file),
        "source": "file",
        "input_size": (_channels(model, weights), *model.pretrained_cfg["input_size"][1:]),
        "num_classes": found,
        "label_offset": 0,
    }
    try:
        whole = create(True, source, num_classes=found).state_dict()
    except Exception as error:  # as above, from the family's rules
        raise DataError(f"the weights in {file} do not fit {name}: {_said(error)}") from error
    own = model.state_dict()
    fresh = [key for key in own if key not in whole or whole[key].shape != own[key].shape]
    if other := [key for key in fresh if not key.startswith(tuple(f"{c}." for c in _names(model, "classifier")))]:
        raise DataError(f"the weights in {file} do not fit {name}: {other[0]} is another than the model's")
    model.load_state_dict({**whole, **{key: own[key] for key in fresh}})
    if found != model.num_classes:
        classes = f"{found} classes" if found else "no classifier"
        said = f"the checkpoint {file.name} has {classes}, this model {model.num_classes}: its classifier starts anew"
        warnings.warn(said, Notice, stacklevel=3)


def _classes(model: Any, weights: Mapping[str, Any]) -> int:
    """How many classes the file's classifier has, 0 where there is none; the model's own where timm names none."""
    names = _names(model, "classifier")
    for name in (*names, *(name.partition(".")[0] for name in names)):  # families' first releases: head, not head.fc
        if isinstance(found := weights.get(f"{name}.weight"), Tensor):
            return len(found)
    return 0 if names else model.num_classes


def _channels(model: Any, weights: Mapping[str, Any]) -> int:
    """How many channels the file's first convolution reads, for timm to fold: the model's own, or else those of RGB."""
    own = model.state_dict()
    keys = [f"{name}.weight" for name in _names(model, "first_conv")]
    same = all(key not in weights or weights[key].shape[1:2] == own[key].shape[1:2] for key in keys)
    return input_size(model)[0] if same else 3


def _names(model: Any, key: str) -> tuple[str, ...]:
    names = model.pretrained_cfg.get(key) or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _said(error: Exception) -> str:
    """The first thing that an error says; torch's own begin with a headline, the first fault stands below it."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return textwrap.shorten(lines[min(1, len(lines) - 1)] if lines[0].endswith(":") else lines[0], 200)
