"""Weights that exist: checkpoints of other projects as models of Offramp, by safe loading only."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from offramp.errors import ArtifactError
from offramp.model import EarlyExitModel, attach
from offramp.policies.threshold import Threshold
from offramp.types import Exit

Weights = dict[str, Tensor]
Rules = list[tuple[str, str]]

_VIT: Rules = [
    (r"^deit\.embeddings\.cls_token$", "cls_token"),
    (r"^deit\.embeddings\.distillation_token$", "dist_token"),
    (r"^deit\.embeddings\.position_embeddings$", "pos_embed"),
    (r"^deit\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^deit\.encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"^deit\.layernorm\.", "norm."),
    (r"^(cls_)?classifier\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
]
_SWIN: Rules = [
    (r"^swin\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^swin\.embeddings\.norm\.", "patch_embed.norm."),
    (r"^swin\.encoder\.layers\.(\d+)\.blocks\.(\d+)\.", r"layers.\1.blocks.\2."),
    (r"^swin\.encoder\.layers\.0\.downsample\.", "layers.1.downsample."),
    (r"^swin\.encoder\.layers\.1\.downsample\.", "layers.2.downsample."),
    (r"^swin\.encoder\.layers\.2\.downsample\.", "layers.3.downsample."),
    (r"^swin\.layernorm\.", "norm."),
    (r"^classifier\.", "head.fc."),
]
_BLOCK: Rules = [
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(attention|self)\.(query|key|value)\.", r".attn.\2."),
    (r"\.attention\.self\.relative_position_bias_table$", ".attn.relative_position_bias_table"),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
]
_HIGHWAY = re.compile(r"^(?:deit|swin)\.encoder\.(?:layers\.(\d+)\.)?highway\.(\d+)\.(.+)$")
_UNUSED = re.compile(r"\.pooler\.|relative_position_index$|num_batches_tracked$")
_LOCAL: Rules = [
    (r"^mlp\.conv1\.0\.", "local.0."),
    (r"^mlp\.conv1\.2\.", "local.2."),
    (r"^mlp\.proj\.", "local.3."),
    (r"^mlp\.proj_bn\.", "local.5."),
]
_GLOBAL: Rules = [(r"^mlp\.(qkv|proj)\.", r"attention.\1.")]
_READOUT: Rules = [
    (r"^distillation_classifier\.", "readout.classifiers.1."),
    (r"^(cls_)?classifier\.", "readout.classifiers.0."),
    (r"^layernorm\.", "readout.norm."),
]


def lgvit(path: str | Path) -> tuple[EarlyExitModel, Threshold | None]:
    """A checkpoint of LGViT's authors (2308.00255) from a local folder, as ``offramp.load`` returns a model.

    Reads ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin`` (tensors only, nothing in it can run) in
    the Hugging Face form that the authors released: ViT, DeiT (two averaged classifiers) and Swin backbones with
    LGViT's eight heads. The policy is the checkpoint's own rule if that is a confidence threshold, else None.

    Raises:
        ArtifactError: files that are missing or damaged, another form, or keys that are not known; the sentence names
            them.
    """
    path = Path(path)
    config, weights = _config(path), _weights(path)
    swin = any(key.startswith("swin.") for key in weights)
    heads, rest = _divide(weights)
    converted, unknown = _rename(rest, [*(_SWIN if swin else _VIT), *_BLOCK])
    try:
        overlay = _preprocessing(path, config)
        backbone = _swin(config, overlay) if swin else _vit(config, overlay, converted)
        places = _places(config, swin, len(heads))
        exits = [Exit(after, *_kind(head, i, swin)) for i, (after, head) in enumerate(zip(places, heads, strict=True))]
        names = config.get("id2label")
        classes = None if not names else [names[str(i)] for i in range(len(names))]
        model = attach(backbone, exits, classes=classes)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{path / 'config.json'} does not describe an LGViT model: {error}") from error
    state = {f"backbone.model.{key}": value for key, value in _join_qkv(converted).items()}
    for i, head in enumerate(heads):
        named, more = _rename(head, [*(_GLOBAL if "mlp.qkv.weight" in head else _LOCAL), *_READOUT])
        # the second form has no depth-wise convolution: its last convolution stands three places earlier
        last = 6 if "mlp.proj_bn.weight" in head else 3
        for key, value in named.items():
            key = key.replace("mlp.conv2.0.", f"local.{last}.").replace("mlp.conv2.1.", f"local.{last + 1}.")
            state[f"heads.{i}.{key}"] = value
        unknown += [f"highway {i}: {key}" for key in more if not key.startswith("mlp.conv2.")]
    missing, unexpected = _load(model, state)
    unknown += [key for key in unexpected if key.removeprefix("backbone.model.") not in unknown]
    if missing:
        said = [
            f"{what}: {', '.join(keys[:8])}" for what, keys in (("missing", missing), ("not known", unknown)) if keys
        ]
        raise ArtifactError(f"the weights in {path} are not those of an LGViT model; {'; '.join(said)}")
    if unknown:
        warnings.warn(f"keys of {path} that are not known were left out: {', '.join(unknown)}", stacklevel=2)
    return model.eval(), _policy(config, len(exits))


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / "config.json").read_text())
        if not isinstance(config, dict):
            raise ValueError("it holds no settings")
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path / 'config.json'} could not be read: {error}") from error
    return config


def _weights(path: Path) -> Weights:
    try:
        if (path / "model.safetensors").exists():
            return load_file(path / "model.safetensors")
        return torch.load(path / "pytorch_model.bin", map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ArtifactError(f"{path} holds neither model.safetensors nor pytorch_model.bin") from None
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, ModuleNotFoundError) as error:
        raise ArtifactError(f"the weights in {path} could not be read: {str(error).splitlines()[0]}") from error
    except Exception as error:  # the restricted unpickler raises an error of pickle's for what is no tensor
        raise ArtifactError(f"the weights in {path} hold more than tensors and are not opened") from error


def _divide(weights: Weights) -> tuple[list[Weights], Weights]:
    """The heads in the order of their places, and everything else; what no model uses is dropped."""
    heads: dict[tuple[int, int], Weights] = {}
    rest: Weights = {}
    for key, value in weights.items():
        if match := _HIGHWAY.match(key):
            if not _UNUSED.search(key):
                heads.setdefault((int(match[1] or 0), int(match[2])), {})[match[3]] = value
        elif not _UNUSED.search(key):
            rest[key] = value
    return [heads[k] for k in sorted(heads)], rest


def _rename(weights: Weights, rules: Rules) -> tuple[Weights, list[str]]:
    """Keys by the rules, each rule applied once; and the keys that no rule knows."""
    renamed, unknown = {}, []
    for key, value in weights.items():
        new = key
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new == key:
            unknown.append(key)
        renamed[new] = value
    return renamed, unknown


def _join_qkv(weights: Weights) -> Weights:
    """Query, key and value as the one layer that timm has."""
    joined = {k: v for k, v in weights.items() if not re.search(r"\.attn\.(query|key|value)\.", k)}
    for key in weights:
        if ".attn.query." in key:
            parts = [weights[key.replace(".query.", f".{name}.")] for name in ("query", "key", "value")]
            joined[key.replace(".query.", ".qkv.")] = torch.cat(parts)
    return joined


def _preprocessing(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """timm's data configuration as the released code evaluates: resize to the image size, no margin cropped off.

    Mean and standard deviation are those of ``preprocessor_config.json`` where the folder holds one.
    """
    overlay: dict[str, Any] = {"crop_pct": 1.0, "input_size": (config["num_channels"],) + (config["image_size"],) * 2}
    file = path / "preprocessor_config.json"
    if file.exists():
        values = json.loads(file.read_text())
        overlay |= {"mean": tuple(values["image_mean"]), "std": tuple(values["image_std"])}
    return overlay


def _vit(config: Mapping[str, Any], overlay: dict[str, Any], weights: Weights) -> Any:
    distilled = "dist_token" in weights
    name = "deit_tiny_distilled_patch16_224" if distilled else "vit_tiny_patch16_224"
    return timm.create_model(
        name,
        img_size=config["image_size"],
        patch_size=config["patch_size"],
        in_chans=config["num_channels"],
        embed_dim=config["hidden_size"],
        depth=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        mlp_ratio=config["intermediate_size"] / config["hidden_size"],
        num_classes=len(config["id2label"]),
        pretrained_cfg_overlay=overlay,
    )


def _swin(config: Mapping[str, Any], overlay: dict[str, Any]) -> Any:
    return timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=config["image_size"],
        patch_size=config["patch_size"],
        window_size=config["window_size"],
        in_chans=config["num_channels"],
        embed_dim=config["embed_dim"],
        depths=tuple(config["depths"]),
        num_heads=tuple(config["num_heads"]),
        mlp_ratio=config["mlp_ratio"],
        num_classes=len(config["id2label"]),
        pretrained_cfg_overlay=overlay,
    )


def _places(config: Mapping[str, Any], swin: bool, heads: int) -> list[int]:
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


def _kind(head: Weights, index: int, swin: bool) -> tuple[str, dict[str, Any]]:
    if "mlp.qkv.weight" in head:
        stride = (1 if index < 6 else 2) if swin else (2 if index < 6 else 3)
        return "gah", {"stride": stride}
    if "mlp.conv1.0.weight" in head:
        return "lph", {"depthwise": "mlp.proj.weight" in head}
    raise ValueError(f"head {index} is none of LGViT's two")


def _load(model: EarlyExitModel, state: Weights) -> tuple[list[str], list[str]]:
    own = model.state_dict()
    wrong = [k for k, v in state.items() if k in own and own[k].shape != v.shape]
    if wrong:
        raise ArtifactError(
            f"{wrong[0]} has the shape {tuple(state[wrong[0]].shape)}, not {tuple(own[wrong[0]].shape)}"
        )
    result = model.load_state_dict(state, strict=False)
    return [k for k in result.missing_keys if not _UNUSED.search(k)], list(result.unexpected_keys)


def _policy(config: Mapping[str, Any], exits: int) -> Threshold | None:
    threshold = config.get("threshold")
    if config.get("exit_strategy") != "confidence" or not isinstance(threshold, (int, float)):
        return None
    return Threshold((float(threshold),) * exits, provenance={"source": "the configuration of the checkpoint"})
