"""Checkpoints of LGViT's authors (2308.00255)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offramp.convert import _backbones
from offramp.convert._files import read_config, read_weights
from offramp.convert._keys import Weights, backbone_names, divide, head_names, is_unused, join_qkv, joined
from offramp.errors import ArtifactError, Notice
from offramp.model import EarlyExitModel, attach
from offramp.policies.threshold import Threshold
from offramp.types import Exit


def lgvit(path: str | Path) -> tuple[EarlyExitModel, Threshold | None]:
    """A checkpoint of LGViT's authors (2308.00255) from a local folder, as ``offramp.load`` returns a model.

    Reads ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin`` (tensors only, nothing in it can run) in
    the Hugging Face form that the authors released: ViT, DeiT (two averaged classifiers) and Swin backbones with
    LGViT's heads. The configuration's ``layer_norm_eps`` holds where it does in the released code: in all LayerNorms
    of a ViT or DeiT; in the blocks, the last LayerNorm and the exits of a Swin. The policy is the checkpoint's own rule
    if that is a confidence threshold, else None. Keys that are not known are left out, with a ``Notice``.

    Raises:
        ArtifactError: files that are missing or damaged, another form, or keys that are missing; the sentence names
            them.
    """
    path = Path(path)
    config, weights = read_config(path), read_weights(path)
    swin = any(key.startswith("swin.") for key in weights)
    heads, rest = divide(weights)
    names = backbone_names(rest, swin)
    try:
        overlay = _backbones.preprocessing(path, config)
        if swin:
            backbone = _backbones.swin(config, overlay)
        else:
            backbone = _backbones.vit(config, overlay, "dist_token" in names.values())
        model = attach(backbone, _exits(config, swin, heads), classes=_classes(config))
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise ArtifactError(f"{path / 'config.json'} does not describe an LGViT model: {said}") from error
    ours = model.state_dict()
    renamed = join_qkv({names[key]: value for key, value in rest.items()})
    state = {f"backbone.model.{name}": value for name, value in renamed.items()}
    unknown = [key for key, name in names.items() if f"backbone.model.{joined(name)}" not in ours]
    for i, head in enumerate(heads):
        names = head_names(head)
        state |= {f"heads.{i}.{names[key]}": value for key, value in head.items()}
        unknown += [f"highway {i}: {key}" for key, name in names.items() if f"heads.{i}.{name}" not in ours]
    missing = [name for name in ours if name not in state and not is_unused(name)]
    if missing:
        said = "; ".join(
            f"{what}: {', '.join(keys[:8])}" for what, keys in (("missing", missing), ("not known", unknown)) if keys
        )
        raise ArtifactError(f"the weights in {path} are not those of an LGViT model; {said}")
    for name, tensor in ours.items():
        if name in state and state[name].shape != tensor.shape:
            shapes = f"{tuple(state[name].shape)}, not {tuple(tensor.shape)}"
            raise ArtifactError(f"the weights in {path} are not those of an LGViT model; {name} has the shape {shapes}")
    if unknown:
        warnings.warn(f"keys of {path} that are not known were left out: {', '.join(unknown)}", Notice, stacklevel=2)
    model.load_state_dict({name: value for name, value in state.items() if name in ours}, strict=False)
    return model.eval(), _policy(config, len(heads))


def _classes(config: Mapping[str, Any]) -> list[str] | None:
    names = config.get("id2label")
    return None if not names else [names[str(i)] for i in range(len(names))]


def _exits(config: Mapping[str, Any], swin: bool, heads: list[Weights]) -> list[Exit]:
    """Where the heads stand and what they are. Global heads pick every n-th patch, the deeper half of them fewer."""
    options: dict[str, Any] = {}
    if swin and (eps := _backbones.swin_norm_eps(config)) != _backbones.SWIN_NORM_EPS:
        options = {"norm_eps": eps}
    are_global = ["mlp.qkv.weight" in head for head in heads]
    exits: list[Exit] = []
    for i, (after, head) in enumerate(zip(_places(config, len(heads)), heads, strict=True)):
        if are_global[i]:
            deeper = 2 * sum(are_global[:i]) >= sum(are_global)
            exits.append(Exit(after, "gah", {"stride": (1 if swin else 2) + deeper, **options}))
        elif "mlp.conv1.0.weight" in head:
            exits.append(Exit(after, "lph", {"depthwise": "mlp.proj.weight" in head, **options}))
        else:
            raise ValueError(f"head {i} is none of LGViT's two")
    return exits


def _places(config: Mapping[str, Any], heads: int) -> list[int]:
    """The block of each exit. The configuration may write the list as text; it is read as JSON, never evaluated."""
    given = config["position_exits"]
    given = json.loads(given) if isinstance(given, str) else given
    if given and isinstance(given[0], list):  # Swin: places in each stage
        first, flat = 0, []
        for depth, inside in zip(config["depths"], given, strict=True):
            flat += [first + int(place) for place in inside]
            first += depth
        given = flat
    if len(given) != heads:
        raise ValueError(f"{len(given)} places for {heads} heads")
    return [int(place) for place in given]


def _policy(config: Mapping[str, Any], exits: int) -> Threshold | None:
    threshold = config.get("threshold")
    if config.get("exit_strategy") != "confidence" or not isinstance(threshold, (int, float)):
        return None
    return Threshold((float(threshold),) * exits, provenance={"source": "the configuration of the checkpoint"})
