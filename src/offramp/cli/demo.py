"""offramp demo: the whole road on real input, without a download."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any

import typer

from offramp.cli._shared import Json, emit, err, out
from offramp.cli.evaluate import show

EXAMPLE = "offramp demo"
_IMAGES = 20


def command(
    out_folder: Annotated[Path, typer.Option("--out", help="Where the model and some images go.")] = Path(
        "offramp-demo"
    ),
    json: Json = False,
) -> None:
    """Show the model in the box at work, then train a small ViT with exits on real handwritten digits and calibrate it.

    Takes under two minutes on two cores and needs no network: the 1,797 digits ship with scikit-learn.
    """
    from offramp.artifact import refuse_foreign
    from offramp.data import open_splits
    from offramp.errors import UsageError
    from offramp.pipeline import evaluate, train_recipe
    from offramp.recipe import read_recipe

    model, images = out_folder / "model", out_folder / "images"
    run = out_folder / "model.run"  # checkpoints; all that there is of a demo that was stopped
    ours = (model / "config.json").exists() or run.exists()
    if out_folder.exists() and any(out_folder.iterdir()) and not ours:
        raise UsageError(f"{out_folder} exists and is not from a demo; choose another place with --out")
    refuse_foreign(model)
    boxed = _photographs(show_them=not json)
    with as_file(files("offramp.cli") / "digits.yaml") as file:
        recipe = read_recipe(file)
    splits = open_splits(recipe.data.source, recipe.data.validation, recipe.seed)
    shutil.rmtree(run, ignore_errors=True)
    err.print(
        f"{recipe.backbone.name}, {recipe.backbone.args['depth']} blocks, exits after blocks "
        f"{', '.join(str(e.after) for e in recipe.exits)}; {len(splits.train)} digits to train on, "
        f"{len(splits.validation)} to calibrate on, {len(splits.test)} to test on"
    )
    artifact = train_recipe(recipe, model, device="cpu", progress=True)
    assert artifact is not None
    assert artifact.policy is not None
    result = {"model": str(model), **evaluate(artifact, artifact.policy, splits, progress=True)}
    images.mkdir(exist_ok=True)
    for i in range(_IMAGES):
        splits.test.read(i).save(images / f"{i:02}-is-a-{splits.test.targets[i]}.png")
    if json:
        emit({**result, "in_the_box": boxed})
        return
    show(artifact, result)
    out.print(f"model saved to {model}, {_IMAGES} test images to {images}; now try:")
    out.print(f"  offramp predict --model {model} {images}")


def _photographs(show_them: bool) -> list[dict[str, Any]]:
    """The model in the box on the two photographs that come with scikit-learn."""
    from sklearn.datasets import load_sample_images

    from offramp.answers import open_model
    from offramp.artifact import load_artifact
    from offramp.cli.predict import predict, show
    from offramp.engine import TorchRuntime

    artifact = load_artifact("cifar10")
    assert artifact.policy is not None
    opened = open_model(artifact.model, artifact.policy, TorchRuntime())
    rows = predict(opened, map(str, load_sample_images().filenames))
    if show_them:
        out.print("the model in the box, cifar10, on two photographs that come with scikit-learn; it knows neither")
        out.print("temples nor flowers, and answers one of its ten classes all the same:")
        show(opened.task, [{**row, "input": Path(row["input"]).name} for row in rows])
    return rows
