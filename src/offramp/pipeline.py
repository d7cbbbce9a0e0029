"""From a recipe to an artifact: the road, driven once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch

from offramp._files import write_json
from offramp._progress import track
from offramp.artifact import Artifact, save
from offramp.cost import profile
from offramp.data import Samples, Splits, loader, open_splits
from offramp.engine import tabulate
from offramp.errors import DataError, UsageError
from offramp.model import EarlyExitModel, attach
from offramp.policies import calibrate
from offramp.recipe import Recipe
from offramp.registry import OBJECTIVES
from offramp.tasks import get_task
from offramp.training import train
from offramp.training.checkpoint import checkpoints
from offramp.types import Exit, ExitTable


def build_model(recipe: Recipe, splits: Splits) -> EarlyExitModel:
    """The untrained model of a recipe. Raises ``UsageError`` where its parts do not fit together."""
    task = get_task(recipe.task)
    outputs = len(splits.classes) if recipe.task == "classification" and splits.classes else 1
    backbone = recipe.backbone
    arguments = {"num_classes": outputs, **backbone.args}
    size = arguments.get("img_size")
    overlay = dict(backbone.preprocessing)
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        overlay.setdefault("input_size", (arguments.get("in_chans", 3), height, width))
    try:
        inner = timm.create_model(
            backbone.name,
            pretrained=False,
            checkpoint_path=str(backbone.checkpoint or ""),
            pretrained_cfg_overlay=overlay,
            **arguments,
        )
    except (TypeError, AssertionError, ValueError, RuntimeError, OSError) as error:
        raise UsageError(f"timm could not build {backbone.name} with {arguments}: {error}") from error
    exits = [Exit(e.after, e.head, e.options) for e in recipe.exits]
    return attach(inner, exits, task, splits.classes if outputs > 1 else None)


def train_recipe(recipe: Recipe, out: Path, device: str = "auto", progress: bool = False) -> Artifact:
    """Train, tabulate on validation, calibrate for the recipe's goal, and write the artifact.

    Checkpoints, log and splits are kept in ``OUT.run`` beside the artifact; the same call resumes a run that was
    killed.

    Raises:
        UsageError: ``OUT.run`` holds a run of another recipe.
        DataError: the data is not there, or the disk is full.
    """
    splits = open_splits(recipe.data.source, recipe.data.validation, recipe.seed)
    torch.manual_seed(recipe.seed)
    model = build_model(recipe, splits)
    folder = out.with_name(out.name + ".run")
    _same_run(folder, {"recipe": recipe.model_dump(mode="json"), "data": dict(splits.record)})
    settings = recipe.training.model_dump()
    goal = OBJECTIVES.resolve(recipe.objective.name)
    try:
        objective = goal(**recipe.objective.options)
    except TypeError as error:
        raise UsageError(f"objective {recipe.objective.name!r}: {error}") from error
    train(
        model,
        splits.train,
        objective,
        folder=folder,
        validation=splits.validation,
        seed=recipe.seed,
        device=device,
        progress=progress,
        **settings,
    )
    table = tabulate_samples(model, splits.validation, splits.record, "validation", progress)
    costs = profile(model)
    policy = calibrate(table, costs, **recipe.goal.model_dump(exclude_none=True))
    record = {"recipe": recipe.model_dump(mode="json"), "data": dict(splits.record)}
    save(model, out, policy, table, costs, record)
    return Artifact(model, policy, table, costs, record)


def tabulate_samples(
    model: EarlyExitModel,
    samples: Samples,
    record: Mapping[str, Any],
    split: str,
    progress: bool = False,
    batch_size: int = 128,
) -> ExitTable:
    """The exit table of some samples; it remembers which data and split they are."""
    batches = loader(samples, model.data_config, batch_size)
    about = {"data": record["source"], "split": split, "fingerprint": record["fingerprints"][split]}
    return tabulate(model, track(batches, split, len(batches), progress), about)


def _same_run(folder: Path, description: dict[str, Any]) -> None:
    file = folder / "run.json"
    if file.exists():
        if json.loads(file.read_text()) != json.loads(json.dumps(description)):
            raise UsageError(f"{folder} holds a run of another recipe or data; remove it or choose another output")
        return
    if checkpoints(folder):
        raise DataError(f"{folder} holds checkpoints of a run that is not described")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, description)
