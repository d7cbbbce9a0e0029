"""The timm models that Hugging Face configurations of ViT, DeiT and Swin describe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm

from offramp.backbones import set_layer_norm_eps

SWIN_NORM_EPS = 1e-5
"""Of the LayerNorms of a Swin that do not follow its configuration: after the patch embedding, in each patch merging.
Also what a Swin configuration means that names none."""
_VIT_NORM_EPS = 1e-12


def preprocessing(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """timm's data configuration as the released code evaluates: resize to the image size, no margin cropped off.

    Mean and standard deviation are those of ``preprocessor_config.json`` where the folder holds one.
    """
    overlay: dict[str, Any] = {"crop_pct": 1.0, "input_size": (config["num_channels"],) + (config["image_size"],) * 2}
    file = path / "preprocessor_config.json"
    if file.exists():
        values = json.loads(file.read_text())
        overlay |= {"mean": tuple(values["image_mean"]), "std": tuple(values["image_std"])}
    return overlay


def vit(config: Mapping[str, Any], overlay: dict[str, Any], distilled: bool) -> Any:
    """A ViT, or a DeiT with distillation token; every LayerNorm has the configuration's eps."""
    model = timm.create_model(
        "deit_tiny_distilled_patch16_224" if distilled else "vit_tiny_patch16_224",
        patch_size=config["patch_size"],
        embed_dim=config["hidden_size"],
        depth=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        mlp_ratio=config["intermediate_size"] / config["hidden_size"],
        **_common(config, overlay),
    )
    set_layer_norm_eps(model, {"": config.get("layer_norm_eps", _VIT_NORM_EPS)})
    return model


def swin(config: Mapping[str, Any], overlay: dict[str, Any]) -> Any:
    """A Swin; the LayerNorms of its blocks and the last one have the configuration's eps, as in the released code."""
    if config.get("use_absolute_embeddings"):
        raise ValueError("use_absolute_embeddings: timm's Swin has no absolute position embeddings")
    model = timm.create_model(
        "swin_tiny_patch4_window7_224",
        patch_size=config["patch_size"],
        window_size=config["window_size"],
        embed_dim=config["embed_dim"],
        depths=tuple(config["depths"]),
        num_heads=tuple(config["num_heads"]),
        mlp_ratio=config["mlp_ratio"],
        **_common(config, overlay),
    )
    fixed = ["patch_embed.norm", *(f"layers.{stage}.downsample.norm" for stage in range(1, len(config["depths"])))]
    set_layer_norm_eps(model, {"": swin_norm_eps(config), **dict.fromkeys(fixed, SWIN_NORM_EPS)})
    return model


def swin_norm_eps(config: Mapping[str, Any]) -> float:
    """The eps of the blocks of a Swin, of its last LayerNorm and of its exits."""
    return config.get("layer_norm_eps", SWIN_NORM_EPS)


def _common(config: Mapping[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    if (act := config.get("hidden_act", "gelu")) != "gelu":
        raise ValueError(f"hidden_act is {act!r}, and the released models compute with 'gelu'")
    return {
        "img_size": config["image_size"],
        "in_chans": config["num_channels"],
        "qkv_bias": config.get("qkv_bias", True),
        "num_classes": len(config["id2label"]),
        "pretrained_cfg_overlay": overlay,
    }
