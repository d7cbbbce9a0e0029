"""offramp predict: what is in these images."""

from __future__ import annotations

import glob
import io
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli._shared import (
    Device,
    Json,
    OneThreshold,
    PolicyFile,
    Threads,
    chosen_policy,
    emit,
    err,
    ready,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from PIL.Image import Image

    from offramp.model import EarlyExitModel
    from offramp.policies import Policy

EXAMPLE = "offramp predict photo.jpg 'more/*.png' a-folder --model my-model"
_SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"}


def command(
    inputs: Annotated[list[str], typer.Argument(help="Image files, folders, globs; - reads one image from stdin.")],
    model: Annotated[
        Path, typer.Option("--model", "-m", help="The folder of a saved model, or a name from offramp list models.")
    ] = Path("cifar10"),
    policy: PolicyFile = None,
    threshold: OneThreshold = None,
    device: Device = "auto",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Label images one by one: label, confidence, the exit that each left at, milliseconds.

    An image that cannot be read is named, the others are still answered, and the exit code is 1.
    """
    from offramp._progress import track

    files = list(expand(inputs))
    artifact = ready(model, device, threads)
    rule = chosen_policy(artifact, policy, threshold)
    rows = predict(artifact.model, rule, track(files, "predicting", len(files)))
    if json:
        emit(rows)
    else:
        show(artifact.model, rows)
    for row in rows:
        if "error" in row:
            err.print(f"offramp: {row['error']}", markup=False)
    if any("error" in row for row in rows):
        raise typer.Exit(1)


def predict(model: EarlyExitModel, policy: Policy, files: Iterable[str]) -> list[dict[str, Any]]:
    """An answer for each file, or the error in its place."""
    _warm_up(model, policy)
    return [_answer(model, policy, file) for file in files]


def show(model: EarlyExitModel, rows: list[dict[str, Any]]) -> None:
    """The answers for people; errors are left out."""
    cells = [
        [r["input"], str(r["label"]), f"{r['score']:.3f}", f"block {r['after']}", f"{r['ms']:.1f}"]
        for r in rows
        if "error" not in r
    ]
    if cells:
        table("", ["input", "label", model.task.scores[0], "left after", "ms"], cells)


def expand(inputs: list[str]) -> list[str]:
    """Folders and globs as the files in them, in order; what is neither stays. Raises ``DataError`` for none at all."""
    from offramp.errors import DataError

    files: list[str] = []
    for name in inputs:
        if name == "-":
            files.append(name)
        elif Path(name).is_dir():
            found = sorted(str(f) for f in Path(name).rglob("*") if f.suffix.lower() in _SUFFIXES)
            if not found:
                raise DataError(f"the folder {name} holds no images")
            files += found
        elif not Path(name).exists() and glob.has_magic(name):
            found = sorted(glob.glob(name, recursive=True))
            if not found:
                raise DataError(f"nothing matches {name}")
            files += found
        else:
            files.append(name)
    return files


def _warm_up(model: EarlyExitModel, policy: Policy) -> None:
    """The first run of a model is slow; no image's milliseconds should hold it."""
    import torch

    from offramp import run

    run(model, torch.zeros(1, *model.data_config["input_size"]), policy)


def _answer(model: Any, policy: Policy, file: str) -> dict[str, Any]:
    from offramp import run
    from offramp.data.images import to_tensor
    from offramp.errors import DataError

    try:
        image = _open(file)
        x = to_tensor(image, model.data_config)
        start = time.perf_counter()
        trace = run(model, x, policy)
        answer = model.task.answer(trace.output)[0].item()
        spent = time.perf_counter() - start
    except DataError as error:
        return {"input": file, "error": str(error)}
    exit = int(trace.exit[0])
    return {
        "input": file,
        "label": answer if model.classes is None else model.classes[answer],
        "score": float(trace.score[0]),
        "exit": exit,
        "after": model.after[exit],
        "ms": 1000 * spent,
    }


def _open(file: str) -> Image:
    from offramp.data.folder import open_image

    return open_image(file if file != "-" else io.BytesIO(sys.stdin.buffer.read()))
