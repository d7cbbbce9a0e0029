"""A network that hears, and one with exits that sees and has it beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch

import offramp
from benchmarks._runs import finish, weights
from benchmarks.audiovisual.pairs import Digits, paired, spoken
from benchmarks.audiovisual.plan import BOTH, CLIPS, FUSION, HEAD, HEARING, PLACES, SIGHT, SOUND
from offramp import Exit
from offramp.inputs import ImageInput, LogMelInput, PairInput
from offramp.model import EarlyExitModel
from offramp.training.objectives.self_distillation import SelfDistillation


def hearing(seed: int) -> EarlyExitModel:
    """The untrained network for clips, without early exits; the same seed gives the same weights."""
    torch.manual_seed(seed)
    overlay = {"input_size": CLIPS["input_size"]}
    inner = timm.create_model("resnet18", num_classes=10, pretrained_cfg_overlay=overlay, **SOUND)
    return offramp.attach(inner, classes=[str(d) for d in range(10)], model_input=LogMelInput(**CLIPS))


def both(seed: int, heard: Path | None = None) -> EarlyExitModel:
    """The ViT with exits for sight and for both.

    Args:
        seed: of its weights.
        heard: the folder of the finished network for clips, which becomes its side encoder.
    """
    ear = hearing(seed)
    if heard is not None:
        ear.load_state_dict(weights(heard))
    side = ear.backbone.model
    side.reset_classifier(0)
    torch.manual_seed(seed)
    overlay = {"input_size": (1, 28, 28), "mean": (0.13,), "std": (0.2,), "crop_pct": 1.0, "interpolation": "bilinear"}
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=10, pretrained_cfg_overlay=overlay, **SIGHT)
    exits = [Exit(place, HEAD, side=side) for place in PLACES for side in (None, FUSION)]
    reads = PairInput(ImageInput.for_backbone(vit, (1, 28, 28)), LogMelInput(**CLIPS))
    last = Exit(SIGHT["depth"], HEAD, side=FUSION)
    classes = [str(d) for d in range(10)]
    return offramp.attach(vit, exits, classes=classes, model_input=reads, side=side, final=last)


def train(folder: Path, given: Digits, seed: int, where: dict[str, Any]) -> None:
    """Train both where they stopped, and keep weights and tables."""
    finish(folder / "sound", hearing(seed), spoken(given, seed), "backbone", {**HEARING, "seed": seed}, **where)
    settings = {**BOTH, "seed": seed}
    objective = SelfDistillation(weights="final-doubled")
    finish(folder / "both", both(seed, folder / "sound"), paired(given, seed), objective, settings, **where)


def trained(folder: Path, seed: int) -> EarlyExitModel:
    """A finished run's network."""
    model = both(seed)
    model.load_state_dict(weights(folder / "both"))
    return model.eval()
