"""offramp export: one file that leaves early by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.cli._shared import Json, Model, OneThreshold, PolicyFile, chosen_policy, emit, err, out, ready

EXAMPLE = "offramp export my-model my-model.onnx"


def command(
    model: Model,
    to: Annotated[Path, typer.Argument(help="The ONNX file.")],
    policy: PolicyFile = None,
    threshold: OneThreshold = None,
    preprocess: Annotated[
        bool, typer.Option("--preprocess", help="Resize, crop and normalise in the file: uint8 pictures in.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a model and its policy as one ONNX file, for ONNX Runtime, OpenVINO, browsers and Node."""
    from offramp.export import export_onnx

    artifact = ready(model, "cpu", 0)
    rule = chosen_policy(artifact, policy, threshold)
    err.print(f"exporting {model}: {len(artifact.model.exits)} early exits; this takes some seconds an exit")
    export_onnx(artifact.model, to, rule, preprocess)
    if json:
        emit({"model": str(model), "file": str(to), "bytes": to.stat().st_size})
    else:
        given = "pictures" if preprocess else "images"
        out.print(f"{to}, {to.stat().st_size / 1e6:.1f} MB: {given} in; output, exit and score out")
