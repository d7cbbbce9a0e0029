"""Training one run of the plan, and reading all its exits on validation and test data."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import offramp
from benchmarks._runs import finish, finished, weights
from benchmarks.tails.plan import BACKBONE, Field, Run
from offramp.bench.rows import spaced
from offramp.data import Splits, open_splits
from offramp.errors import Notice
from offramp.model import EarlyExitModel
from offramp.pipeline import timm_model
from offramp.recipe import BackboneSection
from offramp.registry import OBJECTIVES
from offramp.training import Teacher


def splits_of(place: Field, source: str) -> Splits:
    """The data; 2,000 training images are cut off for validation where it has no such split."""
    splits = open_splits(source, 2000, 0)
    parts = dict(splits.parts)
    for name, wanted in (("train", place.train), ("test", place.test)):
        if wanted is not None:
            parts[name] = spaced(parts[name], wanted)
    return Splits(parts, splits.classes, splits.record)


def build(run: Run, place: Field, checkpoint: Path | None, classes: int) -> EarlyExitModel:
    """The untrained model of a run; from random weights where there is no checkpoint."""
    torch.manual_seed(run.settings["seed"])
    overlay = {**place.preprocessing, "input_size": (3, run.side, run.side)}
    size = {"img_size": run.side} if run.network == BACKBONE else {}  # a CNN takes any
    section = BackboneSection(name=run.network, args=size, preprocessing=overlay, checkpoint=checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # it has another classifier, of course
        inner = timm_model(section, classes)
    if run.depth is not None:
        inner.blocks = inner.blocks[: run.depth]
    return offramp.attach(
        inner, run.exits, tails=run.tails, link=run.link, router=run.router, shared_heads=run.shared_heads
    )


def trained(run: Run, place: Field, work: Path, classes: int) -> EarlyExitModel:
    """A finished run's model; without its heads where the run is asked for without exits."""
    model = build(run, place, None, classes)
    found = weights(work / run.name)
    model.load_state_dict({k: v for k, v in found.items() if run.exits or not k.startswith("heads.")})
    return model.eval()


def train(
    run: Run,
    place: Field,
    splits: Splits,
    checkpoint: Path,
    work: Path,
    device: str = "cpu",
    workers: int = 0,
    precision: str = "fp32",
) -> None:
    """Train a run where it stopped, and keep its weights and tables."""
    assert splits.classes is not None
    if finished(work / run.name):
        return
    model = build(run, place, checkpoint if run.base is None else _backbone(work / run.base), len(splits.classes))
    if run.start is not None:
        # a router is trained anew, unless it is heads that are trained beside it
        kept = {k: v for k, v in weights(work / run.start).items() if run.exits or not k.startswith("router.")}
        model.load_state_dict(kept, strict=False)
    settings = dict(run.settings)
    if run.taught:
        assert run.base is not None
        alone = build(replace(run, exits=()), place, _backbone(work / run.base), len(splits.classes))
        settings["teacher"] = Teacher(alone.backbone.model, model_input=model.input)
    objective: Any = OBJECTIVES.resolve(run.objective)(**run.options)
    finish(work / run.name, model, splits, objective, settings, device, workers, precision)


def _backbone(folder: Path) -> Path:
    """The backbone of a finished run, as a file of weights in timm's names."""
    file = folder / "backbone.safetensors"
    if not file.exists():
        prefix = "backbone.model."
        found = {k.removeprefix(prefix): v for k, v in weights(folder).items() if k.startswith(prefix)}
        save_file(found, file)
    return file
