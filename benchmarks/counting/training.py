"""One network for each split and seed, trained with its exits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import offramp
from benchmarks._runs import finish, weights
from benchmarks.counting.plan import ARGS, EXITS, FINAL, SIZE, TRAINING
from offramp import Exit
from offramp.backbones import cut as cut_model
from offramp.data import Splits
from offramp.inputs import PointsInput
from offramp.model import EarlyExitModel
from offramp.pipeline import timm_model
from offramp.recipe import BackboneSection
from offramp.training.objectives.joint import Joint


def build(seed: int) -> EarlyExitModel:
    """The untrained network; the same seed gives the same weights."""
    torch.manual_seed(seed)
    inner = timm_model(BackboneSection(name="resnet18", args=dict(ARGS), preprocessing={"input_size": SIZE}), 1)
    exits = [Exit(after, "density", options) for after, options in EXITS.items()]
    last = Exit(len(cut_model(inner).steps), "density", FINAL)
    return offramp.attach(inner, exits, "density", model_input=PointsInput.for_backbone(inner, SIZE), final=last)


def train(folder: Path, splits: Splits, seed: int, where: dict[str, Any]) -> None:
    """Train where it stopped, and keep weights and tables."""
    finish(folder, build(seed), splits, Joint("final-doubled"), {**TRAINING, "seed": seed}, **where)


def trained(folder: Path, seed: int) -> EarlyExitModel:
    """A finished run's network."""
    model = build(seed)
    model.load_state_dict(weights(folder))
    return model.eval()
