"""Training one run of the plan, and reading all its exits on validation and test data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import offramp
from benchmarks._runs import finish as train
from benchmarks._runs import table, weights
from benchmarks.compare.plan import BACKBONE, Run
from offramp.data import Samples, Splits, open_splits
from offramp.data.samples import from_pixels
from offramp.model import EarlyExitModel
from offramp.pipeline import timm_model
from offramp.registry import OBJECTIVES
from offramp.types import ExitTable

SETTINGS: dict[str, Any] = {
    "batch_size": 128,
    "optimizer": "nmuon",
    "learning_rate": 2e-3,
    "weight_decay": 0.05,
    "warmup_epochs": 0.5,
    "precision": "bf16",
    "augment": {"scale": (0.6, 1.0), "ratio": (0.8, 1.25), "hflip": 0.5, "color_jitter": None},
}
"""What all runs share."""


def splits_of(source: str) -> Splits:
    """The data, decoded once; 5,000 training images are cut off for validation."""
    splits = open_splits(source, 5000, 0)
    return Splits({name: _decoded(part) for name, part in splits.parts.items()}, splits.classes, splits.record)


def build(run: Run, work: Path) -> EarlyExitModel:
    """The untrained model of a run, with the backbone of the run that it starts from."""
    seed = run.settings.get("seed", 0)
    torch.manual_seed(seed)
    section = BACKBONE.model_copy(update={"args": {**BACKBONE.args, "depth": run.depth}})
    inner = timm_model(section, 10)
    if run.start is not None:
        prefix, learned = "backbone.model.", weights(work / run.start)
        inner.load_state_dict({k.removeprefix(prefix): v for k, v in learned.items() if k.startswith(prefix)})
    torch.manual_seed(seed)
    return offramp.attach(inner, run.exits(inner))


def finish(run: Run, splits: Splits, work: Path) -> None:
    """Train a run where it stopped, and keep its two tables and its weights; a finished run is left alone."""
    objective = OBJECTIVES.resolve(run.objective)(**run.options)
    train(work / run.name, build(run, work), splits, objective, {**SETTINGS, **run.settings})


def tables(run: Run, work: Path) -> tuple[ExitTable, ExitTable]:
    """What all exits of a finished run said on validation and on test data."""
    return table(work / run.name, "validation"), table(work / run.name, "test")


def _decoded(samples: Samples) -> Samples:
    images: list[Image.Image] = [samples.read(i).convert("RGB") for i in range(len(samples))]
    return from_pixels(np.stack([np.asarray(image) for image in images]), samples.targets)
