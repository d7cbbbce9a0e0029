"""offramp train: from a recipe to a saved model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from offramp.cli._shared import Device, Json, emit, err, metric, out

EXAMPLE = "offramp train recipes/fashion-mnist.yaml --data fashion_mnist.npz --out my-model"


def command(
    recipe: Annotated[Path, typer.Argument(help="A recipe file; - reads stdin.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Where the model goes; checkpoints and log go to OUT.run.")],
    data: Annotated[str | None, typer.Option(help="Data to use instead of the recipe's source.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A file with the backbone's first weights, in place of what the recipe names.")
    ] = None,
    tracker: Annotated[
        str | None, typer.Option(help="A tracker that accelerate knows, such as tensorboard; it writes to OUT.run.")
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train, calibrate and save a model. A run that was stopped goes on where it was."""
    from offramp.recipe import read_recipe

    plan = read_recipe(recipe)
    if data is not None:
        plan = plan.model_copy(update={"data": plan.data.model_copy(update={"source": data})})
    if checkpoint is not None:
        plan = plan.model_copy(update={"backbone": plan.backbone.model_copy(update={"checkpoint": checkpoint})})
    from offramp.pipeline import train_recipe

    err.print(f"training {plan.name}: {plan.backbone.name}, {len(plan.exits)} early exits, data {plan.data.source}")
    warnings.filterwarnings("ignore", "Grad strides do not match")  # convolutions, several processes
    artifact = train_recipe(plan, out_folder, device, progress=True, tracker=tracker)
    if artifact is None:
        return
    assert artifact.policy is not None
    expected = artifact.policy.provenance["expected"]  # type: ignore[attr-defined]
    if json:
        emit({"model": str(out_folder), "validation": expected, "samples": dict(artifact.record["data"]["sizes"])})
        return
    task = artifact.model.task
    out.print(f"saved to {out_folder}")
    out.print(
        f"on validation: {task.metric} {metric(task, expected[task.metric])} "
        f"(static {metric(task, expected['static_' + task.metric])}), MACs speed-up {expected['macs_speedup']:.2f}"
    )
