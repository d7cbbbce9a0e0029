"""offramp export: one file that leaves early by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offramp.cli._shared import Json, Model, OneThreshold, PolicyFile, chosen_policy, emit, err, out, ready

if TYPE_CHECKING:
    from offramp._batches import Inputs
    from offramp.artifact import Artifact

EXAMPLE = "offramp export my-model my-model.onnx"
_SAMPLES = 256
"""That ranges are taken from for int8."""


def command(
    model: Model,
    to: Annotated[Path, typer.Argument(help="The ONNX file.")],
    policy: PolicyFile = None,
    threshold: OneThreshold = None,
    preprocess: Annotated[
        bool, typer.Option("--preprocess", help="Resize, crop and normalise in the file: uint8 pictures in.")
    ] = False,
    int8: Annotated[
        str | None, typer.Option(help="Data whose training images to quantise with; calibrate the file afterwards.")
    ] = None,
    fixed: Annotated[
        bool, typer.Option("--fixed", help="Only the exits that the policy asks: smaller, and quicker for few samples.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a model and its policy as one ONNX file, for ONNX Runtime, OpenVINO, browsers and Node."""
    from offramp.export import export_onnx
    from offramp.pipeline import how_split

    artifact = ready(model, "cpu", 0)
    rule = chosen_policy(artifact, policy, threshold)
    which = f"{len(rule.heads)} of " if fixed else ""
    err.print(f"exporting {model} with {which}its {len(artifact.model.exits)} early exits; some seconds an exit")
    examples = None if int8 is None else _examples(artifact, int8)
    record = how_split(artifact)
    export_onnx(artifact.model, to, rule, preprocess=preprocess, int8=examples, record=record, fixed=fixed)
    if json:
        emit({"model": str(model), "file": str(to), "bytes": to.stat().st_size})
    else:
        given = f"{artifact.model.input.noun}{' as they are' if preprocess else ''}"
        out.print(f"{to}, {to.stat().st_size / 1e6:.1f} MB: {given} in; output, exit and score out")
    if int8 is not None and not fixed:
        out.print(f"thresholds belong to a precision; now: offramp calibrate {to} {int8} --max-drop 0.5")
    elif int8 is not None:
        out.print("thresholds belong to a precision: take the policy (--policy) of an int8 file with all exits")


def _examples(artifact: Artifact, data: str) -> list[Inputs]:
    """Training samples, evenly spaced, in batches."""
    import torch

    from offramp.data import loader
    from offramp.pipeline import open_for

    samples = open_for(artifact, data).train
    spaced = samples.take(torch.linspace(0, len(samples) - 1, min(_SAMPLES, len(samples))).long().numpy())
    return [x for x, _ in loader(spaced, artifact.model.input, 32)]
