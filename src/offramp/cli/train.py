"""offramp train: from a recipe to a saved model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from offramp.cli._shared import Device, Json, emit, err, metric, out

EXAMPLE = "offramp train recipes/fashion-mnist.yaml --data fashion_mnist.npz --out my-model"


def command(
    recipe: Annotated[
        str, typer.Argument(help="A recipe file, - reads stdin; with --backbone data: a folder, an .npz file, …")
    ],
    out_folder: Annotated[Path, typer.Option("--out", help="Where the model goes; checkpoints and log go to OUT.run.")],
    data: Annotated[str | None, typer.Option(help="Data to use instead of the recipe's source.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A file with the backbone's first weights, in place of what the recipe names.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="A name of timm's: train it on the data, by a recipe that is written to OUT.yaml."),
    ] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Begin with timm's weights.")] = False,
    exits: Annotated[str, typer.Option(help="Blocks after which exits stand, with commas between them.")] = "",
    epochs: Annotated[int | None, typer.Option(help="In place of the usual ones; fine-tuning has half.", min=1)] = None,
    tracker: Annotated[
        str | None, typer.Option(help="A tracker that accelerate knows, such as tensorboard; it writes to OUT.run.")
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Train, calibrate and save a model. A run that was stopped goes on where it was.

    The commonest case needs no recipe: offramp train FOLDER --backbone vit_tiny_patch16_224.augreg_in21k_ft_in1k
    --pretrained --exits 3,6,9 --out my-model fine-tunes the backbone and gives it exits that cost its own answers
    nothing.
    """
    from offramp.cli._plain import plain_recipe
    from offramp.errors import UsageError
    from offramp.recipe import read_recipe

    if backbone is None and (pretrained or exits or epochs is not None):
        raise UsageError("--pretrained, --exits and --epochs go with --backbone; a recipe says all of them itself")
    if backbone is not None and not exits:
        raise UsageError("name the blocks after which exits stand: --exits 3,6,9")
    if backbone is None:
        plan = read_recipe(recipe)
    else:
        plan = plain_recipe(recipe, backbone, exits, out_folder, pretrained, checkpoint, epochs)
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
