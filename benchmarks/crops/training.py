"""A network for each split and seed, and heads from what it computes."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import offramp
from benchmarks._runs import TABLES, finish, finished, table, train_in_steps, weights
from benchmarks.audio.plan import HEADS, SEVEN
from benchmarks.crops.plan import BACKBONE, GRID, PLACES, SIDE, STEPS, TRAINING
from offramp import Exit
from offramp.artifact import save_table
from offramp.data import Splits, loader
from offramp.inputs import PointsInput
from offramp.model import EarlyExitModel
from offramp.pipeline import timm_model
from offramp.recipe import BackboneSection
from offramp.training import Stage
from offramp.training.objectives.frozen import Frozen
from offramp.types import ExitTable


@dataclass(frozen=True)
class Work:
    """A split, a seed and the folder of its runs.

    Args:
        splits: crops.
        folder: for runs.
        seed: of everything random.
        checkpoint: weights of the pretrained network.
    """

    splits: Splits
    folder: Path
    seed: int
    checkpoint: Path

    def build(self, kind: str = "") -> EarlyExitModel:
        """The network without exits, or with exits of a kind; trained, where it has been."""
        torch.manual_seed(self.seed)
        section = BackboneSection(name=BACKBONE, args={"img_size": SIDE}, checkpoint=self.checkpoint)
        inner = timm_model(section, 1)
        reads = PointsInput.for_backbone(inner, (3, SIDE, SIDE), crops=GRID)
        exits = [Exit(after, kind) for after in PLACES] if kind else []
        model = offramp.attach(inner, exits, "counting", model_input=reads)
        if finished(self.folder):
            model.load_state_dict(weights(self.folder), strict=False)
        return model

    def train(self, where: dict[str, Any]) -> None:
        """The network, and then every kind of head from what it computes."""
        finish(self.folder, self.build(), self.splits, "backbone", {**TRAINING, "seed": self.seed}, **where)
        for kind in SEVEN:
            folder = self.folder / kind
            if finished(folder):
                continue
            print(folder, file=sys.stderr, flush=True)
            features = offramp.Features(self.build(kind), self.folder / "features")
            parts = {name: features.of(samples, name) for name, samples in self.splits.parts.items()}
            shutil.rmtree(folder / "run", ignore_errors=True)  # seconds of work: begun anew
            settings = {**HEADS, "seed": self.seed, "device": "cpu"}
            train_in_steps(features.model, [Stage(Frozen())], parts["train"], STEPS, folder / "run", settings)
            for split in TABLES:
                said = offramp.tabulate(features.model, loader(parts[split], features.model.input, 256))
                save_table(said, folder / f"{split}.safetensors")
            shutil.rmtree(folder / "run")

    @cached_property
    def tests(self) -> dict[str, ExitTable]:
        """What the exits of each kind said of the crops that are tested on."""
        return {kind: table(self.folder / kind, "test") for kind in SEVEN}

    def calibrating(self, kind: str) -> ExitTable:
        """The same of those that calibrate."""
        return table(self.folder / kind, "validation")
